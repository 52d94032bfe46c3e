"""The server around the handlers: health, reflection, ports, limits, drain, restart."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto.eventlog.v1 import event_log_service_pb2_grpc as pb_grpc
from stretto_core.errors import DeadlineExceeded, NotFound, Unavailable
from stretto_core.localstack.readiness import grpc_serving
from stretto_core.rpc.channel import open_channel
from stretto_core.rpc.health import is_serving
from stretto_core.rpc.retry import Caller, RetryPolicy, refusals
from stretto_core.rpc.server import ServerSettings

from tests.integration.rpc.conftest import Served, serving

SERVICE = "stretto.eventlog.v1.EventLogService"


async def test_health_is_per_service_and_ends_before_the_port_closes(
    served: Served, channel: grpc.aio.Channel
) -> None:
    assert served.server is not None
    assert await is_serving(channel)
    await served.server.set_serving(serving=False, service=SERVICE)
    assert not await is_serving(channel, SERVICE)
    assert await is_serving(channel)
    with pytest.raises(NotFound):
        await is_serving(channel, "no.such.Service")


async def test_the_readiness_probe_tells_serving_from_started(served: Served) -> None:
    assert served.server is not None
    probe = grpc_serving(served.target)
    assert await probe(0)
    await served.server.set_serving(serving=False)
    assert not await probe(0)
    assert not await grpc_serving("127.0.0.1:1")(0)


async def test_reflection_lists_what_is_served(channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = await stub.ServerReflectionInfo(iter([asked])).read()
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "stretto.work.v1.WorkService", "grpc.health.v1.Health"} <= names


async def test_a_port_is_never_shared(served: Served) -> None:
    with pytest.raises(OSError, match="cannot listen"):
        async with serving(Served(), ServerSettings(address=served.target)):
            pass


async def test_a_drain_lets_calls_end_and_takes_no_new_ones(served: Served, stub: Any) -> None:
    entered, may_end = asyncio.Event(), asyncio.Event()

    async def answer(_request: object) -> pb.ReadStreamResponse:
        entered.set()
        await may_end.wait()
        return pb.ReadStreamResponse(more=True)

    served.answer = answer
    under_way = asyncio.ensure_future(stub.ReadStream(pb.ReadStreamRequest()))
    await asyncio.wait_for(entered.wait(), 60)
    assert served.server is not None
    draining = asyncio.ensure_future(served.server.drain(10_000))
    async with open_channel(served.target) as late:
        late_stub: Any = pb_grpc.EventLogServiceStub(late)
        with pytest.raises(Unavailable), refusals():
            await late_stub.ReadStream(pb.ReadStreamRequest())
    may_end.set()
    assert (await under_way).more
    await draining


async def test_a_call_without_a_deadline_is_bounded(served: Served) -> None:
    async def hang(_request: object) -> None:
        await asyncio.Event().wait()

    bounded = Served(answer=hang)
    async with (
        serving(bounded, ServerSettings(unary_ms_max=1)),
        open_channel(bounded.target) as channel,
    ):
        stub: Any = pb_grpc.EventLogServiceStub(channel)
        with pytest.raises(DeadlineExceeded), refusals():
            await stub.ReadStream(pb.ReadStreamRequest())


async def test_calls_are_counted_by_code(served: Served, stub: Any) -> None:
    await stub.ReadStream(pb.ReadStreamRequest())
    rpc = f"{SERVICE}/ReadStream"
    counter = served.registry.counter("stretto_rpc_calls_total", "", rpc=rpc, code="OK")
    assert counter.value == 1


async def test_a_restart_is_invisible_to_a_caller_that_retries() -> None:
    first = Served()
    async with serving(first, ServerSettings()):
        target = first.target
        channel = open_channel(target)
        stub: Any = pb_grpc.EventLogServiceStub(channel)
        await stub.ReadStream(pb.ReadStreamRequest())
    caller = Caller(policy=RetryPolicy(budget_ms=30_000))
    waiting = asyncio.ensure_future(caller.call(stub.ReadStream, pb.ReadStreamRequest()))
    async with serving(Served(), ServerSettings(address=target)):
        assert await waiting == pb.ReadStreamResponse()
    await channel.close()
