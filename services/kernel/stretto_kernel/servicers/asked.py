"""Who asks, and when: what a servicer knows besides the request."""

from __future__ import annotations

from typing import NamedTuple

from stretto.common.v1.principal_pb2 import Principal
from stretto_core.clock import Clock
from stretto_core.rpc.call import current_call

from stretto_kernel.app.run_calls import Caller


class Asked(NamedTuple):
    """Who asks, from the call itself."""

    principal: Principal
    traceparent: str
    now_ns: int

    def caller(self, request_id: str = "", digest: bytes = b"") -> Caller:
        """The caller under an idempotency key."""
        return Caller(
            principal=self.principal,
            request_id=request_id,
            request_digest=digest,
            traceparent=self.traceparent,
        )


def asked_now(clock: Clock) -> Asked:
    """Return who makes the call being served."""
    call = current_call()
    return Asked(call.principal, call.traceparent, clock.now_ns())
