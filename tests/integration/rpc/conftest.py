"""A server on a free port whose answers each test chooses, and channels to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto.eventlog.v1 import event_log_service_pb2_grpc as pb_grpc
from stretto.work.v1 import work_service_pb2_grpc as work_grpc
from stretto_core.rpc.channel import open_channel
from stretto_core.rpc.server import RpcServer, ServerSettings
from stretto_core.rpc.tokens import TokenTable, ensure_tokens
from stretto_core.telemetry.metrics import Registry

Answer = Callable[[Any], Awaitable[Any]]


async def _empty_page(_request: pb.ReadStreamRequest) -> pb.ReadStreamResponse:
    return pb.ReadStreamResponse()


@dataclass
class Served:
    """What the running test server does, and where it is."""

    port: int = 0
    directory: Path = Path()
    answer: Answer = _empty_page
    tokens: TokenTable = field(default_factory=TokenTable)
    registry: Registry = field(default_factory=Registry)
    server: RpcServer | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


class _EventLog(pb_grpc.EventLogServiceServicer):
    def __init__(self, served: Served) -> None:
        self._served = served

    async def ReadStream(self, request: Any, context: Any) -> Any:
        return await self._served.answer(request)

    async def Subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.SubscribeResponse(cursor="first")
        yield await self._served.answer(request)


class _Work(work_grpc.WorkServiceServicer):
    async def Work(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for _ in request_iterator:
            pass
        return
        yield


@asynccontextmanager
async def serving(served: Served, settings: ServerSettings) -> AsyncIterator[Served]:
    server = RpcServer(settings, tokens=served.tokens, registry=served.registry)
    server.add(pb_grpc.add_EventLogServiceServicer_to_server, _EventLog(served))  # type: ignore[abstract]
    server.add(work_grpc.add_WorkServiceServicer_to_server, _Work())  # type: ignore[abstract]
    served.port = await server.start()
    served.server = server
    await server.set_serving()
    try:
        yield served
    finally:
        await server.drain(0)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    started = Served(directory=tmp_path / "tokens", tokens=ensure_tokens(tmp_path / "tokens"))
    async with serving(started, ServerSettings(message_bytes_max=1 << 20)) as running:
        yield running


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(open_channel(served.target))


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> pb_grpc.EventLogServiceStub:
    return pb_grpc.EventLogServiceStub(channel)
