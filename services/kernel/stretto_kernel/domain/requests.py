"""Which requests had their effect on a stream: how a repeated one is known. Pure.

Folded from the envelopes of the facts that requests caused; those older than 24 h are forgotten.
Instants are UTC nanoseconds, digests 32 bytes over the parsed request.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from stretto_core.clock import NS_PER_S
from stretto_core.errors import AlreadyExists, Exhausted
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import RequestId

REQUESTS_MAX = 100_000
REQUEST_KEPT_NS = 24 * 3600 * NS_PER_S


class RequestIdReused(AlreadyExists):
    """The request id was used by another request: mint a new one."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: RequestId) -> None:
        super().__init__(
            "this request id was used by another request: mint a new one", request_id=request_id
        )


class RequestIdLimit(Exhausted):
    """The stream remembers its most request ids: try again later."""

    reason = "REQUEST_ID_LIMIT"


class Requests(OrderedDict[RequestId, tuple[bytes, int, int]]):
    """Digest and time of each request, and the version of its first fact; oldest first."""

    def had_effect(self, request_id: RequestId, digest: bytes, *, now_ns: int) -> bool:
        """Whether the same request had its effect. Raises RequestIdReused, RequestIdLimit."""
        if entry := self.get(request_id):
            known, time_ns, _ = entry
            if now_ns - time_ns <= REQUEST_KEPT_NS:
                if known == digest:
                    return True
                raise RequestIdReused(request_id)
        if len(self) >= REQUESTS_MAX:
            _, oldest_ns, _ = next(iter(self.values()))
            if now_ns - oldest_ns <= REQUEST_KEPT_NS:
                raise RequestIdLimit(
                    f"the stream remembers {REQUESTS_MAX} requests of the last 24 h",
                    request_count_max=str(REQUESTS_MAX),
                )
        return False

    def version_of(self, request_id: RequestId) -> int:
        """Return the version of the first fact of a request that is remembered, 0 of another."""
        entry = self.get(request_id)
        return 0 if entry is None else entry[2]

    def remember(self, recorded: Recorded[Any]) -> None:
        """The request that caused a fact has had its effect; forget those of 24 h before."""
        self.setdefault(
            RequestId(recorded.request_id),
            (recorded.request_digest, recorded.time_ns, recorded.version),
        )
        while self:
            oldest = next(iter(self))
            if self[oldest][1] >= recorded.time_ns - REQUEST_KEPT_NS:
                break
            self.popitem(last=False)
