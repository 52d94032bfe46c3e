"""Builds what a worker is told about a lease. Pure but for the lease keys it is given."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from stretto.common.v1 import lease_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.eventlog.recorded import LeaseKeys
from stretto_core.ids import Namespace, RunId, TaskName

from stretto_kernel.dispatch.lease_keys import lease_secret
from stretto_kernel.domain.run import RunState
from stretto_kernel.domain.run.queries import OpenLease, StopSignal, manifest


def run_name(namespace: Namespace, run_id: RunId) -> str:
    """The run's resource name."""
    return f"namespaces/{namespace}/runs/{run_id}"


def work_item_name(namespace: Namespace, run_id: RunId, task: TaskName) -> str:
    """The task's resource name, which also names it as a work item."""
    return f"namespaces/{namespace}/runs/{run_id}/tasks/{task}"


def parse_work_item(text: str) -> tuple[Namespace, RunId, TaskName] | None:
    """The parts of a work item's name; None when it is none."""
    parts = text.split("/", 5)
    if len(parts) != 6 or (parts[0], parts[2], parts[4]) != ("namespaces", "runs", "tasks"):
        return None
    return Namespace(parts[1]), RunId(parts[3]), TaskName(parts[5])


def build_assignment(state: RunState, lease: OpenLease, keys: LeaseKeys) -> work_pb2.Assignment:
    """Return the assignment of a lease that the newest fact of the run granted."""
    record = state.tasks[lease.task]
    work_item = work_item_name(state.namespace, state.run_id, lease.task)
    given = manifest(state, lease.task)
    assignment = work_pb2.Assignment(
        token=lease_pb2.LeaseToken(
            work_item=work_item,
            epoch=lease.epoch,
            secret=lease_secret(keys.current, work_item, lease.epoch),
        ),
        kind=lease_pb2.WORK_ITEM_KIND_TASK,
        run=run_name(state.namespace, state.run_id),
        task=lease.task,
        activation=lease.activation,
        attempt=lease.attempt,
        executor=record.spec.executor,
        arguments_json=record.spec.arguments_json,
        inputs=given.inputs,
        last_details=record.details,
        ttl=duration(lease.ttl_ns),
        may_spawn=record.spec.may_spawn,
        board_revisions=given.revisions,
    )
    if lease.attempt_deadline_ns is not None:
        assignment.attempt_deadline_time.CopyFrom(timestamp(lease.attempt_deadline_ns))
    return assignment


def build_signal(
    namespace: Namespace,
    run_id: RunId,
    kind: work_pb2.SignalKind.ValueType,
    signal: StopSignal,
) -> work_pb2.Signal:
    """Return what tells the holder of a lease to stop."""
    built = build_revocation(namespace, run_id, signal.task, signal.epoch)
    built.kind = kind
    built.deadline_time.CopyFrom(timestamp(signal.deadline_ns))
    built.reason = signal.reason
    return built


def build_revocation(
    namespace: Namespace, run_id: RunId, task: TaskName, epoch: int
) -> work_pb2.Signal:
    """Return what tells a holder that its lease is no longer its own."""
    work_item = work_item_name(namespace, run_id, task)
    return work_pb2.Signal(
        token=lease_pb2.LeaseToken(work_item=work_item, epoch=epoch),
        kind=work_pb2.SIGNAL_KIND_REVOKE,
    )


def duration(span_ns: int) -> Duration:
    """A span as protobuf carries it."""
    seconds, nanos = divmod(span_ns, NS_PER_S)
    return Duration(seconds=seconds, nanos=nanos)


def timestamp(instant_ns: int) -> Timestamp:
    """An instant as protobuf carries it."""
    seconds, nanos = divmod(instant_ns, NS_PER_S)
    return Timestamp(seconds=seconds, nanos=nanos)
