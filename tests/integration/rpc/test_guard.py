"""What reaches a caller over a real connection: refusals as our classes, bugs as bare INTERNAL."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import grpc
import pytest
import structlog
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_ANONYMOUS, PRINCIPAL_KIND_OPERATOR
from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto_core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    PermissionDenied,
    Refusal,
    Unauthenticated,
    Unimplemented,
)
from stretto_core.rpc.call import Call, current_call, current_principal
from stretto_core.rpc.channel import credentials
from stretto_core.rpc.retry import Caller, refusals
from stretto_core.rpc.tokens import read_token
from stretto_core.telemetry.secret import Secret

from tests.integration.rpc.conftest import Served
from tests.waiting import until

SERVICE = "/stretto.eventlog.v1.EventLogService"


class Held(FailedPrecondition):
    """A concrete refusal, as deciders define them."""

    reason = "HELD"


def raising(error: BaseException) -> Any:
    async def answer(_request: object) -> Any:
        raise error

    return answer


async def test_a_refusal_comes_back_as_its_class_and_reason(served: Served, stub: Any) -> None:
    served.answer = raising(Held("the run is held", run="p0-1"))
    with pytest.raises(FailedPrecondition) as caught, refusals():
        await stub.ReadStream(pb.ReadStreamRequest())
    assert caught.value.reason_word == "HELD"
    assert caught.value.metadata == {"run": "p0-1"}
    assert caught.value.message == "the run is held"


async def test_every_violation_comes_back(served: Served, stub: Any) -> None:
    violations = [FieldViolation("a.b", "is empty"), FieldViolation("c[1]", "is too long")]
    served.answer = raising(InvalidArgument("two fields", violations=violations))
    with pytest.raises(InvalidArgument) as caught, refusals():
        await stub.ReadStream(pb.ReadStreamRequest())
    assert list(caught.value.violations) == violations


async def test_a_refusal_with_ten_thousand_violations_still_arrives(
    served: Served, stub: Any
) -> None:
    violations = [FieldViolation("f" * 300, "é" * 300)] * 10_000
    served.answer = raising(InvalidArgument("ü" * 5_000, violations=violations))
    with pytest.raises(InvalidArgument) as caught, refusals():
        await stub.ReadStream(pb.ReadStreamRequest())
    assert caught.value.metadata["violations_left_out"] == str(10_000 - 32)


async def test_a_bug_is_internal_and_tells_nothing(served: Served, stub: Any) -> None:
    served.answer = raising(KeyError("password"))
    with structlog.testing.capture_logs() as logs, pytest.raises(Internal) as caught, refusals():
        await stub.ReadStream(pb.ReadStreamRequest())
    assert "password" not in str(caught.value)
    assert [(line["event"], line["log_level"]) for line in logs] == [("rpc.failed", "error")]
    assert isinstance(logs[0]["exc_info"], KeyError)


async def test_a_refusal_is_logged_once_at_info_and_a_success_not_at_all(
    served: Served, stub: Any
) -> None:
    with structlog.testing.capture_logs() as logs:
        await stub.ReadStream(pb.ReadStreamRequest())
        assert logs == []
        served.answer = raising(Held("held"))
        with pytest.raises(Refusal), refusals():
            await stub.ReadStream(pb.ReadStreamRequest())
    assert [(line["log_level"], line["reason"]) for line in logs] == [("info", "HELD")]


@pytest.mark.parametrize("method", ["ReadStream", "Subscribe"])
async def test_a_refused_call_leaves_no_garbage_that_only_a_collection_finds(
    served: Served, stub: Any, method: str
) -> None:
    kept: list[weakref.ref[Held]] = []

    async def refuse(_request: object) -> Any:
        refusal = Held("with all that was read for it")
        kept.append(weakref.ref(refusal))
        raise refusal

    served.answer = refuse
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with pytest.raises(Refusal), refusals():
                if method == "ReadStream":
                    await stub.ReadStream(pb.ReadStreamRequest())
                else:
                    async for _response in stub.Subscribe(pb.SubscribeRequest()):
                        pass
        # The newest is held by gRPC until the next call.
        await until(lambda: sum(ref() is not None for ref in kept) < 5)
    finally:
        gc.enable()


async def test_a_stream_gives_what_came_before_the_refusal(served: Served, stub: Any) -> None:
    served.answer = raising(Held("held"))
    seen = []
    with pytest.raises(FailedPrecondition), refusals():
        async for response in stub.Subscribe(pb.SubscribeRequest()):
            seen.append(response.cursor)
    assert seen == ["first"]


@pytest.mark.parametrize("method", ["ReadStream", "Subscribe"])
async def test_bytes_that_are_no_message_are_invalid(
    channel: grpc.aio.Channel, method: str
) -> None:
    call: Any = (
        channel.unary_unary(f"{SERVICE}/{method}")
        if method == "ReadStream"
        else channel.unary_stream(f"{SERVICE}/{method}")
    )
    with pytest.raises(InvalidArgument) as caught, refusals():
        answer = call(b"\xff\xff\xff")
        await (answer if method == "ReadStream" else answer.read())
    assert caught.value.reason_word == "UNDECODABLE"


async def test_a_frame_that_is_no_message_is_invalid(channel: grpc.aio.Channel) -> None:
    work: Any = channel.stream_stream("/stretto.work.v1.WorkService/Work")
    call = work(iter([b"\xff\xff"]))
    with pytest.raises(InvalidArgument), refusals():
        await call.read()


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (f"{SERVICE}/ReadAll", "UNIMPLEMENTED"),
        (f"{SERVICE}/Fly", "UNKNOWN_METHOD"),
        ("/no.such.Service/Method", "UNKNOWN_METHOD"),
    ],
)
async def test_what_is_not_served_is_unimplemented(
    channel: grpc.aio.Channel, method: str, reason: str
) -> None:
    call: Any = channel.unary_unary(method)
    with pytest.raises(Unimplemented) as caught, refusals():
        await call(b"")
    assert caught.value.reason_word == reason


async def test_a_message_over_the_limit_is_exhausted(served: Served, stub: Any) -> None:
    for answer_size, request_size in [(2 << 20, 0), (0, 2 << 20)]:
        page = pb.ReadStreamResponse(
            events=[pb.LoggedEvent(body_json="x" * 1_000)] * (answer_size // 1_000)
        )
        served.answer = _giving(page)
        with pytest.raises(Refusal) as caught, refusals():
            await stub.ReadStream(pb.ReadStreamRequest(stream="x" * request_size))
        assert type(caught.value).__name__ == "Exhausted"
        assert caught.value.retry_delay_ms is None


async def test_without_a_token_a_local_caller_is_anonymous(served: Served, stub: Any) -> None:
    call = await _seen(served, stub, ())
    assert call.principal.kind == PRINCIPAL_KIND_ANONYMOUS


async def test_a_token_names_its_principal(served: Served, stub: Any) -> None:
    call = await _seen(served, stub, credentials(read_token(served.directory, "operator")))
    assert (call.principal.kind, call.principal.name) == (PRINCIPAL_KIND_OPERATOR, "operator")


async def test_an_unknown_token_is_refused(stub: Any) -> None:
    for metadata in (credentials(Secret("stretto_guess")), (("authorization", "Basic abc"),)):
        with pytest.raises(Unauthenticated) as caught, refusals():
            await stub.ReadStream(pb.ReadStreamRequest(), metadata=metadata)
        assert caught.value.reason_word == "TOKEN_UNKNOWN"


async def test_a_kind_without_the_permission_is_refused(
    served: Served, channel: grpc.aio.Channel
) -> None:
    metadata = credentials(read_token(served.directory, "env"))
    call: Any = channel.stream_stream("/stretto.work.v1.WorkService/Work")
    with pytest.raises(PermissionDenied) as caught, refusals():
        await call(iter([]), metadata=metadata).read()
    assert caught.value.metadata["permission"] == "PERMISSION_WORK"


async def test_the_callers_deadline_and_trace_reach_the_handler(served: Served, stub: Any) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    call = await _seen(served, stub, credentials(None, traceparent), timeout_s=50)
    assert call.traceparent == traceparent
    assert call.deadline_s is not None
    assert 0 < call.deadline_s - asyncio.get_running_loop().time() <= 51
    bad = await _seen(served, stub, (("traceparent", "00-nonsense"),))
    assert bad.traceparent == ""


async def test_a_caller_that_goes_away_frees_the_handler(served: Served, stub: Any) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def hang(_request: object) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    served.answer = hang
    call = stub.ReadStream(pb.ReadStreamRequest())
    await asyncio.wait_for(entered.wait(), 60)
    call.cancel()
    await asyncio.wait_for(left.wait(), 60)


async def test_a_refusal_nobody_waits_for_any_more_harms_nothing(served: Served, stub: Any) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def refuse_when_cancelled(_request: object) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Held("too late") from None
        finally:
            left.set()

    served.answer = refuse_when_cancelled
    call = stub.ReadStream(pb.ReadStreamRequest())
    await asyncio.wait_for(entered.wait(), 60)
    call.cancel()
    await asyncio.wait_for(left.wait(), 60)
    served.answer = _giving(pb.ReadStreamResponse(more=True))
    assert (await stub.ReadStream(pb.ReadStreamRequest())).more


async def test_the_principal_of_one_call_is_not_seen_by_another(served: Served, stub: Any) -> None:
    both = asyncio.Barrier(2)
    names: list[str] = []

    async def meet(_request: object) -> pb.ReadStreamResponse:
        await both.wait()
        names.append(current_principal().name)
        return pb.ReadStreamResponse()

    served.answer = meet
    token = credentials(read_token(served.directory, "worker"))
    request = pb.ReadStreamRequest()
    await asyncio.gather(stub.ReadStream(request), stub.ReadStream(request, metadata=token))
    assert sorted(names) == ["anonymous", "worker"]


def _giving(page: pb.ReadStreamResponse) -> Any:
    async def answer(_request: object) -> pb.ReadStreamResponse:
        return page

    return answer


async def _seen(served: Served, stub: Any, metadata: Any, timeout_s: float | None = None) -> Call:
    calls: list[Call] = []

    async def look(_request: object) -> pb.ReadStreamResponse:
        calls.append(current_call())
        return pb.ReadStreamResponse()

    served.answer = look
    await stub.ReadStream(pb.ReadStreamRequest(), metadata=metadata, timeout=timeout_s)
    return calls[0]


async def test_a_call_that_nobody_answers_ends_at_the_callers_own_limit(
    served: Served, stub: Any
) -> None:
    async def hang(_request: object) -> Any:
        await asyncio.Event().wait()

    served.answer = hang
    caller = Caller(attempt_ms_max=50)
    with pytest.raises(DeadlineExceeded):
        await caller.call(stub.ReadStream, pb.ReadStreamRequest())
