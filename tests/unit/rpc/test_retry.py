"""What is sent again, when, and when no more."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from stretto_core.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Refusal,
    Unavailable,
)
from stretto_core.rpc.retry import Caller, RetryPolicy
from stretto_core.rpc.status import trailing
from stretto_core.testing.virtual_loop import VirtualLoop


class RevisionMismatch(Conflict):
    """A compare-and-set that lost: sending it again cannot help."""

    default_retry_delay_ms = None


def rpc_error(refusal: Refusal) -> grpc.aio.AioRpcError:
    code, message, metadata = trailing(refusal)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), message)


class Server:
    """Answers each call with the next refusal, then with "done"; remembers how it was called."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = list(refusals)
        self.calls: list[dict[str, Any]] = []

    async def __call__(self, request: str, **options: Any) -> str:
        self.calls.append(options)
        if self.refusals:
            raise rpc_error(self.refusals.pop(0))
        return f"{request} done"


async def called(server: Server, timeout_ms: int | None = None, **policy: int) -> list[float]:
    """Make one call; return the waits in between, none of which really passes."""
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    caller = Caller(policy=RetryPolicy(**policy), jitter=lambda: 1.0, wait=wait)
    method: Any = server
    assert await caller.call(method, "x", timeout_ms=timeout_ms) == "x done"
    return waits


@pytest.mark.parametrize(
    "refusal",
    [Unavailable("x"), Exhausted("x", retry_delay_ms=9), Conflict("x"), Unavailable("cut")],
)
async def test_what_may_pass_is_sent_again(refusal: Refusal) -> None:
    server = Server([refusal, refusal])
    await called(server)
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidArgument("x"),
        FailedPrecondition("x"),
        AlreadyExists("x"),
        Internal("x"),
        DeadlineExceeded("x"),
        RevisionMismatch("x"),
    ],
)
async def test_nothing_else_is(refusal: Refusal) -> None:
    server = Server([refusal])
    with pytest.raises(Refusal) as caught:
        await called(server)
    assert caught.value.message == "x"
    assert len(server.calls) == 1


async def test_the_wait_is_what_was_told_and_a_growing_back_off() -> None:
    refusal = Unavailable("x", retry_delay_ms=100)
    waits = await called(Server([refusal] * 4), backoff_ms_min=10, backoff_ms_max=30)
    assert waits == pytest.approx([0.110, 0.120, 0.130, 0.130])


async def test_those_a_limit_refused_together_do_not_come_back_together() -> None:
    refusal = Exhausted("x", retry_delay_ms=100)
    waits = await called(Server([refusal] * 2), backoff_ms_min=10, backoff_ms_max=30)
    assert waits == pytest.approx([0.200, 0.200])


async def test_a_wait_past_the_deadline_is_not_begun() -> None:
    server = Server([Unavailable("x", retry_delay_ms=60_000)])
    with pytest.raises(Unavailable):
        await called(server, timeout_ms=50_000, budget_ms=90_000)
    assert len(server.calls) == 1


async def test_a_budget_of_nothing_never_sends_again() -> None:
    server = Server([Unavailable("x")])
    with pytest.raises(Unavailable):
        await called(server, budget_ms=0)


def test_the_budget_ends_it_on_the_loops_clock() -> None:
    server = Server([Unavailable("x", retry_delay_ms=400)] * 10)
    caller = Caller(policy=RetryPolicy(budget_ms=1_000), jitter=lambda: 0.0)
    method: Any = server
    with pytest.raises(Unavailable):
        VirtualLoop(random.Random(1)).run_until_complete(caller.call(method, "x"))
    assert len(server.calls) == 3


async def test_attempts_share_the_deadline() -> None:
    server = Server([Unavailable("x")])
    await called(server, timeout_ms=10_000)
    first, second = (call["timeout"] for call in server.calls)
    assert second <= first <= 10.0
