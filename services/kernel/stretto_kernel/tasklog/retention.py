"""Sweeps task logs now and then: they are telemetry, and end by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import structlog
from stretto_core.clock import NS_PER_S, Clock

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


async def sweep_once(sweep: Sweep, clock: Clock, kept: Kept) -> None:
    """Delete what need not be kept any more. Raises Unavailable."""
    now_ns = clock.now_ns()
    count = await sweep.sweep(
        before_ns=now_ns - int(kept.days * _DAY_NS),
        ended_before_ns=now_ns - int(kept.ended_days * _DAY_NS),
    )
    if count:
        structlog.get_logger("stretto.kernel.tasklog").info("task_log.swept", entry_count=count)
