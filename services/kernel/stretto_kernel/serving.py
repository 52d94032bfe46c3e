"""Serves a kernel over gRPC: servicers, health, drain.

Health says SERVING only while the kernel owns its partition and the write path is proven: if
nothing was committed for 5 s a probe must succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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

from stretto_kernel.app.admission import Admission
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.run_keys import RunKeys
from stretto_kernel.followers import Followers
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import OwnedPartition
from stretto_kernel.projections.past_boards import PastBoards
from stretto_kernel.projections.past_runs import PastRuns
from stretto_kernel.projections.registry import VIEWS
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
QUEUES_MEASURED_MAX = 100
"""Queues with metrics of their own; all others are one."""


_GAUGES: dict[str, tuple[str, Callable[[OwnedPartition], float]]] = {
    "recovery_streams_left": (
        "Active runs that are not in memory yet.",
        lambda owned: owned.folds.recovery_streams_left,
    ),
    "runs_damaged": (
        "Active runs whose record cannot be read: nothing is done with them.",
        lambda owned: owned.folds.damaged_count,
    ),
    "runs_in_memory": ("Runs in memory.", lambda owned: owned.host.run_count),
    "tasks_offered": (
        "Ready tasks offered to workers, those of held runs included.",
        lambda owned: owned.ready_count,
    ),
    "leases_open": ("Open leases.", lambda owned: owned.lease_count),
    "work_streams_open": ("Open work streams.", lambda owned: owned.streams.stream_count),
    "polls_waiting": ("LeaseWork calls that wait.", lambda owned: owned.polls.poll_count),
    "polls_granted": (
        "LeaseWork calls answered with work under this ownership.",
        lambda owned: owned.polls.granted_count,
    ),
    "polls_empty": (
        "LeaseWork calls answered with nothing under this ownership.",
        lambda owned: owned.polls.empty_count,
    ),
    "polled_leases_undelivered": (
        "Leases released under this ownership because their call was gone before its answer.",
        lambda owned: owned.polls.undelivered_count,
    ),
    "board_writes": (
        "Writes on blackboards accepted under this ownership, repeated ones included.",
        lambda owned: owned.boards.write_count,
    ),
    "writes_refused": (
        "Writes of lease holders refused under this ownership.",
        lambda owned: owned.refused_write_count,
    ),
    "loop_late_seconds_max": (
        "The longest that the loop was late under this ownership.",
        lambda owned: owned.late_ns_max / NS_PER_S,
    ),
    "seal_position": (
        "The last position under a seal.",
        lambda owned: owned.sealer.newest.position if owned.sealer.newest else 0,
    ),
    "seal_lag_events": (
        "Committed events under no seal.",
        lambda owned: owned.sealer.unsealed_count,
    ),
    "sealing_stopped": (
        "1 when an event could not be read, and nothing from it on is sealed.",
        lambda owned: owned.sealer.stop is not None,
    ),
}


def add_metrics(registry: Registry, kernel: Kernel) -> None:
    """Let the registry tell how the kernel stands, read when it is asked."""
    for name, (help_text, read) in _GAUGES.items():
        registry.gauge(f"stretto_kernel_{name}", help_text, read=partial(_read, kernel, read))
    _add_admission_metrics(registry, kernel.admission)
    for name, help_text, index in (
        ("queue_tasks_ready", "Ready tasks of a queue, those of held runs included.", 0),
        ("queue_leases_open", "Open leases of a queue.", 1),
    ):
        registry.gauges(
            f"stretto_kernel_{name}",
            help_text,
            label="queue",
            read=partial(_read_queues, kernel, index),
        )
    registry.gauges(
        "stretto_kernel_board_writes_refused",
        "Writes on blackboards refused under this ownership.",
        label="reason",
        read=lambda: dict(kernel.partition.boards.refused_counts) if kernel.is_owner else {},
    )
    _add_key_metrics(registry, kernel.ports.keys)
    snapshots = kernel.ports.snapshots
    registry.gauge(
        "stretto_kernel_snapshots_used",
        "Folds that began with a snapshot since the start.",
        read=lambda: 0 if snapshots is None else snapshots.used_count,
    )
    blobs = kernel.ports.blobs
    registry.gauge(
        "stretto_kernel_blob_uploads_open",
        "Blobs on their way in.",
        read=lambda: blobs.upload_count,
    )
    registry.gauge(
        "stretto_kernel_blob_stored_bytes",
        "Bytes of blobs stored since the start.",
        read=lambda: blobs.stored_bytes_count,
    )


def _add_admission_metrics(registry: Registry, admission: Admission) -> None:
    registry.gauge(
        "stretto_kernel_begun_weight",
        "What clients begin and is not answered yet; beyond its limit starts are refused.",
        read=lambda: admission.weight,
    )
    registry.gauge(
        "stretto_kernel_begun_refused",
        "Calls refused for that since the start.",
        read=lambda: admission.refused_count,
    )


def _add_key_metrics(registry: Registry, keys: RunKeys) -> None:
    registry.gauge(
        "stretto_kernel_run_keys_made",
        "Data keys of runs made since the start.",
        read=lambda: keys.made_count,
    )
    registry.gauge(
        "stretto_kernel_run_keys_destroyed",
        "Data keys of runs destroyed since the start.",
        read=lambda: keys.destroyed_count,
    )


def _read(kernel: Kernel, read: Callable[[OwnedPartition], float]) -> float:
    return read(kernel.partition) if kernel.is_owner else 0.0


def _read_queues(kernel: Kernel, index: int) -> dict[str, float]:
    if not kernel.is_owner:
        return {}
    counts = kernel.partition.queues.counts(QUEUES_MEASURED_MAX)
    return {name: count[index] for name, count in counts.items()}


def add_task_log_metrics(registry: Registry, task_logs: TaskLogs) -> None:
    """Let the registry tell how the task logs stand."""
    appender = task_logs.appender
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "readers": ("Readers of task logs.", lambda: task_logs.reader_count),
        "pending_bytes": ("Bytes that wait to be stored.", lambda: appender.pending_bytes),
        "stored_bytes": ("Bytes stored since the start.", lambda: appender.stored_bytes),
        "refused_bytes": (
            "Bytes not stored since the start: too many at once, or the store was down.",
            lambda: appender.refused_bytes,
        ),
    }
    for name, (help_text, read) in gauges.items():
        registry.gauge(f"stretto_kernel_task_log_{name}", help_text, read=read)


@dataclass(frozen=True, slots=True)
class Past:
    """What was, read from views."""

    runs: PastRuns
    boards: PastBoards
    workers: WorkerHistory


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
    server.add(add_QueueServiceServicer_to_server, QueueServicer(kernel))
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
    for view in VIEWS:
        registry.gauge(
            "stretto_kernel_view_position",
            "How far a view has followed the log.",
            read=partial(watch.position, view.name),
            view=view.name,
        )
        registry.gauge(
            "stretto_kernel_view_stopped",
            "1 while a view stands still before an event that it cannot take.",
            read=partial(watch.is_stopped, view.name),
            view=view.name,
        )
        registry.gauge(
            "stretto_kernel_view_events_missing",
            "Events of the log up to a view's position that it was not given: 0, or a bug.",
            read=partial(watch.events_missing, view.name),
            view=view.name,
        )
    relay: dict[str, tuple[str, Callable[[], float]]] = {
        "position": ("Up to where the bus has everything.", lambda: watch.relay_position),
        "behind": ("Positions of the log that the bus does not have.", lambda: watch.relay_behind),
        "stopped": (
            "1 while the relay stands still before a damaged event.",
            lambda: watch.is_relay_stopped,
        ),
    }
    for name, (help_text, read) in relay.items():
        registry.gauge(f"stretto_kernel_relay_{name}", help_text, read=read)
    registry.gauge(
        "stretto_kernel_snapshots",
        "Large runs with a snapshot of their fold, as of the last look at the views.",
        read=lambda: watch.standing.snapshot_count,
    )
    registry.gauge(
        "stretto_kernel_log_position",
        "The newest position of the log, as of the last look at the views.",
        read=lambda: watch.standing.log_position,
    )
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
