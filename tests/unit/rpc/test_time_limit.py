"""The limit of calls without a deadline: one timer, each call ended at its own time."""

from __future__ import annotations

import asyncio

import pytest
from stretto_core.errors import DeadlineExceeded
from stretto_core.rpc.time_limit import TimeLimit

SPAN_S = 0.02


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_is_done_in_time_is_answered() -> None:
    limit = TimeLimit(60.0)

    async def answer() -> int:
        await asyncio.sleep(0)
        return 1

    assert await asyncio.gather(*(limit.within(answer()) for _ in range(3))) == [1, 1, 1]


async def test_each_call_is_ended_once_its_own_time_has_passed() -> None:
    limit = TimeLimit(SPAN_S)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    older = asyncio.create_task(limit.within(for_ever()))
    with pytest.raises(DeadlineExceeded):
        await older
    for _ in range(2):  # The timer is set again, for those that came later and for a new one.
        with pytest.raises(DeadlineExceeded):
            await limit.within(for_ever())
    assert loop.time() - began_s >= 3 * SPAN_S
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0, "whoever called goes on"


async def test_a_cancelled_call_is_cancelled() -> None:
    call = asyncio.create_task(TimeLimit(60.0).within(for_ever()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
