"""Where python bodies run: an event loop on a thread of its own.

The protocol's loop and the bodies' loop are two, so that a body that blocks its loop (a long
computation, a synchronous call) delays other bodies but no renewal, no acknowledgement and no
control answer. The thread is a daemon: a body that never returns cannot keep the process alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

JOIN_S_MAX = 2.0
Call = Callable[[], None]


class BodyLoop(Protocol):
    """A place for bodies: takes calls from the protocol's loop and runs them in order."""

    def post(self, call: Call) -> None:
        """Run `call` soon on the bodies' loop."""
        ...

    async def close(self) -> None:
        """Cancel what still runs there, wait for it a little, and stop."""
        ...


class Mailbox:
    """Calls from one loop or thread to another: one wake-up takes all that wait. Thread-safe.

    post: makes the other loop run a call soon.
    """

    def __init__(self, post: Callable[[Call], None]) -> None:
        self._post = post
        self._calls: deque[Call] = deque()
        self._posted = False

    def put(self, call: Call) -> None:
        """Have the other side make `call`, after those put before."""
        self._calls.append(call)
        if not self._posted:
            self._posted = True
            self._post(self._take)

    def _take(self) -> None:
        # Cleared before the deque is read: a call put from here on posts again or is seen below.
        self._posted = False
        while self._calls:
            self._calls.popleft()()


class BodyThread:
    """The bodies' own thread and loop; started by the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def post(self, call: Call) -> None:
        """Run `call` soon on the bodies' loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._run, args=(self._loop,), name="stretto-bodies", daemon=True
            )
            self._thread.start()
        self._loop.call_soon_threadsafe(call)

    async def close(self) -> None:
        """Cancel every body; give up on one that blocks or refuses to end after JOIN_S_MAX."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        ended = asyncio.run_coroutine_threadsafe(_cancel_all(), loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(ended), JOIN_S_MAX)
        except TimeoutError:
            return  # A body blocks the thread; it ends with the process.
        loop.call_soon_threadsafe(loop.stop)
        # The loop only has to leave `run_forever`: everything on it has ended.
        thread.join(JOIN_S_MAX)
        self._loop = self._thread = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue  # Of a task that a body made: asyncio hands these to the loop as well.
            break
        loop.close()


class SameLoop:
    """Bodies on the protocol's own loop: for the simulator, which has only one."""

    def post(self, call: Call) -> None:
        """Run `call` soon on the running loop."""
        asyncio.get_running_loop().call_soon(call)

    async def close(self) -> None:
        """Nothing: whoever runs the loop ends what is on it."""


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=JOIN_S_MAX / 2)
