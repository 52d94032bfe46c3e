"""Calls and streams on the bodies' loop, for the thread of a blocking body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from stretto_sdk.loop_thread import Answer, Item, Parameters


@dataclass(frozen=True, slots=True)
class _Nothing:
    """Stands for an item that will not come."""


class BodyCalls:
    """Implements BlockingLoop for one body.

    stopped: set on the loop once the body is asked to stop; a stream that waits ends then with what
    `told_to_stop` returns.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stopped: asyncio.Event,
        told_to_stop: Callable[[], BaseException],
    ) -> None:
        self._loop = loop
        self._stopped = stopped
        self._told_to_stop = told_to_stop

    def call(
        self,
        function: Callable[Parameters, Coroutine[Any, Any, Answer]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Answer:
        """See `BlockingLoop`."""
        return self._run(function(*arguments, **named))

    def stream(
        self,
        function: Callable[Parameters, AsyncGenerator[Item, None]],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Generator[Item, None, None]:
        """See `BlockingLoop`."""
        source = function(*arguments, **named)
        try:
            while not isinstance(item := self._run(self._next(source)), _Nothing):
                yield item
        finally:
            self._run(source.aclose())
        if self._stopped.is_set():
            raise self._told_to_stop()

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _next(self, source: AsyncGenerator[Item, None]) -> Item | _Nothing:
        getting = asyncio.ensure_future(_item(source))
        stopping = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((getting, stopping), return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else _Nothing()
        finally:
            stopping.cancel()
            if not getting.done():
                getting.cancel()
                await asyncio.wait((getting,))


async def _item(source: AsyncGenerator[Item, None]) -> Item | _Nothing:
    return await anext(source, _Nothing())
