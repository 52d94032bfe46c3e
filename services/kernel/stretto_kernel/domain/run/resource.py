"""Run and Task as protobuf resources: how a state is shown. Reads only."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import run_pb2 as pb
from stretto_core.clock import NS_PER_S
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.holders import find
from stretto_kernel.domain.run.queries import run_state, task_counts, task_state, wait_reason
from stretto_kernel.domain.run.state import RunState
from stretto_kernel.domain.run.stopping import is_given_up
from stretto_kernel.domain.run.task import Cancelled, Failed, Open, Skipped, Succeeded, TaskRecord


def run_name(state: RunState) -> str:
    """Return namespaces/*/runs/*."""
    return f"namespaces/{state.namespace}/runs/{state.run_id}"


def task_name(state: RunState, task: TaskName) -> str:
    """Return namespaces/*/runs/*/tasks/**: the work item a lease token names."""
    return f"namespaces/{state.namespace}/runs/{state.run_id}/tasks/{task}"


def to_run(
    state: RunState, now_ns: int, *, creator: Principal | None = None, with_input: bool = True
) -> pb.Run:
    """Return the run as read at `now_ns`. `creator` is in the envelope of version 1 only."""
    assert state.start is not None, "only a started run is shown"
    shown = pb.Run(
        name=run_name(state),
        run_id=state.run_id,
        display_name=state.start.display_name,
        state=run_state(state),
        labels=state.start.labels,
        task_counts=task_counts(state, now_ns),
        holds=[
            pb.Hold(
                hold_id=hold.hold_id, reason=hold.reason, create_time=_timestamp(hold.placed_ns)
            )
            for hold in state.holds.placed
        ],
        create_time=_timestamp(state.start.started_ns),
        update_time=_timestamp(state.time_ns),
        version=state.version,
        creator=creator,
        input=state.start.input if with_input else None,
        growing=not state.sealed,
        encrypted=state.key_id != 0,
    )
    if state.shredding is not None:
        shown.shred_time.FromNanoseconds(state.shredding.since_ns)
        shown.shred_reason = state.shredding.reason
    if state.end is not None:
        _show_end(shown, state)
    return shown


def to_task(state: RunState, task: TaskName, now_ns: int) -> pb.Task:
    """Return one task as read at `now_ns`. Raises TaskNotFound."""
    record = find(state, task)
    phase = record.phase
    shown = task_of_its_own(state, record)
    shown.state = task_state(state, task, now_ns)
    shown.wait_reason = wait_reason(state, task, now_ns)
    if shown.wait_reason == pb.WAIT_REASON_BACKOFF and isinstance(phase, Open):
        shown.not_before_time.FromNanoseconds(phase.not_before_ns)
    if not record.ended and (ended_ns := _given_up_ns(state, record)):
        shown.end_time.FromNanoseconds(ended_ns)
    return shown


def task_of_its_own(state: RunState, record: TaskRecord) -> pb.Task:
    """Return what a task's own events say: without its state, which the run has a part in."""
    spec = record.spec
    lease = record.last_lease
    phase = record.phase
    return pb.Task(
        name=task_name(state, record.name),
        task=record.name,
        activation=record.activation,
        attempt=lease.attempt if lease else 0,
        epoch=record.epoch,
        worker_id=lease.worker_id if lease else "",
        result=phase.result if isinstance(phase, Succeeded) else None,
        failure=record.failure,
        executor=spec.executor,
        queue=spec.queue,
        dependencies=[edge.task for edge in spec.dependencies],
        subtree_dependencies=[edge.task for edge in spec.dependencies if edge.subtree],
        spawner=record.spawner or "",
        clean_up=spec.clean_up,
        artifacts=phase.artifacts if isinstance(phase, Succeeded) else (),
        ready_time=_timestamp(record.ready_ns) if record.ready_ns else None,
        lease_time=_timestamp(lease.leased_ns) if lease else None,
        end_time=(
            _timestamp(phase.ended_ns)
            if isinstance(phase, Succeeded | Failed | Cancelled | Skipped)
            else None
        ),
    )


def _given_up_ns(state: RunState, record: TaskRecord) -> int:
    """When the run around it ended a task that had not ended of itself; 0 = it has not."""
    if not is_given_up(state, record):
        return 0
    if state.stopping is not None and not record.spec.clean_up:
        return state.stopping.since_ns
    return state.end.ended_ns if state.end is not None else 0


def _show_end(shown: pb.Run, state: RunState) -> None:
    assert state.end is not None
    shown.end_time.FromNanoseconds(state.end.ended_ns)
    match state.end.event:
        case ev.RunSucceeded() as succeeded:
            if succeeded.HasField("output"):
                shown.output.CopyFrom(succeeded.output)
        case ev.RunFailed() as failed:
            shown.failure.CopyFrom(failed.failure)
        case ev.RunCancelled() as cancelled:
            shown.end_reason = cancelled.reason
        case ev.RunKilled() as killed:
            shown.end_reason = killed.reason


def _timestamp(instant_ns: int) -> Timestamp:
    # Half the time of FromNanoseconds, which is Python: the views show a task at every event.
    return Timestamp(seconds=instant_ns // NS_PER_S, nanos=instant_ns % NS_PER_S)
