"""Waiting in tests: for a condition, with a deadline; never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 60.0
POLL_S = 0.005


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Return as soon as `condition()` holds. Raises AssertionError at the deadline."""
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + deadline_s
    while not condition():
        assert loop.time() < give_up_s, f"{condition} did not come true in {deadline_s} s"
        await passed(POLL_S)


async def passed(seconds: float) -> None:
    """Return after so long: the pause between two looks, never what a test waits for."""
    loop = asyncio.get_running_loop()
    tick = loop.create_future()
    timer = loop.call_later(seconds, tick.set_result, None)
    try:
        await tick
    finally:
        timer.cancel()
