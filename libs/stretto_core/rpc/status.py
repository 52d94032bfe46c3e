"""Refusals to google.rpc.Status and back; the only place that knows grpc.StatusCode.

Every status carries exactly one ErrorInfo (domain `stretto.dev`); the other details follow from the
refusal's class and metadata, see `_details`. The whole fits the 8 KiB of trailing metadata that any
gRPC client accepts: long texts are cut and surplus violations counted. Source: google/rpc/*.proto,
AIP-193.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from stretto_core.errors import (
    ERROR_DOMAIN,
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Refusal,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

DETAILS_KEY = "grpc-status-details-bin"
MESSAGE_BYTES_MAX = 1_000
METADATA_BYTES_MAX = 256
VIOLATIONS_MAX = 32
STATUS_BYTES_MAX = 3_500  # In base64, with the message percent-encoded beside it: below 8 KiB.

_CODES: dict[type[Refusal], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    Conflict: grpc.StatusCode.ABORTED,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Internal: grpc.StatusCode.INTERNAL,
}
_CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_CLASSES: dict[int, type[Refusal]] = {
    **{code.value[0]: kind for kind, code in _CODES.items()},
    # Whoever cut the call, its outcome is unknown and the same request may be sent again.
    grpc.StatusCode.CANCELLED.value[0]: Unavailable,
    grpc.StatusCode.UNKNOWN.value[0]: Internal,
    grpc.StatusCode.DATA_LOSS.value[0]: Internal,
}
_WRITE_FAILED = "Internal error from Core"


def code_of(refusal: Refusal) -> grpc.StatusCode:
    """Return the canonical code of a refusal's class; a class outside the hierarchy is our bug."""
    for kind in type(refusal).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.INTERNAL


def to_status(refusal: Refusal) -> status_pb2.Status:
    """Return what is sent for a refusal: in trailing metadata, or as one item of a batch."""
    status = status_pb2.Status(
        code=code_of(refusal).value[0], message=_cut(refusal.message, MESSAGE_BYTES_MAX)
    )
    for detail in _details(refusal):
        status.details.append(_packed(detail))
    # Too large: what a program needs most goes last, the reason and when to retry not at all.
    if status.ByteSize() > STATUS_BYTES_MAX:
        del status.details[1 if refusal.retry_delay_ms is None else 2 :]
    if status.ByteSize() > STATUS_BYTES_MAX:
        status.details[0].Pack(
            error_details_pb2.ErrorInfo(reason=refusal.reason_word, domain=ERROR_DOMAIN)
        )
    return status


def from_status(status: status_pb2.Status) -> Refusal:
    """Return the refusal a status stands for: an instance of its canonical class, with its reason.

    Details that are unknown or unreadable are ignored. Without RetryInfo, `retry_delay_ms` is None.
    """
    kind = _CLASSES.get(status.code, Internal)
    reason, metadata = kind.reason, dict[str, str]()
    retry_delay_ms: int | None = None
    violations: list[FieldViolation] = []
    for detail in status.details:
        match _unpacked(detail):
            case error_details_pb2.ErrorInfo() as info:
                reason, metadata = info.reason, dict(info.metadata)
            case error_details_pb2.RetryInfo() as retry:
                retry_delay_ms = retry.retry_delay.ToMilliseconds()
            case error_details_pb2.BadRequest() as bad:
                violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
    refusal = kind(status.message)
    refusal.reason_word = reason
    refusal.metadata = metadata
    refusal.retry_delay_ms = retry_delay_ms
    if isinstance(refusal, InvalidArgument):
        refusal.violations = tuple(violations)
    return refusal


def from_rpc_error(error: grpc.aio.AioRpcError) -> Refusal:
    """Return the refusal behind a failed call, also when gRPC itself failed it, without details."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code, message = error.code(), error.details() or error.code().name
    if code is grpc.StatusCode.INTERNAL and message.startswith(_WRITE_FAILED):
        # Our own gRPC wrote just when the stream ended, and does not say what it ended with.
        code = grpc.StatusCode.UNAVAILABLE
    return from_status(status_pb2.Status(code=code.value[0], message=message))


def trailing(refusal: Refusal) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Return what ends a call with a refusal: code, message, trailing metadata."""
    status = to_status(refusal)
    details = ((DETAILS_KEY, status.SerializeToString()),)
    return _CODE_BY_NUMBER[status.code], status.message, details


def _details(refusal: Refusal) -> Iterator[Message]:
    metadata = {key: _cut(value) for key, value in refusal.metadata.items()}
    subject = metadata.get("subject", "")
    description = _cut(refusal.message)
    reason = refusal.reason_word
    surplus_count = 0
    if isinstance(refusal, InvalidArgument):
        surplus_count = len(refusal.violations) - VIOLATIONS_MAX
    if surplus_count > 0:
        metadata["violations_left_out"] = str(surplus_count)
    yield error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata)
    if refusal.retry_delay_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(refusal.retry_delay_ms)
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    match refusal:
        case InvalidArgument(violations=violations) if violations:
            yield error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(violation.field),
                        description=_cut(violation.description),
                    )
                    for violation in violations[:VIOLATIONS_MAX]
                ]
            )
        case FailedPrecondition():
            precondition = error_details_pb2.PreconditionFailure.Violation(
                type=reason, subject=subject, description=description
            )
            yield error_details_pb2.PreconditionFailure(violations=[precondition])
        case AlreadyExists() | NotFound() if "resource_name" in metadata:
            yield error_details_pb2.ResourceInfo(
                resource_type=metadata.get("resource_type", ""),
                resource_name=metadata["resource_name"],
                description=description,
            )
        case Exhausted():
            quota = error_details_pb2.QuotaFailure.Violation(
                subject=subject, description=description
            )
            yield error_details_pb2.QuotaFailure(violations=[quota])


def _cut(text: str, bytes_max: int = METADATA_BYTES_MAX) -> str:
    """Return `text` as valid UTF-8 of at most so many bytes."""
    return str(text).encode(errors="replace")[:bytes_max].decode(errors="ignore")


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


_DETAIL_TYPES: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
)


def _unpacked(detail: any_pb2.Any) -> Message | None:
    name = detail.TypeName()
    for kind in _DETAIL_TYPES:
        if name == kind.DESCRIPTOR.full_name:
            message = kind()
            try:
                detail.Unpack(message)
            except DecodeError:
                return None
            return message
    return None
