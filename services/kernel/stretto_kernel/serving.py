"""Serves a kernel over gRPC: servicers, health, drain.

Health says SERVING only while the kernel owns its partition and the write path is proven: if
nothing was committed for 5 s a probe must succeed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
from stretto.blackboard.v1.blackboard_service_pb2_grpc import (
    add_BlackboardServiceServicer_to_server,
)
from stretto.blob.v1.blob_service_pb2_grpc import add_BlobServiceServicer_to_server
from stretto.eventlog.v1.event_log_service_pb2_grpc import add_EventLogServiceServicer_to_server
from stretto.namespace.v1.namespace_service_pb2_grpc import add_NamespaceServiceServicer_to_server
from stretto.projection.v1.projection_service_pb2_grpc import (
    add_ProjectionServiceServicer_to_server,
)
from stretto.queue.v1.queue_service_pb2_grpc import add_QueueServiceServicer_to_server
from stretto.registry.v1.worker_registry_service_pb2_grpc import (
    add_WorkerRegistryServiceServicer_to_server,
)
from stretto.run.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from stretto.tasklog.v1.task_log_service_pb2_grpc import add_TaskLogServiceServicer_to_server
from stretto.work.v1.work_service_pb2_grpc import add_WorkServiceServicer_to_server
from stretto_core.clock import NS_PER_S
from stretto_core.errors import Refusal
from stretto_core.ids import Partition
from stretto_core.rpc.server import RpcServer
from stretto_core.telemetry.metrics import Registry

from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.followers import Followers
from stretto_kernel.kernel import Kernel
from stretto_kernel.kernel_metrics import add_view_metrics
from stretto_kernel.projections.past_boards import PastBoards
from stretto_kernel.projections.past_queues import PastQueues
from stretto_kernel.projections.past_runs import PastRuns
from stretto_kernel.projections.view_calls import ViewCalls
from stretto_kernel.projections.view_watch import ViewWatch
from stretto_kernel.servicers.blob_servicer import BlobServicer
from stretto_kernel.servicers.board_servicer import BoardServicer
from stretto_kernel.servicers.event_log_servicer import EventLogServicer
from stretto_kernel.servicers.namespace_servicer import NamespaceServicer
from stretto_kernel.servicers.projection_servicer import ProjectionServicer
from stretto_kernel.servicers.queue_servicer import QueueServicer
from stretto_kernel.servicers.registry_servicer import RegistryServicer, WorkerHistory
from stretto_kernel.servicers.run_listing import RunListing
from stretto_kernel.servicers.run_servicer import RunServicer
from stretto_kernel.servicers.task_log_servicer import TaskLogServicer
from stretto_kernel.servicers.work_servicer import WorkServicer
from stretto_kernel.tasklog.task_logs import TaskLogs

HOLDERS_CALLS = ("RenewLeases", "ReportOutcomes")
"""Never behind the starts that wait for their turn: a lease would run out there."""
PROJECTION_SERVICE = "stretto.projection.v1.ProjectionService"
"""Under this name health tells whether every view follows the log."""
PROBE_AFTER_NS = 5 * NS_PER_S
PROBE_TIMEOUT_S = 2.0
LOOK_INTERVAL_S = 1.0
DRAIN_CALLS_MS = 2_000


@dataclass(frozen=True, slots=True)
class Past:
    """What was, read from views."""

    runs: PastRuns
    boards: PastBoards
    workers: WorkerHistory
    queues: PastQueues


def add_servicers(
    server: RpcServer,
    kernel: Kernel,
    listing: RunListing,
    past: Past,
    task_logs: TaskLogs,
    *,
    followers: Followers | None = None,
) -> None:
    """Serve every service of the kernel."""
    followers = followers or Followers.of(kernel, FollowLimits())
    runs = RunServicer(kernel, listing, past.runs, watchers=followers.watchers)
    server.add(add_RunServiceServicer_to_server, runs)
    work = WorkServicer(kernel, task_logs)
    server.add(add_WorkServiceServicer_to_server, work, ahead=HOLDERS_CALLS)
    server.add(add_WorkerRegistryServiceServicer_to_server, RegistryServicer(kernel, past.workers))
    server.add(add_QueueServiceServicer_to_server, QueueServicer(kernel, past.queues))
    server.add(add_BlackboardServiceServicer_to_server, BoardServicer(kernel, past.boards))
    server.add(add_NamespaceServiceServicer_to_server, NamespaceServicer(kernel))
    server.add(add_TaskLogServiceServicer_to_server, TaskLogServicer(kernel, task_logs))
    server.add(add_BlobServiceServicer_to_server, BlobServicer(kernel))
    server.add(
        add_EventLogServiceServicer_to_server,
        EventLogServicer(kernel.ports.log, followers.feed, kernel),
    )


def add_views(
    server: RpcServer, registry: Registry, calls: ViewCalls, partition: Partition
) -> ViewWatch:
    """Serve the views; return what has to run so that metrics and health know how they stand."""

    async def tell(all_follow: bool) -> None:
        await server.set_serving(serving=all_follow, service=PROJECTION_SERVICE)

    server.add(add_ProjectionServiceServicer_to_server, ProjectionServicer(calls, partition))
    watch = ViewWatch(calls, tell)
    add_view_metrics(registry, watch)
    return watch


class HealthPort(Protocol):
    """Where a kernel's health is shown, and what its calls come in by."""

    async def set_serving(self, *, serving: bool) -> None:
        """Show it from now on."""
        ...

    async def drain(self, grace_ms: int) -> None:
        """Take no more calls; end those that go on after `grace_ms`."""
        ...


class Readiness:
    """Keeps the health of a server true to what its kernel can do."""

    def __init__(self, server: HealthPort, kernel: Kernel) -> None:
        self._server = server
        self._kernel = kernel
        self._serving = False
        self._watch: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("stretto.kernel")

    async def start(self) -> None:
        """Say what is so now, and from now on."""
        await self._look()
        self._watch = asyncio.create_task(self._keep_looking(), name="readiness")

    async def drain(self, grace_s: float) -> None:
        """Say NOT_SERVING, let leases end for `grace_s`, end the calls, release the partition."""
        if self._watch is not None:
            self._watch.cancel()
        await self._server.set_serving(serving=False)
        await self._kernel.drain("the kernel is ending", grace_s)
        await self._kernel.stop()
        await self._server.drain(DRAIN_CALLS_MS)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        serving = await self._is_ready()
        if serving != self._serving:
            self._serving = serving
            self._log.info("kernel.serving" if serving else "kernel.not_serving")
            await self._server.set_serving(serving=serving)

    async def _is_ready(self) -> bool:
        if not self._kernel.is_owner:
            return False
        with suppress(Refusal, TimeoutError):
            facts = self._kernel.partition.facts
            quiet_ns = self._kernel.ports.clock.mono_ns() - facts.last_commit_mono_ns
            if quiet_ns >= PROBE_AFTER_NS:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self._kernel.prove_write_path()
                facts.note_proven()
            return True
        return False
