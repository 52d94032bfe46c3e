"""Streams that go on after a broken connection: called again, from where their reader is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import grpc
from stretto_core.errors import Refusal
from stretto_core.rpc.channel import Metadata
from stretto_core.rpc.retry import RetryPolicy, refusals

from stretto_sdk.breaks import Breaks

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def resumed(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Answer],
    request: Request,
    *,
    metadata: Metadata,
    policy: RetryPolicy,
    before: Callable[[], object] = bool,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> AsyncGenerator[Answer, None]:
    """Yield the answers; after a break the call is made again with `request` as it is then.

    The reader moves `request` on as it takes answers. before: called before each call; what it
    raises ends the stream. around: entered for each call. Raises the refusal that ended it.
    """
    breaks = Breaks(policy)
    while True:
        before()
        call = method(request, metadata=metadata)
        try:
            with refusals(), around():
                async for answer in call:
                    breaks.are_over()
                    yield answer
            return
        except Refusal as refused:
            broke = refused
        finally:
            call.cancel()
        await breaks.wait(broke)
