"""A small WorkService over real gRPC: plays a kernel that a test steers frame by frame."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

from stretto.common.v1 import lease_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire
from stretto.work.v1 import work_service_pb2_grpc as services
from stretto_core.errors import Refusal
from stretto_core.rpc.server import RpcServer, ServerSettings

from tests.waiting import until


class KernelDouble(services.WorkServiceServicer):
    """Welcomes every hello, keeps every frame, and answers outcomes when told to."""

    def __init__(self) -> None:
        self.frames: list[wire.WorkRequest] = []
        self.hellos: list[work_pb2.Hello] = []
        self.outcomes: list[work_pb2.Outcome] = []
        self.renewals: list[work_pb2.Renewal] = []
        self.spawns: list[work_pb2.Spawn] = []
        self.logs: dict[str, bytes] = defaultdict(bytes)
        self.goodbye_count = 0
        self.answers_outcomes = True
        self.refusal: Refusal | None = None
        self.port = 0
        self._out: asyncio.Queue[wire.WorkResponse | None] = asyncio.Queue()
        self._server: RpcServer | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = RpcServer(ServerSettings(address=f"127.0.0.1:{self.port}"))
        self._server.add(services.add_WorkServiceServicer_to_server, self)
        self.port = await self._server.start()

    async def stop(self) -> None:
        self.cut()
        assert self._server is not None
        await self._server.drain(0)

    def cut(self) -> None:
        """End the open stream."""
        self._out.put_nowait(None)

    def say(self, frame: wire.WorkResponse) -> None:
        self._out.put_nowait(frame)

    def assign(
        self,
        item: str,
        *,
        executor: str = "python",
        arguments: str = "{}",
        epoch: int = 1,
        ttl_s: int = 30,
        **inputs: str,
    ) -> None:
        """Assign a task; inputs are JSON texts."""
        frame = wire.WorkResponse()
        assignment = frame.assignments.add(
            token=lease_pb2.LeaseToken(work_item=item, epoch=epoch, secret=b"secret"),
            kind=lease_pb2.WORK_ITEM_KIND_TASK,
            run="namespaces/default/runs/p0-1",
            task=item,
            activation=1,
            attempt=1,
            executor=executor,
            arguments_json=arguments,
        )
        assignment.ttl.seconds = ttl_s
        for name, value in inputs.items():
            assignment.inputs[name].json = value
        self.say(frame)

    def signal(self, item: str, kind: work_pb2.SignalKind.ValueType, epoch: int = 1) -> None:
        frame = wire.WorkResponse()
        frame.signals.add(token=lease_pb2.LeaseToken(work_item=item, epoch=epoch), kind=kind)
        self.say(frame)

    async def outcome(self, item: str) -> work_pb2.Outcome:
        """Return the first outcome of a task, once it came."""
        await until(lambda: any(each.token.work_item == item for each in self.outcomes))
        return next(each for each in self.outcomes if each.token.work_item == item)

    async def seen(self, condition: Callable[[KernelDouble], bool]) -> None:
        await until(lambda: condition(self))

    async def Work(
        self, request_iterator: AsyncIterator[wire.WorkRequest], context: Any
    ) -> AsyncIterator[wire.WorkResponse]:
        if self.refusal is not None:
            raise self.refusal
        self._out = asyncio.Queue()
        reading = asyncio.create_task(self._read(request_iterator))
        try:
            while (frame := await self._out.get()) is not None:
                yield frame
        finally:
            reading.cancel()

    async def LeaseWork(self, request: Any, context: Any) -> wire.LeaseWorkResponse:
        raise NotImplementedError

    async def RenewLeases(self, request: Any, context: Any) -> wire.RenewLeasesResponse:
        raise NotImplementedError

    async def AppendLogs(
        self, request: wire.AppendLogsRequest, _context: Any
    ) -> wire.AppendLogsResponse:
        for logs in request.leases:
            for chunk in logs.chunks:
                self.logs[logs.token.work_item] += chunk.content
        return wire.AppendLogsResponse(results=[wire.AppendLogsResult() for _ in request.leases])

    async def ReleaseWork(self, request: Any, context: Any) -> wire.ReleaseWorkResponse:
        raise NotImplementedError

    async def ReportOutcomes(self, request: Any, context: Any) -> wire.ReportOutcomesResponse:
        raise NotImplementedError

    async def _read(self, frames: AsyncIterator[wire.WorkRequest]) -> None:
        out = self._out
        async for frame in frames:
            self.frames.append(frame)
            if frame.HasField("hello"):
                welcome = wire.WorkResponse()
                welcome.welcome.renew_interval.seconds = 5
                welcome.welcome.idle_timeout.seconds = 15
                out.put_nowait(welcome)
                self.hellos.append(frame.hello)
            self.outcomes.extend(frame.outcomes)
            self.renewals.extend(frame.renewals)
            self.spawns.extend(frame.spawns)
            if frame.outcomes and self.answers_outcomes:
                out.put_nowait(receipts(frame.outcomes))
            if frame.HasField("goodbye"):
                self.goodbye_count += 1
                out.put_nowait(None)


def receipts(outcomes: Any) -> wire.WorkResponse:
    """Return a frame that accepts outcomes."""
    frame = wire.WorkResponse()
    for outcome in outcomes:
        frame.receipts.add(token=outcome.token, kind=work_pb2.RECEIPT_KIND_OUTCOME)
    return frame
