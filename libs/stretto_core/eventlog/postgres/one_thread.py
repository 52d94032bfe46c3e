"""One thread for blocking calls, which run in the order they came.

An executor's queue, futures and callbacks cost as much of the processor's time as the call itself
when the call is short and everybody waits for it, as for an append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


class OneThread:
    """Runs calls for the loop it is made on; started by the making, ended by `close`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]
        self._calls = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def run(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """Return what becomes of `call`; cancelling that does not end the call."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((call, future))
        return future

    def close(self) -> None:
        """End the thread after the calls that wait; take none any more."""
        self._calls.put(None)

    def _run(self) -> None:
        while (waiting := self._calls.get()) is not None:
            call, future = waiting
            result, error = None, None
            try:
                result = call()
            except BaseException as raised:
                error = raised
            # The loop may be gone: then nobody is left to tell.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            del waiting, call, future, result, error  # Nothing lives on while the next is awaited.


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
