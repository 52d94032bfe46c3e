"""Streams that go on after a broken connection: called again, from where their reader is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import grpc
from stretto_core.errors import Refusal
from stretto_core.rpc.channel import Metadata
from stretto_core.rpc.retry import RetryPolicy, refusals

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

    The reader moves `request` on as it takes answers. The budget of a break starts with it: how
    long the stream was silent before does not count. before: called before each call; what it
    raises ends the stream. around: entered for each call. Raises the refusal that ended it.
    """
    loop = asyncio.get_running_loop()
    retries = 0
    give_up_s: float | None = None
    while True:
        before()
        call = method(request, metadata=metadata)
        try:
            with refusals(), around():
                async for answer in call:
                    retries, give_up_s = 0, None
                    yield answer
            return
        except Refusal as refused:
            delay_ms = policy.delay_ms(refused, retries, random.random())
            if give_up_s is None:
                give_up_s = loop.time() + policy.budget_ms / 1_000
            if delay_ms is None or loop.time() + delay_ms / 1_000 >= give_up_s:
                raise
        finally:
            call.cancel()
        retries += 1
        await asyncio.sleep(delay_ms / 1_000)
