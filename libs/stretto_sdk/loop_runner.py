"""The thread behind `loop_thread`: an event loop, the work it carries out, and its end.

Ctrl-C may strike the main thread between any two steps, in the standard library's locks too. So a
caller begins nothing that it would have to finish: it puts a wish into an inbox (one step of C),
wakes the loop and waits at a bell. All else, from the start of the thread and the first line of the
work to their ends, happens on threads that no signal interrupts.
"""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing, suppress
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")
Last = Callable[[], Awaitable[None]]
Make = Callable[[], Coroutine[Any, Any, Answer]]

LOOK_S = 0.2
"""So often a waiting thread looks up: a signal that comes just before a lock sleeps is not noticed
by the sleeper, and Ctrl-C would wait for the answer."""
CANCEL_S = 5.0
"""So long is waited for work that was told to end; then its caller goes on without it."""


class Bell:
    """Rings once and for ever; whoever waits goes on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.has_rung = False

    def ring(self) -> None:
        """Let everybody go on; nothing when it has rung."""
        if not self.has_rung:
            self.has_rung = True
            self._lock.release()

    def wait(self, looks_max: int | None = None) -> None:
        """Return when it has rung, or after that many looks."""
        looks = 0
        while not self.has_rung and looks != looks_max:
            looks += 1
            if self._lock.acquire(timeout=LOOK_S):
                self._lock.release()


class Work(Generic[Answer]):
    """A coroutine to be made and run on the loop; `ended` rings when it has ended in truth."""

    def __init__(self, make: Make[Answer]) -> None:
        self.ended = Bell()
        self._make = make
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[Answer] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it came to run; then it ends, however that may be."""
        return self._task is not None

    def answer(self, closed: str) -> Answer:
        """Return or raise what it came to, once it has ended; RuntimeError if it was cancelled."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise RuntimeError(closed)
        return self._task.result()

    def begin(self) -> asyncio.Task[Answer]:
        """Run it; on the loop."""
        self._task = asyncio.create_task(self._run(), context=self._context)
        self._task.add_done_callback(self._done)
        return self._task

    def cancel(self) -> None:
        """Ask it to end; on the loop, and harmless at any time."""
        if self._task is None:
            self.ended.ring()  # It never came to a beginning, and will not any more.
        else:
            self._task.cancel()

    async def _run(self) -> Answer:
        return await self._make()

    def _done(self, task: asyncio.Task[Answer]) -> None:
        if not task.cancelled():
            task.exception()  # Its caller may have gone; that is no error of the loop's.
        self.ended.ring()


class LoopRunner:
    """One loop and its thread, which is started by the first wish and ended by `close`.

    last: awaited on the loop before the thread ends.
    """

    def __init__(self, name: str, last: Last) -> None:
        self._name = name
        self._last = last
        self._pid = os.getpid()
        self._inbox: deque[Callable[[], object]] = deque()
        self._claim = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._works: set[Work[Any]] = set()
        self._winding_up: asyncio.Task[None] | None = None
        self._is_closed = False
        self._over = Bell()

    @property
    def is_of_parent(self) -> bool:
        """Whether this is a forked child, which has the object and not its thread."""
        return self._pid != os.getpid()

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller runs on the loop, and may not wait for it."""
        return threading.current_thread() is self._thread

    def begin(self, work: Work[Any]) -> None:
        """Have it run.

        Raises RuntimeError when the thread is closed, is the caller's own, or was left by a fork.
        """
        if self.is_of_parent:
            raise RuntimeError(f"{self._name} was made before a fork: make one in the child")
        if self.is_own_thread:
            raise RuntimeError(f"{self._name} cannot be called from its own event loop")
        self.post(lambda: self._begin(work))
        # Work that has begun hears of the end by itself; what has not may never be looked at.
        if self._is_closed and not work.has_begun:
            raise RuntimeError(f"{self._name} is closed")

    def cancel(self, work: Work[Any]) -> None:
        """Have it told to end, unless it has ended."""
        if not (work.ended.has_rung or self.is_of_parent):
            self.post(work.cancel)

    def end(self, work: Work[Any]) -> None:
        """Have it ended, and wait for that; how it ends does not matter."""
        self.cancel(work)
        # A generator may be collected on the loop's own thread, which cannot wait for itself; in a
        # forked child nobody ends it, and after `close` that does.
        if not (self.is_own_thread or self._is_closed or self.is_of_parent):
            work.ended.wait(int(CANCEL_S / LOOK_S))

    def post(self, wish: Callable[[], object]) -> None:
        """Have it called on the loop, after what was posted before."""
        self._inbox.append(wish)
        if self._loop is None:
            if not self._is_closed:
                # Several may be started; the first to claim it runs the loop.
                _thread.start_new_thread(self._start, ())
            return
        # A loop that has ended meanwhile refuses; its thread looks into the inbox once more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take)

    def close(self) -> None:
        """Cancel what runs, end the thread and wait for that. Repeatable."""
        if self.is_of_parent:
            return
        self._is_closed = True
        if self._loop is None:
            return  # One that starts right now finds itself closed.
        self.post(self._wind_up_once)
        if not self.is_own_thread:
            self._over.wait()
            assert self._thread is not None, "it runs the loop"
            self._thread.join()

    def _start(self) -> None:
        """Start the thread from one that no signal interrupts."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        except BaseException:
            self._finish()  # No more threads: nobody may wait for this one.
            raise

    def _run(self) -> None:
        try:
            with closing(asyncio.new_event_loop()) as loop:
                asyncio.set_event_loop(loop)
                # From here on whoever posts wakes the loop; what came before is taken now.
                self._loop = loop
                loop.call_soon(self._take)
                if self._is_closed:
                    loop.call_soon(self._wind_up_once)
                loop.run_forever()
        finally:
            self._finish()

    def _finish(self) -> None:
        """Let everybody go on; what is wished from now on is refused."""
        self._is_closed = True
        self._take()
        for work in self._works:
            work.ended.ring()  # Told to end, it did not.
        self._over.ring()

    def _take(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _begin(self, work: Work[Any]) -> None:
        if self._is_closed:
            work.ended.ring()
            return
        self._works.add(work)
        work.begin().add_done_callback(lambda _: self._works.discard(work))

    def _wind_up_once(self) -> None:
        if self._winding_up is None and self._loop is not None:
            self._winding_up = self._loop.create_task(self._wind_up())

    async def _wind_up(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            if others := asyncio.all_tasks() - {self._winding_up}:
                for task in others:
                    task.cancel()
                await asyncio.wait(others, timeout=CANCEL_S)
            await self._last()
            await loop.shutdown_asyncgens()
        finally:
            loop.stop()
