"""The writer's thread: calls in order, each answered, none stopped by who does not wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest
from stretto_core.eventlog.postgres.one_thread import OneThread


@pytest.fixture
async def thread() -> AsyncIterator[OneThread]:
    made = OneThread("a-thread")
    yield made
    made.close()


async def test_calls_run_in_order_beside_the_loop(thread: OneThread) -> None:
    ran: list[int] = []

    def call(number: int) -> str:
        ran.append(number)
        return threading.current_thread().name

    names = await asyncio.gather(*(thread.run(partial(call, number)) for number in (1, 2)))
    assert (ran, names) == ([1, 2], ["a-thread", "a-thread"])


async def test_what_a_call_raises_is_its_callers(thread: OneThread) -> None:
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 1) == 1


async def test_a_call_nobody_waits_for_still_runs(thread: OneThread) -> None:
    gate, ran = threading.Event(), []
    given_up = thread.run(gate.wait)
    after = thread.run(lambda: ran.append(1))
    given_up.cancel()
    gate.set()
    await after
    assert ran == [1]
