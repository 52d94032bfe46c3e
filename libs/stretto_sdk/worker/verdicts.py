"""What the kernel's receipts mean for a worker, and how a body's ending becomes an outcome.

Pure translation between endings, outcomes and google.rpc.Status; the session machine acts on it.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from google.rpc import code_pb2, error_details_pb2, status_pb2
from stretto.common.v1 import failure_pb2, lease_pb2
from stretto.work.v1 import work_pb2

from stretto_sdk.worker.effects import Ending, Failed, Released, StopKind, Stopped, Succeeded

MESSAGE_CHARACTERS_MAX = 4_000
REASON_CHARACTERS_MAX = 64
AGAIN_DELAY_NS_MIN = 100_000_000
AGAIN_DELAY_NS_MAX = 2_000_000_000

_SIGNALS = {
    work_pb2.SIGNAL_KIND_INTERRUPT: StopKind.INTERRUPT,
    work_pb2.SIGNAL_KIND_CANCEL: StopKind.CANCEL,
    work_pb2.SIGNAL_KIND_REVOKE: StopKind.REVOKE,
}
_LOST = frozenset({"LEASE_LOST", "RESULT_CONFLICT", "WRONG_SECRET", "RUN_CLOSED", "NOT_LEASABLE"})
_LOST_CODES = frozenset({code_pb2.NOT_FOUND, code_pb2.PERMISSION_DENIED})

_Detail = TypeVar("_Detail", error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)


class Verdict(Enum):
    """What a receipt's status asks of the worker."""

    DONE = "committed"
    AGAIN = "send it again"
    LOST = "the lease or the right to write is gone: stop and drop"
    WRONG = "refused for what it says: nothing was stored"


def judge(status: status_pb2.Status) -> Verdict:
    """Return what to do about a receipt."""
    if status.code == code_pb2.OK:
        return Verdict.DONE
    if status.code in _LOST_CODES or reason_of(status) in _LOST:
        return Verdict.LOST
    retryable = status.code in (code_pb2.UNAVAILABLE, code_pb2.DEADLINE_EXCEEDED)
    if retryable or _detail(status, error_details_pb2.RetryInfo()) is not None:
        return Verdict.AGAIN
    return Verdict.WRONG


def reason_of(status: status_pb2.Status) -> str:
    """Return the stable reason word of a refusal; empty for OK."""
    if status.code == code_pb2.OK:
        return ""
    details = error_details_pb2.ErrorInfo()
    if _detail(status, details) is not None and details.reason:
        return str(details.reason)
    return code_pb2.Code.Name(status.code) if status.code in code_pb2.Code.values() else "UNKNOWN"


def delay_ns(status: status_pb2.Status, refused_count: int) -> int:
    """Return how long to wait before sending again: doubling, at least what the kernel asks."""
    doubled = AGAIN_DELAY_NS_MIN << min(max(refused_count - 1, 0), 10)
    delay = min(doubled, AGAIN_DELAY_NS_MAX)
    retry = error_details_pb2.RetryInfo()
    if _detail(status, retry) is not None:
        delay = max(delay, retry.retry_delay.ToNanoseconds())
    return delay


def stop_kind(kind: int) -> StopKind | None:
    """Return how a signal asks a body to stop; None for a kind this version does not know."""
    return _SIGNALS.get(kind)  # type: ignore[call-overload, no-any-return]


def outcome_of(
    token: lease_pb2.LeaseToken, ending: Ending, stop: StopKind | None
) -> work_pb2.Outcome:
    """Return the outcome to report for a body that was asked to `stop` (or not) and ended so."""
    outcome = work_pb2.Outcome(token=token)
    match ending:
        case Succeeded(result=result, spawned=spawned, artifacts=artifacts):
            outcome.succeeded.SetInParent()
            if result is not None:
                outcome.succeeded.result.CopyFrom(result)
            outcome.succeeded.spawned.extend(spawned)
            outcome.succeeded.artifacts.extend(artifacts)
        case Failed(failure=failure):
            outcome.failed.CopyFrom(failure)
            outcome.failed.reason = failure.reason[:REASON_CHARACTERS_MAX] or "FAILED"
            outcome.failed.message = failure.message[:MESSAGE_CHARACTERS_MAX]
        case Released(reason=reason):
            outcome.released.reason = reason
        case Stopped() if stop is StopKind.CANCEL:
            outcome.cancelled.SetInParent()
        case Stopped() if stop is StopKind.INTERRUPT:
            outcome.released.reason = "interrupted"
        case Stopped():
            outcome.failed.reason = "STOPPED"
            outcome.failed.message = "The body stopped without being asked to."
            outcome.failed.retryable = True
    return outcome


def refused(token: lease_pb2.LeaseToken, status: status_pb2.Status) -> work_pb2.Outcome:
    """Return the failure to report instead of an outcome refused for its content."""
    failure = failure_pb2.Failure(
        reason=reason_of(status)[:REASON_CHARACTERS_MAX],
        message=f"The kernel refused the result: {status.message}"[:MESSAGE_CHARACTERS_MAX],
        retryable=False,
    )
    return work_pb2.Outcome(token=token, failed=failure)


def too_large(token: lease_pb2.LeaseToken, size_bytes: int, bytes_max: int) -> work_pb2.Outcome:
    """Return the failure to report instead of an outcome that no frame can carry."""
    failure = failure_pb2.Failure(
        reason="RESULT_TOO_LARGE",
        message=f"The result and its tasks have {size_bytes} bytes; the limit is {bytes_max}.",
    )
    return work_pb2.Outcome(token=token, failed=failure)


def _detail(status: status_pb2.Status, into: _Detail) -> _Detail | None:
    for packed in status.details:
        if packed.TypeName() == into.DESCRIPTOR.full_name and packed.Unpack(into):
            return into
    return None
