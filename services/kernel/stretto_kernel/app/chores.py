"""Chores: what is done now and then beside everything else, and may fail without ending it.

A store that is down is waited for until the next time. What nobody foresaw is a bug of ours: it is
logged, told to everybody who asks how the suite is, and tried again, less and less often; nothing
else stands still for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from stretto_core.errors import Unavailable

AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Chore:
    """name: for people. do: once; raises Unavailable. interval_s: from one time to the next."""

    name: str
    do: Callable[[], Awaitable[None]]
    interval_s: float


@dataclass(frozen=True, slots=True)
class FailingChore:
    """A chore that failed the last time. failing_ns: since when, UTC nanoseconds."""

    name: str
    message: str
    failing_ns: int


class ChoreBoard(Protocol):
    """Where it is written that chores fail. Methods raise Unavailable."""

    async def note_failing(self, name: str, message: str) -> None:
        """It failed the last time."""
        ...

    async def note_well(self, name: str) -> None:
        """It did not."""
        ...


async def keep_doing(chore: Chore, board: ChoreBoard) -> None:
    """Do it now and every `interval_s`, until cancelled."""
    log = structlog.get_logger("stretto.kernel.chores").bind(chore=chore.name)
    again_s, is_known_well = AGAIN_S, False
    while True:
        wait_s = chore.interval_s
        try:
            try:
                await chore.do()
            except Unavailable:
                raise
            except Exception as error:
                log.error("chore.failed", exc_info=True)
                wait_s = min(again_s, chore.interval_s)
                again_s, is_known_well = 2 * wait_s, False
                await board.note_failing(chore.name, f"{type(error).__name__}: its log says more")
            else:
                again_s = AGAIN_S
                if not is_known_well:
                    await board.note_well(chore.name)
                    is_known_well = True
        except Unavailable as refusal:
            log.info("chore.postponed", reason=refusal.reason_word)
        await asyncio.sleep(wait_s)
