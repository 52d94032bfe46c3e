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
from stretto_kernel.domain.run.task import Ended, Open, Succeeded, TaskRecord


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
    shown = run_of_its_phase(state, creator=creator)
    shown.task_counts.CopyFrom(task_counts(state, now_ns))
    _put(shown.update_time, state.time_ns)
    shown.version = state.version
    if with_input and state.start.input is not None:
        shown.input.CopyFrom(state.start.input)
    return shown


def run_of_its_phase(state: RunState, *, creator: Principal | None = None) -> pb.Run:
    """Return what only run-wide facts change of the run, without its input."""
    start = state.start
    assert start is not None, "only a started run is shown"
    shown = pb.Run(
        name=run_name(state),
        run_id=state.run_id,
        display_name=start.display_name,
        state=run_state(state),
        labels=start.labels or None,
        creator=creator,
        growing=not state.sealed,
        encrypted=state.key_id != 0,
    )
    _put(shown.create_time, start.started_ns)
    for hold in state.holds.placed:
        held = shown.holds.add(hold_id=hold.hold_id, reason=hold.reason)
        _put(held.create_time, hold.placed_ns)
    if state.shredding is not None:
        _put(shown.shred_time, state.shredding.since_ns)
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
        _put(shown.not_before_time, phase.not_before_ns)
    if not record.ended and (ended_ns := _given_up_ns(state, record)):
        _put(shown.end_time, ended_ns)
    return shown


def task_of_its_own(state: RunState, record: TaskRecord) -> pb.Task:
    """Return what a task's own events say: without its state, which the run has a part in."""
    shown = task_as_planned(state, record)
    show_course(shown, record)
    return shown


def task_as_planned(state: RunState, record: TaskRecord) -> pb.Task:
    """Return what no event changes of a task."""
    spec = record.spec
    shown = pb.Task(
        name=task_name(state, record.name),
        task=record.name,
        executor=spec.executor,
        queue=spec.queue,
        spawner=record.spawner or "",
        clean_up=spec.clean_up,
    )
    for edge in spec.dependencies:
        shown.dependencies.append(edge.task)
        if edge.subtree:
            shown.subtree_dependencies.append(edge.task)
    return shown


def show_course(shown: pb.Task, record: TaskRecord) -> None:
    """Add to a task what its own events changed. The views do so at every event of a task."""
    lease = record.last_lease
    phase = record.phase
    shown.activation = record.activation
    shown.epoch = record.epoch
    if lease is not None:
        shown.attempt = lease.attempt
        shown.worker_id = lease.worker_id
        _put(shown.lease_time, lease.leased_ns)
    if record.failure is not None:
        shown.failure.CopyFrom(record.failure)
    if record.ready_ns:
        _put(shown.ready_time, record.ready_ns)
    if isinstance(phase, Succeeded):
        shown.result.CopyFrom(phase.result)
        shown.artifacts.extend(phase.artifacts)
    if record.ended:
        assert isinstance(phase, Ended)
        _put(shown.end_time, phase.ended_ns)


def _given_up_ns(state: RunState, record: TaskRecord) -> int:
    """When the run around it ended a task that had not ended of itself; 0 = it has not."""
    if not is_given_up(state, record):
        return 0
    if state.stopping is not None and not record.spec.clean_up:
        return state.stopping.since_ns
    return state.end.ended_ns if state.end is not None else 0


def _show_end(shown: pb.Run, state: RunState) -> None:
    assert state.end is not None
    _put(shown.end_time, state.end.ended_ns)
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


def _put(stamp: Timestamp, instant_ns: int) -> None:
    # A third of the time of FromNanoseconds, and of a Timestamp that is made and copied.
    stamp.seconds, stamp.nanos = divmod(instant_ns, NS_PER_S)
