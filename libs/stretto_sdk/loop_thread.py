"""An event loop on a thread of its own, for those who have none: calls and streams that block.

Any thread may call, also one whose own loop runs; it blocks until the answer is there. The loop's
own thread may not: it would wait for itself, and is told so. Whatever ends a call early (Ctrl-C at
any instant, `close`, a stream dropped in the middle) cancels its work on the loop and waits some
seconds for that end. A thread does not outlive a fork: the child is told so and makes its own.
"""

from __future__ import annotations

import asyncio
import queue
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from stretto_sdk.loop_runner import LOOK_S, Last, LoopRunner, Work

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Item = TypeVar("Item")

READ_AHEAD_COUNT = 64
"""Items of a stream taken before they are asked for; then its source waits."""


@dataclass(frozen=True, slots=True)
class _End:
    """The last of a stream: it gives no more, however it ended."""


class _Pump(Generic[Item]):
    """Carries a stream's items from the loop to a thread, a little ahead of its reader."""

    def __init__(self, source: Callable[[], AsyncGenerator[Item, None]]) -> None:
        self._source = source
        self._items: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(READ_AHEAD_COUNT)

    async def run(self) -> None:
        """Give all items; the source has ended before its reader hears of the end."""
        try:
            async with aclosing(self._source()) as source:
                async for item in source:
                    self._items.put(item)
                    await self._room.acquire()
        finally:
            self._items.put(_End())

    def next(self, work: Work[None]) -> Item | _End:
        """Wait for the next one; in the reader's thread."""
        while True:
            try:
                return self._items.get(timeout=LOOK_S)
            except queue.Empty:
                if work.ended.has_rung and self._items.empty():
                    return _End()  # It was ended before it began.

    def give_room(self, count: int) -> None:
        """So many items were taken; on the loop."""
        for _ in range(count):
            self._room.release()


class LoopThread:
    """Starts its thread at the first call; ended by `close`, its collection or the process's end.

    last: awaited on the loop before the thread ends; it may not refer to this object.
    """

    def __init__(self, name: str, *, last: Last) -> None:
        self._name = name
        # The thread knows the runner and not this object, which may be collected meanwhile.
        self._runner = LoopRunner(name, last)
        weakref.finalize(self, self._runner.close)

    def call(
        self,
        function: Callable[Parameters, Coroutine[Any, Any, Answer]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Answer:
        """Return what the coroutine that `function` makes returns, or raise what it raises.

        Raises RuntimeError when the thread is closed, is the caller's own, or was left by a fork.
        """
        work = Work(partial(function, *arguments, **named))
        try:
            self._runner.begin(work)
            work.ended.wait()
        except BaseException:
            # After Ctrl-C nothing of the call goes on behind its caller's back.
            self._runner.end(work)
            raise
        return work.answer(f"{self._name} was closed during a call")

    def call_back(
        self,
        callback: Callable[[Item], object] | None,
        function: Callable[[Callable[[Item], object] | None], Coroutine[Any, Any, Answer]],
    ) -> Answer:
        """Return what `function(callback)` returns; the callback runs in the caller's thread.

        The one that `function` gets returns an awaitable: work that is so far ahead of the caller's
        waits there. What the callback raises ends the work and is raised.
        """
        if callback is None:
            return self.call(function, None)
        answers: list[Answer] = []

        async def told() -> AsyncGenerator[Item, None]:
            heard: asyncio.Queue[Item | _End] = asyncio.Queue()
            room = asyncio.Semaphore(READ_AHEAD_COUNT)

            async def hear(item: Item) -> None:
                heard.put_nowait(item)
                await room.acquire()

            working = asyncio.ensure_future(function(hear))
            working.add_done_callback(lambda _: heard.put_nowait(_End()))
            try:
                while not isinstance(item := await heard.get(), _End):
                    yield item
                    room.release()
                answers.append(await working)
            finally:
                working.cancel()
                await asyncio.wait((working,))

        for item in self.stream(told):
            callback(item)
        return answers[0]

    def stream(
        self,
        function: Callable[Parameters, AsyncGenerator[Item, None]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Generator[Item, None, None]:
        """Yield what the generator that `function` makes yields; leaving early closes that.

        It runs at most READ_AHEAD_COUNT items ahead.
        """
        pump = _Pump(partial(function, *arguments, **named))
        work = Work(pump.run)
        taken_count = 0
        try:
            try:
                self._runner.begin(work)
                while not isinstance(item := pump.next(work), _End):
                    yield item
                    taken_count += 1
                    # Room is given back in lots: one wake-up of the loop serves many items.
                    if taken_count == READ_AHEAD_COUNT // 2:
                        self._runner.post(partial(pump.give_room, taken_count))
                        taken_count = 0
                work.ended.wait()
            finally:
                self._runner.cancel(work)
        finally:
            # Tells it again, since Ctrl-C may have struck while a stream was being left.
            self._runner.end(work)
        work.answer(f"{self._name} was closed during a stream")

    def close(self) -> None:
        """Cancel what runs and end the thread; calls that wait raise RuntimeError. Repeatable."""
        self._runner.close()
