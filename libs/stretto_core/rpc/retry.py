"""Calls as a client makes them: refusals come back as our classes; some calls are sent again.

Only what the answer allows is retried: UNAVAILABLE, and RESOURCE_EXHAUSTED or ABORTED that carry
RetryInfo; nothing else. Every mutating request has a request_id, so sending it again is safe. This
is the one layer that retries, within one budget per call, with jitter, never past the deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import grpc

from stretto_core.errors import Conflict, Exhausted, Refusal, Unavailable
from stretto_core.rpc.channel import Metadata, credentials
from stretto_core.rpc.status import from_rpc_error
from stretto_core.telemetry.secret import Secret

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """budget_ms: for how long after its first attempt one call may be sent again (0: never)."""

    budget_ms: int = 60_000
    backoff_ms_min: int = 25
    backoff_ms_max: int = 1_000

    def delay_ms(self, refusal: Refusal, retries: int, jitter: float) -> float | None:
        """Return how long to wait before sending again, or None when it must not be sent again.

        retries: how often it was sent again before; jitter: 0 to 1. What the service asked for is
        the least; the back-off, spread over its whole range, comes on top. Callers that a limit
        refused together spread over as long again, or they would come back together.
        """
        told_ms = refusal.retry_delay_ms
        backoff_ms = min(self.backoff_ms_max, self.backoff_ms_min << min(retries, 16))
        match refusal:
            case Unavailable():
                least_ms = told_ms or 0
            case Exhausted() if told_ms is not None:
                least_ms = told_ms
                backoff_ms = max(backoff_ms, told_ms)
            case Conflict() if told_ms is not None:
                least_ms = told_ms
            case _:
                return None
        return least_ms + jitter * backoff_ms


class Caller:
    """Makes unary calls for one holder of a token.

    attempt_ms_max: how long one sending may go unanswered (None: as long as the connection lives);
    past it the call ends with DeadlineExceeded, and whether it took effect is unknown: the same
    request under the same id may be sent again.
    jitter, wait: replaced in tests and by the simulator, so that nothing waits or varies there.
    """

    def __init__(
        self,
        *,
        token: Secret | None = None,
        policy: RetryPolicy | None = None,
        attempt_ms_max: int | None = None,
        jitter: Callable[[], float] = random.random,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._metadata = credentials(token)
        self._policy = policy or RetryPolicy()
        self._attempt_s_max = None if attempt_ms_max is None else attempt_ms_max / 1_000
        self._jitter = jitter
        self._wait = wait

    @property
    def metadata(self) -> Metadata:
        """What to send with a stream's call, which a Caller does not make itself."""
        return self._metadata

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout_ms: int | None = None,
    ) -> ResponseT:
        """Return the answer; the same request is sent again while the policy allows.

        timeout_ms: over all attempts. Raises the last Refusal.
        """
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        deadline_s = None if timeout_ms is None else started_s + timeout_ms / 1_000
        give_up_s = started_s + self._policy.budget_ms / 1_000
        retries = 0
        while True:
            timeout_s = self._attempt_s_max
            if deadline_s is not None:
                left_s = max(0.0, deadline_s - loop.time())
                timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
            try:
                return await method(
                    request,
                    timeout=timeout_s,
                    metadata=self._metadata,
                    # Sent again, it goes out in the instant the connection is back.
                    wait_for_ready=True if retries and deadline_s is not None else None,
                )
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc_error(error)
            delay_ms = self._policy.delay_ms(refusal, retries, self._jitter())
            if delay_ms is None:
                raise refusal
            resume_s = loop.time() + delay_ms / 1_000
            if resume_s >= (give_up_s if deadline_s is None else min(give_up_s, deadline_s)):
                raise refusal
            await self._wait(delay_ms / 1_000)
            retries += 1


@contextmanager
def refusals() -> Iterator[None]:
    """Turn gRPC's errors into refusals, around a stream's reads and writes."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
