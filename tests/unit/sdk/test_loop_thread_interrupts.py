"""Ctrl-C at every line that the calling thread runs: nothing is left behind, and calls go on.

KeyboardInterrupt is raised by a trace function, once at each line of the loop's thread and of what
it calls in asyncio, which is where a signal's handler may run and where no signal can be aimed at.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any

import pytest
from stretto_sdk import loop_runner, loop_thread
from stretto_sdk.loop_thread import LoopThread

TRACED = (loop_runner.__file__, loop_thread.__file__, "asyncio/base_events.py", "asyncio/events.py")
NAME = "interrupted"


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line traced in this thread."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.struck_at = ""

    def __enter__(self) -> Interrupt:
        # What an object's collection raises goes nowhere, and loops of before would be collected
        # here, too.
        gc.disable()
        self._before = sys.gettrace()
        sys.settrace(self._entered)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        gc.enable()

    def _entered(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.endswith(TRACED) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.struck_at = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self._line


class Works:
    """What began on the loop, and what ended."""

    def __init__(self) -> None:
        self.begun_count = self.ended_count = self.closed_count = 0

    async def last(self) -> None:
        self.closed_count += 1

    async def short(self) -> int:
        with self._one():
            await asyncio.sleep(0)
            return 7

    async def told(self, tell: Callable[[int], Any] | None) -> int:
        with self._one():
            for number in range(2):
                await asyncio.sleep(0)
                if tell is not None:
                    await tell(number)
            return 7

    async def endless(self) -> None:
        with self._one():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)  # Cleaning up takes a turn of the loop.

    async def numbers(self, to: int) -> AsyncGenerator[int, None]:
        with self._one():
            for number in range(to):
                await asyncio.sleep(0)
                yield number

    def _one(self) -> _Noted:
        return _Noted(self)


class _Noted:
    def __init__(self, works: Works) -> None:
        self._works = works

    def __enter__(self) -> None:
        self._works.begun_count += 1

    def __exit__(self, *_: object) -> None:
        self._works.ended_count += 1


def call(thread: LoopThread, works: Works) -> None:
    assert thread.call(works.short) == 7


def call_without_end(thread: LoopThread, works: Works) -> None:
    thread.call(works.endless)


def call_with_a_callback(thread: LoopThread, works: Works) -> None:
    heard: list[int] = []
    assert thread.call_back(heard.append, works.told) == 7
    assert heard == [0, 1]


def read_a_stream(thread: LoopThread, works: Works) -> None:
    assert sum(1 for _ in thread.stream(works.numbers, 40)) == 40


def leave_a_stream(thread: LoopThread, works: Works) -> None:
    numbers = thread.stream(works.numbers, 1_000)
    assert (next(numbers), next(numbers)) == (0, 1)
    numbers.close()


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A thread that waits passes a line often, so that an interrupt can strike there."""
    monkeypatch.setattr(loop_runner, "LOOK_S", 0.002)
    yield


@pytest.mark.parametrize(
    "use", [call, call_without_end, call_with_a_callback, read_a_stream, leave_a_stream]
)
@pytest.mark.parametrize("begun", [False, True], ids=["first-call", "later-call"])
def test_an_interrupt_at_any_line_leaves_nothing_behind(
    use: Callable[[LoopThread, Works], None], begun: bool
) -> None:
    struck: set[str] = set()
    for number in count(1):
        works = Works()
        thread = LoopThread(NAME, last=works.last)
        if begun:
            assert thread.call(works.short) == 7
        with Interrupt(number) as interrupt:
            try:
                use(thread, works)
            except KeyboardInterrupt:
                assert interrupt.struck_at
        assert thread.call(works.short) == 7, interrupt.struck_at
        assert works.begun_count == works.ended_count, interrupt.struck_at
        thread.close()
        assert works.closed_count == 1, interrupt.struck_at
        assert NAME not in {each.name for each in threading.enumerate()}, interrupt.struck_at
        # Work without an end passes the lines of its wait again and again.
        if not interrupt.struck_at or (use is call_without_end and interrupt.struck_at in struck):
            break
        struck.add(interrupt.struck_at)
    assert len(struck) > 20
