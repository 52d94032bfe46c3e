"""Sweeps task logs now and then: they are telemetry, and end by themselves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.errors import Unavailable

INTERVAL_S = 600.0
_DAY_NS = 86_400 * NS_PER_S


class Sweep(Protocol):
    """Deletes task logs of one partition."""

    async def sweep(self, *, before_ns: int, ended_before_ns: int) -> int:
        """Delete what was stored before, and ended runs' logs; return how many entries.

        Raises StoreDown.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How long: every entry, and all of a run after it ended and wrote its last."""

    days: float
    ended_days: float


async def keep_sweeping(sweep: Sweep, clock: Clock, kept: Kept) -> None:
    """Sweep now and every INTERVAL_S. Never returns; a store that is down is tried again."""
    log = structlog.get_logger("stretto.kernel.tasklog")
    while True:
        now_ns = clock.now_ns()
        try:
            count = await sweep.sweep(
                before_ns=now_ns - int(kept.days * _DAY_NS),
                ended_before_ns=now_ns - int(kept.ended_days * _DAY_NS),
            )
        except Unavailable as refusal:
            log.warning("task_log.not_swept", reason=refusal.reason_word, detail=refusal.message)
        else:
            if count:
                log.info("task_log.swept", entry_count=count)
        await asyncio.sleep(INTERVAL_S)
