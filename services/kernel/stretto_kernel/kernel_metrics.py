"""What a kernel tells of itself in numbers: every gauge a row, read when it is asked.

The names begin with `stretto_kernel_`. What is of an ownership is 0 without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from stretto_core.clock import NS_PER_S
from stretto_core.telemetry.metrics import Registry

from stretto_kernel.followers import Followers
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import OwnedPartition
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.view_watch import ViewWatch
from stretto_kernel.tasklog.task_logs import TaskLogs

QUEUES_MEASURED_MAX = 100
"""Queues with metrics of their own; all others are one."""

Source = TypeVar("Source")
Gauges = Mapping[str, tuple[str, Callable[[Source], float]]]
"""Name, what it says, and where it is read."""

_OF_OWNERSHIP: Gauges[OwnedPartition] = {
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

_OF_KERNEL: Gauges[Kernel] = {
    "begun_weight": (
        "What clients begin and is not answered yet; beyond its limit starts are refused.",
        lambda kernel: kernel.admission.weight,
    ),
    "begun_refused": (
        "Calls refused for that since the start.",
        lambda kernel: kernel.admission.refused_count,
    ),
    "run_keys_made": (
        "Data keys of runs made since the start.",
        lambda kernel: kernel.ports.keys.made_count,
    ),
    "run_keys_destroyed": (
        "Data keys of runs destroyed since the start.",
        lambda kernel: kernel.ports.keys.destroyed_count,
    ),
    "snapshots_used": (
        "Folds that began with a snapshot since the start.",
        lambda kernel: 0 if kernel.ports.snapshots is None else kernel.ports.snapshots.used_count,
    ),
    "blob_uploads_open": ("Blobs on their way in.", lambda kernel: kernel.ports.blobs.upload_count),
    "blob_stored_bytes": (
        "Bytes of blobs stored since the start.",
        lambda kernel: kernel.ports.blobs.stored_bytes_count,
    ),
}

_OF_TASK_LOGS: Gauges[TaskLogs] = {
    "task_log_readers": ("Readers of task logs.", lambda logs: logs.reader_count),
    "task_log_pending_bytes": (
        "Bytes that wait to be stored.",
        lambda logs: logs.appender.pending_bytes,
    ),
    "task_log_stored_bytes": (
        "Bytes stored since the start.",
        lambda logs: logs.appender.stored_bytes,
    ),
    "task_log_refused_bytes": (
        "Bytes not stored since the start: too many at once, or the store was down.",
        lambda logs: logs.appender.refused_bytes,
    ),
}

_OF_FOLLOWERS: Gauges[Followers] = {
    "run_watchers": ("Who watches runs.", lambda followers: followers.watchers.watcher_count),
    "log_subscribers": (
        "Who follows the log.",
        lambda followers: followers.feed.subscriber_count,
    ),
    "log_subscribers_cut_off": (
        "Subscribers cut off since the start, because they did not take what came.",
        lambda followers: followers.feed.cut_count,
    ),
    "log_buffered_bytes": (
        "What waits for subscribers.",
        lambda followers: followers.feed.buffered_bytes,
    ),
}

_OF_VIEWS: Gauges[ViewWatch] = {
    "relay_position": ("Up to where the bus has everything.", lambda watch: watch.relay_position),
    "relay_behind": (
        "Positions of the log that the bus does not have.",
        lambda watch: watch.relay_behind,
    ),
    "relay_stopped": (
        "1 while the relay stands still before a damaged event.",
        lambda watch: watch.is_relay_stopped,
    ),
    "chores_failing": (
        "Chores of the projector that failed the last time, such as the sweep of blobs.",
        lambda watch: len(watch.standing.failing_chores),
    ),
    "snapshots": (
        "Large runs with a snapshot of their fold, as of the last look at the views.",
        lambda watch: watch.standing.snapshot_count,
    ),
    "log_position": (
        "The newest position of the log, as of the last look at the views.",
        lambda watch: watch.standing.log_position,
    ),
}


class _OneView(NamedTuple):
    watch: ViewWatch
    name: str


_OF_EACH_VIEW: Gauges[_OneView] = {
    "view_position": (
        "How far a view has followed the log.",
        lambda view: view.watch.position(view.name),
    ),
    "view_stopped": (
        "1 while a view stands still before an event that it cannot take.",
        lambda view: view.watch.is_stopped(view.name),
    ),
    "view_events_missing": (
        "Events of the log up to a view's position that it was not given: 0, or a bug.",
        lambda view: view.watch.events_missing(view.name),
    ),
}


def add_metrics(registry: Registry, kernel: Kernel) -> None:
    """Let the registry tell how the kernel stands."""
    for name, (help_text, read) in _OF_OWNERSHIP.items():
        registry.gauge(f"stretto_kernel_{name}", help_text, read=partial(_read, kernel, read))
    _add(registry, _OF_KERNEL, kernel)
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


def add_task_log_metrics(registry: Registry, task_logs: TaskLogs) -> None:
    """Let the registry tell how the task logs stand."""
    _add(registry, _OF_TASK_LOGS, task_logs)


def add_follower_metrics(registry: Registry, followers: Followers) -> None:
    """Let the registry tell how many follow."""
    _add(registry, _OF_FOLLOWERS, followers)


def add_view_metrics(registry: Registry, watch: ViewWatch) -> None:
    """Let the registry tell how the views and the relay stand."""
    _add(registry, _OF_VIEWS, watch)
    for view in VIEWS:
        _add(registry, _OF_EACH_VIEW, _OneView(watch, view.name), view=view.name)


def _add(registry: Registry, gauges: Gauges[Source], source: Source, **labels: str) -> None:
    for name, (help_text, read) in gauges.items():
        registry.gauge(f"stretto_kernel_{name}", help_text, read=partial(read, source), **labels)


def _read(kernel: Kernel, read: Callable[[OwnedPartition], float]) -> float:
    return read(kernel.partition) if kernel.is_owner else 0.0


def _read_queues(kernel: Kernel, index: int) -> dict[str, float]:
    if not kernel.is_owner:
        return {}
    counts = kernel.partition.queues.counts(QUEUES_MEASURED_MAX)
    return {name: count[index] for name, count in counts.items()}
