"""Where blocking bodies run: threads, at most as many as the worker has slots.

A thread is made when none is free and kept for the next body. They are daemons: nothing can end a
thread from outside, so a body that never returns must not keep its process alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Call = Callable[[], None]


class BodyThreads:
    """Runs calls, each on a thread of its own while it lasts; a call may not raise."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._count = 0
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._free = threading.Semaphore(0)

    def start(self, call: Call) -> None:
        """Run `call` now, or when a thread comes free if all are taken. One caller at a time."""
        self._calls.put(call)
        if self._free.acquire(blocking=False) or self._count == self._count_max:
            return
        self._count += 1
        name = f"stretto-body-{self._count}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def close(self) -> None:
        """End every thread as soon as its body returns; wait for none."""
        for _ in range(self._count):
            self._calls.put(None)
        self._count = self._count_max

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._free.release()
