"""Parses the unary requests of WorkService: every field, every limit, all violations at once."""

from __future__ import annotations

from collections.abc import Sized
from typing import Final

from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as pb
from stretto_core.clock import NS_PER_MS, NS_PER_S
from stretto_core.errors import InvalidArgument
from stretto_core.ids import RequestId, SessionId, uuid7_unix_ms

from stretto_kernel.dispatch.hello import parse_hello
from stretto_kernel.dispatch.poll import LeaseCall
from stretto_kernel.servicers.fields import Fields

ITEMS_MAX: Final = 1_000
COUNT_MAX: Final = 1_000
WAIT_NS_MAX: Final = 60 * NS_PER_S
WAIT_S_REFUSED: Final = 24 * 3600
DEADLINE_MARGIN_NS: Final = 100 * NS_PER_MS
"""An empty answer leaves so long before the caller stops waiting."""
REASON_CHARACTERS_MAX: Final = 1_000


def parse_lease_work(request: pb.LeaseWorkRequest, time_left_s: float | None) -> LeaseCall:
    """Return the call if all of it is right. Raises InvalidArgument with every violation.

    time_left_s: until the caller's deadline; None = it has none.
    """
    fields = Fields()
    request_id = fields.request_id(request.request_id)
    count_max = fields.count("count_max", request.count_max)
    wait_ns = fields.span("wait_timeout", request.wait_timeout, most_s=WAIT_S_REFUSED)
    if request.worker.held:
        fields.wrong("worker.held", "must be empty: RenewLeases speaks for leases")
    try:
        hello = parse_hello(request.worker)
    except InvalidArgument as wrong:
        for violation in wrong.violations:
            fields.wrong(violation.field.replace("hello.", "worker.", 1), violation.description)
    fields.refuse("the request")
    if time_left_s is not None:
        wait_ns = min(wait_ns, int(time_left_s * NS_PER_S) - DEADLINE_MARGIN_NS)
    return LeaseCall(
        hello=hello,
        request_id=request_id,
        count_max=min(count_max or 1, COUNT_MAX),
        wait_ns=min(max(wait_ns, 0), WAIT_NS_MAX),
    )


def check_items(*parts: Sized) -> None:
    """Refuse a call with too many items. Raises InvalidArgument."""
    if sum(map(len, parts)) > ITEMS_MAX:
        raise InvalidArgument("a call holds too many items", items_max=str(ITEMS_MAX))


def parse_release_work(
    request: pb.ReleaseWorkRequest,
) -> tuple[list[work_pb2.Outcome], list[tuple[SessionId, RequestId]]]:
    """Return the releases and the calls given up. Raises InvalidArgument."""
    check_items(request.tokens, request.lease_request_ids)
    fields = Fields()
    fields.text("reason", request.reason, characters_max=REASON_CHARACTERS_MAX)
    if request.lease_request_ids and uuid7_unix_ms(request.session_id) is None:
        fields.wrong("session_id", "must be the UUIDv7 of the process that made the calls")
    fields.refuse("the request")
    released = work_pb2.OutcomeReleased(reason=request.reason)
    session_id = SessionId(request.session_id.lower())
    return (
        [work_pb2.Outcome(token=token, released=released) for token in request.tokens],
        [(session_id, RequestId(text)) for text in request.lease_request_ids],
    )
