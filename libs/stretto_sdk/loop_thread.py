"""An event loop on a thread of its own, for those who have none: calls and streams that block.

Any thread may call, also one whose own loop runs; it blocks until the answer is there. The loop's
own thread may not: it would wait for itself, and is told so. Whatever ends a call early (Ctrl-C,
`close`, a stream dropped in the middle) cancels its work on the loop and waits for that end. A
thread does not outlive a fork: the child is told so and makes its own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")
Item = TypeVar("Item")
Last = Callable[[], Awaitable[None]]

READ_AHEAD_COUNT = 64
"""Items of a stream taken before they are asked for; then its source waits."""


@dataclass(frozen=True, slots=True)
class _End:
    """The last of a stream: how it ended."""

    error: BaseException | None


class _Work(Generic[Answer]):
    """A coroutine handed to a loop; `outcome` is set when it has ended in truth, not before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Answer]) -> None:
        self.outcome: Future[Answer] = Future()
        self._loop = loop
        self._work = work
        self._task: asyncio.Task[Answer] | None = None
        loop.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        """Ask it to end; thread-safe, and nothing once it has ended."""
        if not self.outcome.done():
            self._loop.call_soon_threadsafe(self._cancel)

    def cancel_and_wait(self) -> None:
        """Have it ended; how it ends does not matter."""
        self.cancel()
        self.outcome.exception()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._ended)

    def _cancel(self) -> None:
        assert self._task is not None, "begun by an earlier call of the same loop"
        self._task.cancel()

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        if task.cancelled():
            self.outcome.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


class LoopThread:
    """Starts its thread at the first call; ended by `close`, its collection or the process's end.

    last: awaited on the loop before the thread ends; it may not refer to this object.
    """

    def __init__(self, name: str, *, last: Last) -> None:
        self._name = name
        self._last = last
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] | None = None
        self._pid = os.getpid()
        self._closed = False

    def call(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Return what the coroutine returns, or raise what it raises.

        Raises RuntimeError when the thread is closed, is the caller's own, or was left by a fork.
        """
        working = self._submit(work)
        try:
            return working.outcome.result()
        except CancelledError:
            raise RuntimeError(f"{self._name} was closed during a call") from None
        finally:
            # After Ctrl-C nothing of the call goes on behind its caller's back.
            if not working.outcome.done():
                working.cancel_and_wait()

    def call_back(
        self,
        callback: Callable[[Item], object] | None,
        work: Callable[[Callable[[Item], object] | None], Coroutine[Any, Any, Answer]],
    ) -> Answer:
        """Return what `work(callback)` returns; the callback runs in the caller's thread.

        What the callback raises ends the work and is raised.
        """
        if callback is None:
            return self.call(work(None))
        answers: list[Answer] = []

        async def told() -> AsyncGenerator[Item, None]:
            heard: asyncio.Queue[Item | _End] = asyncio.Queue()
            working = asyncio.ensure_future(work(heard.put_nowait))
            working.add_done_callback(lambda _: heard.put_nowait(_End(None)))
            try:
                while not isinstance(item := await heard.get(), _End):
                    yield item
                answers.append(await working)
            finally:
                working.cancel()
                await asyncio.wait((working,))

        for item in self.stream(told()):
            callback(item)
        return answers[0]

    def stream(self, source: AsyncGenerator[Item, None]) -> Generator[Item, None, None]:
        """Yield what the source yields; closing the generator early closes the source.

        The source runs at most READ_AHEAD_COUNT items ahead.
        """
        items: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
        room = asyncio.Semaphore(READ_AHEAD_COUNT)
        pumping = self._submit(_pump(source, items, room))
        pumping.outcome.add_done_callback(lambda ended: items.put(_End(ended.exception())))
        taken_count = 0
        try:
            while not isinstance(item := items.get(), _End):
                yield item
                taken_count += 1
                # Room is given back in lots: one wake-up of the loop serves many items.
                if taken_count == READ_AHEAD_COUNT // 2 and not pumping.outcome.done():
                    self._post(_release, room, taken_count)
                    taken_count = 0
            if isinstance(item.error, CancelledError):
                raise RuntimeError(f"{self._name} was closed during a stream")
            if item.error is not None:
                raise item.error
        finally:
            # In a forked child there is no such thread; and a generator may be collected on the
            # loop's own, which cannot wait for itself.
            if not self._is_of_parent:
                pumping.cancel()
                if threading.current_thread() is not self._thread:
                    pumping.outcome.exception()

    def close(self) -> None:
        """Cancel what runs and end the thread; calls that wait raise RuntimeError. Repeatable."""
        if self._is_of_parent:
            return
        with self._lock:
            self._closed = True
            end = self._end
        if end is not None:
            end()

    @property
    def _is_of_parent(self) -> bool:
        """Whether this is a forked child, which has the object and not its thread."""
        return self._pid != os.getpid()

    def _submit(self, work: Coroutine[Any, Any, Answer]) -> _Work[Answer]:
        try:
            # Before the lock: another thread may have held it at the fork, for ever.
            if self._is_of_parent:
                raise RuntimeError(f"{self._name} was made before a fork: make one in the child")
            # Under the lock: what is submitted before a close is seen, and ended, by it.
            with self._lock:
                return _Work(self._running(), work)
        except BaseException:
            work.close()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{self._name} cannot be called from its own event loop")
        if self._closed:
            raise RuntimeError(f"{self._name} is closed")
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            # The thread knows its loop and not this object, which may be collected meanwhile.
            self._thread = threading.Thread(target=_run, args=(loop,), name=self._name, daemon=True)
            self._thread.start()
            self._end = weakref.finalize(self, _end, loop, self._thread, self._pid, self._last)
        return self._loop

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        with self._lock:
            if self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(call, *arguments)


async def _pump(
    source: AsyncGenerator[Item, None],
    items: queue.SimpleQueue[Item | _End],
    room: asyncio.Semaphore,
) -> None:
    try:
        async for item in source:
            items.put(item)
            await room.acquire()
    finally:
        # The source has ended before its reader hears of the end.
        await source.aclose()


def _release(room: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        room.release()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int, last: Last) -> None:
    # In a forked child there is no such thread to end.
    if pid != os.getpid():
        return
    loop.call_soon_threadsafe(lambda: loop.create_task(_wind_up(loop, last)))
    if threading.current_thread() is not thread:
        thread.join()


async def _wind_up(loop: asyncio.AbstractEventLoop, last: Last) -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    try:
        await asyncio.gather(*others, return_exceptions=True)
        await last()
        await loop.shutdown_asyncgens()
    finally:
        loop.stop()
