"""Refusals to google.rpc.Status and back, one row per class and detail."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from stretto_core import errors
from stretto_core.errors import (
    AlreadyExists,
    Conflict,
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    Refusal,
    Unavailable,
)
from stretto_core.rpc.status import (
    STATUS_BYTES_MAX,
    code_of,
    from_rpc_error,
    from_status,
    to_status,
)

CANONICAL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, Refusal) and kind.reason != Refusal.reason
]


def details(refusal: Refusal) -> dict[str, object]:
    found = {}
    for packed in to_status(refusal).details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        message = kind()
        packed.Unpack(message)
        found[kind.__name__] = message
    return found


@pytest.mark.parametrize("kind", CANONICAL)
def test_every_class_survives_the_wire(kind: type[Refusal]) -> None:
    class Concrete(kind):  # type: ignore[valid-type,misc]
        reason = "VERY_SPECIAL"

    sent = Concrete("it is so", thing="x1", other="é")
    got = from_status(to_status(sent))
    assert type(got) is kind
    assert (got.message, got.reason_word, got.metadata) == (
        "it is so",
        "VERY_SPECIAL",
        {"thing": "x1", "other": "é"},
    )
    assert got.retry_delay_ms == sent.retry_delay_ms


def test_each_class_has_a_code_of_its_own() -> None:
    codes = [code_of(kind("x")) for kind in CANONICAL]
    assert len(set(codes)) == len(codes)
    assert grpc.StatusCode.UNKNOWN not in codes


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (InvalidArgument("x", violations=[FieldViolation("a", "b")]), {"BadRequest"}),
        (InvalidArgument("x"), set()),
        (FailedPrecondition("x"), {"PreconditionFailure"}),
        (AlreadyExists("x", resource_type="run", resource_name="r"), {"ResourceInfo"}),
        (NotFound("x", resource_name="r"), {"ResourceInfo"}),
        (NotFound("x"), set()),
        (Exhausted("x"), {"QuotaFailure", "RetryInfo"}),
        (Unavailable("x", retry_delay_ms=7), {"RetryInfo"}),
        (Conflict("x"), {"RetryInfo"}),
    ],
)
def test_the_details_follow_from_the_case(refusal: Refusal, expected: set[str]) -> None:
    assert set(details(refusal)) == expected | {"ErrorInfo"}


def test_the_precondition_names_what_must_hold() -> None:
    found = details(FailedPrecondition("the run is closed", reason="RUN_CLOSED", subject="p0-1"))
    assert found["PreconditionFailure"] == error_details_pb2.PreconditionFailure(
        violations=[
            error_details_pb2.PreconditionFailure.Violation(
                type="RUN_CLOSED", subject="p0-1", description="the run is closed"
            )
        ]
    )


def test_the_domain_is_ours() -> None:
    info = details(NotFound("x"))["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == "stretto.dev"


def test_a_retry_delay_is_kept_to_the_millisecond() -> None:
    assert from_status(to_status(Unavailable("x", retry_delay_ms=1_234))).retry_delay_ms == 1_234


def test_without_retry_info_there_is_no_delay() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="core")
    got = from_status(status)
    assert isinstance(got, Exhausted)
    assert got.retry_delay_ms is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.UNKNOWN, Internal),
        (grpc.StatusCode.DATA_LOSS, Internal),
    ],
)
def test_codes_we_never_send_are_understood(code: grpc.StatusCode, kind: type[Refusal]) -> None:
    assert type(from_status(status_pb2.Status(code=code.value[0]))) is kind


def test_a_number_that_is_no_code_is_a_bug_of_the_peer() -> None:
    assert isinstance(from_status(status_pb2.Status(code=99)), Internal)


def test_garbage_in_a_detail_is_ignored() -> None:
    status = to_status(NotFound("x"))
    status.details[0].value = b"\xff\xff"
    assert from_status(status).reason_word == "NOT_FOUND"


def _with_long_metadata() -> Refusal:
    refusal = Exhausted("x" * 9_000, reason="QUEUE_FULL")
    refusal.metadata = {f"key{number}": "v" * 999 for number in range(40)}
    return refusal


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidArgument("x" * 9_000, violations=[FieldViolation("f" * 999, "d" * 999)] * 999),
        _with_long_metadata(),
    ],
)
def test_the_largest_refusal_fits_a_trailer(refusal: Refusal) -> None:
    status = to_status(refusal)
    assert status.ByteSize() <= STATUS_BYTES_MAX
    got = from_status(status)
    assert (got.reason_word, got.retry_delay_ms) == (refusal.reason_word, refusal.retry_delay_ms)


def test_text_that_is_not_unicode_is_sent_all_the_same() -> None:
    got = from_status(to_status(NotFound("no file \udcff", path="\udcff" * 999)))
    assert got.message == "no file ?"


def test_a_write_that_met_the_end_of_its_stream_may_be_repeated() -> None:
    """gRPC itself fails it with INTERNAL; a bug of the other side is told with our details."""
    none = grpc.aio.Metadata()
    failed = 'Internal error from Core Failed "execute_batch"'
    raced = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, failed)
    assert isinstance(from_rpc_error(raced), Unavailable)
    other = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, "a bug")
    assert isinstance(from_rpc_error(other), Internal)
