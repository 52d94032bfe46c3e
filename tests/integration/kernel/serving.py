"""A kernel served over real gRPC on a real PostgreSQL in the test's loop, and a stream worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.eventlog.v1.event_log_service_pb2_grpc import EventLogServiceStub
from stretto.run.v1 import plan_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto.run.v1.run_service_pb2_grpc import RunServiceStub
from stretto.work.v1 import work_pb2, work_service_pb2
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.clock.system import SystemClock
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.ids import Partition
from stretto_core.ids.system import SystemIds
from stretto_core.rpc.channel import open_channel
from stretto_core.rpc.server import RpcServer, ServerSettings
from stretto_core.rpc.status import from_rpc_error, to_status
from stretto_core.telemetry.metrics import Registry
from stretto_kernel.adapters.artifact_table import ArtifactTable
from stretto_kernel.adapters.attempt_table import AttemptTable
from stretto_kernel.adapters.blob_table import BlobTable
from stretto_kernel.adapters.board_table import BoardTable
from stretto_kernel.adapters.fresh_fold_table import FreshFoldTable
from stretto_kernel.adapters.grpc_dialer import GrpcDialer
from stretto_kernel.adapters.past_views import PastViewTables
from stretto_kernel.adapters.queue_table import QueueTable
from stretto_kernel.adapters.run_index_table import RunIndexTable
from stretto_kernel.adapters.run_key_table import RunKeyTable
from stretto_kernel.adapters.snapshot_table import SnapshotTable
from stretto_kernel.adapters.task_log_table import TaskLogTable
from stretto_kernel.adapters.usage_table import UsageTable
from stretto_kernel.adapters.view_places import ViewPlaceReader
from stretto_kernel.adapters.worker_table import WorkerTable
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.run_keys import RunKeys
from stretto_kernel.app.snapshots import Snapshots
from stretto_kernel.followers import Followers
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import RUN_CODEC, KernelLimits, KernelPorts
from stretto_kernel.projections.past_boards import PastBoards
from stretto_kernel.projections.past_queues import PastQueues
from stretto_kernel.projections.past_runs import PastRuns
from stretto_kernel.projections.view_calls import ViewCalls
from stretto_kernel.projections.view_reach import ViewReach
from stretto_kernel.servicers.run_listing import ListedViews, RunListing
from stretto_kernel.serving import Past, Readiness, add_servicers, add_views
from stretto_kernel.tasklog.book import LeaseLimits
from stretto_kernel.tasklog.task_logs import TaskLogs

from tests.waiting import until

if TYPE_CHECKING:  # The stubs know these classes, the generated modules do not.
    from stretto.eventlog.v1.event_log_service_pb2_grpc import EventLogServiceAsyncStub
    from stretto.run.v1.run_service_pb2_grpc import RunServiceAsyncStub

IDS = SystemIds()
PARTITION = Partition("p0")
NOBODYS = "namespaces/default/runs/p0-" + "0" * 32
"""The name of a run that nobody started."""
TASK_LOG_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Served:
    """A kernel and what talks to it."""

    kernel: Kernel
    log: PostgresLog
    channel: grpc.aio.Channel
    runs: RunServiceAsyncStub
    events: EventLogServiceAsyncStub
    address: str

    async def start(self, *tasks: plan_pb2.TaskSpec, **fields: Any) -> pb.StartRunResponse:
        graph = plan_pb2.TaskGraph(tasks=tasks or (task("a"),))
        fields = {"request_id": IDS.uuid7(), "task_graph": graph, **fields}
        return await self.runs.StartRun(pb.StartRunRequest(**fields))

    async def get(self, name: str) -> pb.GetRunResponse:
        return await self.runs.GetRun(pb.GetRunRequest(name=name))


def task(name: str, **fields: Any) -> plan_pb2.TaskSpec:
    return plan_pb2.TaskSpec(name=name, executor="test.body", **fields)


def snapshots_of(log: PostgresLog) -> Snapshots:
    """Return the snapshots beside a log; runs of a few events have some."""
    return Snapshots(SnapshotTable(PARTITION, log.tracking), log, RUN_CODEC, events_min=5)


@asynccontextmanager
async def served(
    dsn: str, follow: FollowLimits | None = None, **limits: Any
) -> AsyncIterator[Served]:
    """Serve a kernel on a free port; on the way out it stops in order."""
    log = await PostgresLog.open(dsn, PARTITION)
    index = RunIndexTable(PARTITION, log.tracking)
    clock = SystemClock()
    blob_table = BlobTable(dsn, clock)
    key_table = RunKeyTable(dsn)
    ports = KernelPorts(
        log=log,
        clock=clock,
        ids=IDS,
        dialer=GrpcDialer(),
        index=index,
        blobs=BlobCalls(blob_table, clock),
        keys=RunKeys(key_table),
        to_status=to_status,
        snapshots=snapshots_of(log),
    )
    kernel = Kernel(ports, KernelLimits(**limits))
    server = RpcServer(ServerSettings())
    log_table = TaskLogTable(dsn, PARTITION)
    listed = ListedViews(
        index,
        AttemptTable(PARTITION, log.tracking),
        ArtifactTable(PARTITION, log.tracking),
        UsageTable(PARTITION, log.tracking),
    )
    reach = ViewReach(log, ViewPlaceReader(PARTITION, log.tracking))
    task_logs = TaskLogs(log_table, ports.clock, LeaseLimits(bytes_max=TASK_LOG_BYTES_MAX))
    add_servicers(
        server,
        kernel,
        RunListing(listed, log, reach),
        Past(
            PastRuns(log, RUN_CODEC, PastViewTables(PARTITION, log.tracking), reach, clock),
            PastBoards(log, BoardTable(PARTITION, log.tracking), reach, clock),
            WorkerTable(PARTITION, log.tracking),
            PastQueues(QueueTable(PARTITION, log.tracking), reach),
        ),
        task_logs,
        followers=Followers.of(kernel, follow or FollowLimits()),
    )
    views = FreshFoldTable(dsn, PARTITION, log.tracking)
    watch = add_views(server, Registry(), ViewCalls(views, IDS), PARTITION)
    try:
        await kernel.start()
        readiness = Readiness(server, kernel)
        port = await server.start()
        await readiness.start()
        watching = asyncio.create_task(watch.run())
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield Served(
                kernel,
                log,
                channel,
                RunServiceStub(channel),
                EventLogServiceStub(channel),
                f"127.0.0.1:{port}",
            )
        watching.cancel()
        await readiness.drain(0)
    finally:
        await kernel.stop()
        await task_logs.close()
        await log_table.close()
        await blob_table.close()
        await key_table.close()
        await log.close()


class StreamWorker:
    """One work stream: frames queued by the test, answers collected."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        worker_id: str = "w1",
        session_id: str = "",
        held: tuple[LeaseToken, ...] = (),
        credit_count: int = 10,
        control_address: str = "",
        queues: tuple[str, ...] = (),
    ) -> None:
        self.session_id = session_id or IDS.uuid7()
        self.answers: list[work_service_pb2.WorkResponse] = []
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._frames: asyncio.Queue[work_service_pb2.WorkRequest] = asyncio.Queue()
        hello = work_pb2.Hello(
            worker_id=worker_id,
            session_id=self.session_id,
            executors=["test.body"],
            queues=queues,
            held=held,
            control_address=control_address,
        )
        self.say(hello=hello, credit_total_count=credit_count)
        self._task = asyncio.create_task(self._run(channel))

    def say(self, **parts: Any) -> None:
        self._frames.put_nowait(work_service_pb2.WorkRequest(**parts))

    def succeed(self, token: LeaseToken, json: str = "1") -> None:
        succeeded = work_pb2.OutcomeSucceeded(result=Payload(json=json))
        self.say(outcomes=[work_pb2.Outcome(token=token, succeeded=succeeded)])

    @property
    def assignments(self) -> list[work_pb2.Assignment]:
        return [one for answer in self.answers for one in answer.assignments]

    @property
    def receipts(self) -> list[work_pb2.Receipt]:
        return [one for answer in self.answers for one in answer.receipts]

    async def acknowledged(self) -> None:
        """Return once the kernel has read everything said: it answers a repeated outcome."""
        stale = LeaseToken(work_item=self.assignments[0].token.work_item, epoch=99)
        before = len(self.receipts)
        self.succeed(stale)
        await until(lambda: len(self.receipts) > before)

    async def cut(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self, channel: grpc.aio.Channel) -> None:
        async def outgoing() -> AsyncIterator[work_service_pb2.WorkRequest]:
            while True:
                yield await self._frames.get()

        try:
            async for answer in WorkServiceStub(channel).Work(outgoing()):
                self.answers.append(answer)
                tokens = [assignment.token for assignment in answer.assignments]
                if tokens:
                    self.say(acknowledged=tokens)
        except grpc.aio.AioRpcError as error:
            self.ended.set_result(from_rpc_error(error).reason_word)
        else:
            self.ended.set_result("")


async def reason_of(call: Awaitable[object]) -> str:
    """The reason word that a call is refused with; "" when it is not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason_word
    return ""
