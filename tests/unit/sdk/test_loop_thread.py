"""A loop on a thread of its own: calls, streams, callbacks, and how each of them ends."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from stretto_sdk import loop_runner
from stretto_sdk.loop_thread import READ_AHEAD_COUNT, LoopThread

WAIT_S = 20.0


class Closed:
    """Notes that the loop's last work was done."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def closed() -> Closed:
    return Closed()


@pytest.fixture
def thread(closed: Closed) -> Iterator[LoopThread]:
    thread = LoopThread("it", last=closed)
    yield thread
    thread.close()
    assert "it" not in names_of_threads()


def names_of_threads() -> list[str]:
    return [each.name for each in threading.enumerate()]


async def answer(value: int) -> int:
    return value


class Endless:
    """Work that never ends by itself, and knows whether it was ended."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # Cleaning up takes a turn of the loop.
            self.ended.set()

    async def items(self) -> AsyncGenerator[int, None]:
        yield 1
        await self()


def test_a_call_returns_or_raises_what_its_work_does(thread: LoopThread) -> None:
    async def fail() -> None:
        raise KeyError("k")

    assert thread.call(answer, 7) == 7
    with pytest.raises(KeyError):
        thread.call(fail)


def test_it_serves_many_threads_at_once(thread: LoopThread) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda n: thread.call(answer, n), range(200))) == list(range(200))


async def test_it_is_called_from_within_a_running_loop(thread: LoopThread) -> None:
    assert thread.call(answer, 1) == 1


def test_a_call_from_its_own_loop_is_refused_instead_of_waiting_for_itself(
    thread: LoopThread,
) -> None:
    async def call_again() -> None:
        thread.call(answer, 1)

    with pytest.raises(RuntimeError, match="its own event loop"):
        thread.call(call_again)


def test_a_closed_one_says_so_and_closing_again_is_harmless(
    thread: LoopThread, closed: Closed
) -> None:
    thread.call(answer, 1)
    thread.close()
    thread.close()
    assert closed.count == 1
    with pytest.raises(RuntimeError, match="is closed"):
        thread.call(answer, 1)
    with pytest.raises(RuntimeError, match="is closed"):
        next(thread.stream(Endless().items))


def test_closing_ends_what_waits_in_other_threads(thread: LoopThread) -> None:
    call, stream = Endless(), Endless()

    def read() -> list[int]:
        return list(thread.stream(stream.items))

    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[object]] = [
            pool.submit(lambda: thread.call(call)),
            pool.submit(read),
        ]
        assert call.begun.wait(WAIT_S) and stream.begun.wait(WAIT_S)
        thread.close()
        for each in waiting:
            with pytest.raises(RuntimeError, match="was closed during"):
                each.result(WAIT_S)
    assert call.ended.is_set() and stream.ended.is_set()


def test_work_ended_before_its_caller_looks_again_was_closed_during_its_call(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless, post = Endless(), loop_runner.LoopRunner.post

    def call() -> None:
        caller = threading.current_thread()

        def post_and_pause(runner: loop_runner.LoopRunner, wish: Callable[[], object]) -> None:
            post(runner, wish)
            assert threading.current_thread() is not caller or endless.ended.wait(WAIT_S)

        monkeypatch.setattr(loop_runner.LoopRunner, "post", post_and_pause)
        thread.call(endless)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call)
        assert endless.begun.wait(WAIT_S)
        thread.close()
        with pytest.raises(RuntimeError, match="was closed during"):
            waiting.result(WAIT_S)


def test_work_that_does_not_heed_its_end_keeps_no_caller(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    async def deaf() -> None:
        while True:
            begun.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    monkeypatch.setattr(loop_runner, "CANCEL_S", 0.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: thread.call(deaf))
        assert begun.wait(WAIT_S)
        thread.close()
        with pytest.raises(RuntimeError, match="was closed during"):
            waiting.result(WAIT_S)


def test_a_stream_is_read_to_its_end_in_order_however_long(thread: LoopThread) -> None:
    ahead = [0]

    async def count(to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            ahead[0] = number
            yield number

    numbers = thread.stream(count, 1_000)
    assert next(numbers) == 0
    thread.call(answer, 1)
    assert ahead[0] <= READ_AHEAD_COUNT + 1
    assert list(numbers) == list(range(1, 1_000))
    assert list(thread.stream(count, 0)) == []


def test_a_stream_raises_what_its_source_raises_after_what_it_gave(thread: LoopThread) -> None:
    async def break_off() -> AsyncGenerator[int, None]:
        yield 1
        raise KeyError("k")

    numbers = thread.stream(break_off)
    assert next(numbers) == 1
    with pytest.raises(KeyError):
        next(numbers)


@pytest.mark.parametrize("leave", ["close", "collect"])
def test_a_stream_left_early_has_closed_its_source(thread: LoopThread, leave: str) -> None:
    endless = Endless()
    numbers = thread.stream(endless.items)
    assert next(numbers) == 1
    if leave == "close":
        numbers.close()
    else:
        del numbers
        gc.collect()
    assert endless.ended.is_set()


def test_a_callback_runs_in_the_callers_thread_and_may_call(thread: LoopThread) -> None:
    heard: list[tuple[int, str, int]] = []

    async def tell(on_change: Callable[[int], Any] | None) -> str:
        assert on_change is not None
        for number in range(3):
            await on_change(number)
        return "told"

    def hear(number: int) -> None:
        heard.append((number, threading.current_thread().name, thread.call(answer, number)))

    assert thread.call_back(hear, tell) == "told"
    here = threading.current_thread().name
    assert heard == [(number, here, number) for number in range(3)]


def test_work_waits_for_a_slow_callback(thread: LoopThread) -> None:
    told: list[int] = []
    ahead: list[int] = []

    async def tell(on_change: Callable[[int], Any] | None) -> None:
        assert on_change is not None
        for number in range(1_000):
            told.append(number)
            await on_change(number)

    def hear(number: int) -> None:
        for _ in range(20):
            thread.call(answer, number)  # Meanwhile the loop turns.
        ahead.append(len(told) - number)

    thread.call_back(hear, tell)
    assert len(ahead) == 1_000
    assert max(ahead) <= 2 * READ_AHEAD_COUNT + 2


def test_what_a_callback_raises_ends_the_work(thread: LoopThread) -> None:
    endless = Endless()

    async def tell(on_change: Callable[[int], Any] | None) -> None:
        assert on_change is not None
        await on_change(1)
        await endless()

    def refuse(_: int) -> None:
        raise KeyError("k")

    with pytest.raises(KeyError):
        thread.call_back(refuse, tell)
    assert endless.ended.is_set() or not endless.begun.is_set()


def test_one_that_nobody_closes_ends_when_it_is_collected(closed: Closed) -> None:
    thread = LoopThread("forgotten", last=closed)
    thread.call(answer, 1)
    del thread
    gc.collect()
    assert closed.count == 1
    assert "forgotten" not in names_of_threads()


def test_a_forked_child_is_told_to_make_its_own(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.call(answer, 1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="before a fork"):
            thread.call(answer, 1)
