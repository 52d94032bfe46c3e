"""What the shell reads from a run: what to offer, to signal, to show.

Each answer costs the task or the few values it is about, never the run, except where a name says
`every_`. Reading never changes the state. Instants are UTC nanoseconds; READY or WAITING(backoff)
is computed here against the reader's `now_ns`, because time makes nothing true in the fold.
Every query of a task raises TaskNotFound for a name that the run does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import run_pb2 as pb
from stretto_core.ids import RequestId, SessionId, TaskName, WorkerId

from stretto_kernel.domain.run.bindings import Manifest, resolve_manifest
from stretto_kernel.domain.run.holders import find
from stretto_kernel.domain.run.plan import Labels
from stretto_kernel.domain.run.state import RunState
from stretto_kernel.domain.run.stopping import (
    current_lease,
    is_dispatchable,
    is_given_up,
    is_held,
    is_resetting,
    stop_deadline_ns,
)
from stretto_kernel.domain.run.task import (
    Blocked,
    Cancelled,
    Failed,
    Leased,
    Open,
    Skipped,
    Succeeded,
)
from stretto_kernel.domain.run.timers import Due, run_due, task_due

__all__ = [
    "Due",
    "Manifest",
    "Offer",
    "OpenLease",
    "StopSignal",
    "every_due",
    "every_offer",
    "every_open_lease",
    "is_held",
    "manifest",
    "offer",
    "open_lease",
    "run_due",
    "run_state",
    "stop_signal",
    "task_counts",
    "task_due",
    "task_state",
    "wait_reason",
    "wake_up",
]


class Offer(NamedTuple):
    """A task that may be leased, from `not_before_ns` on.

    epoch: its newest granted; the lease will bear the next.
    ready_ns: when it first became ready in this activation: a task whose attempt was lost or failed
        keeps its age, and does not go behind everything that became ready since.
    """

    task: TaskName
    epoch: int
    queue: str
    executor: str
    priority: int
    fairness_key: str
    ready_ns: int
    not_before_ns: int
    required_labels: Labels
    preferred_labels: Labels


class OpenLease(NamedTuple):
    """A lease whose holder's word counts.

    attempt_deadline_ns: when its attempt timeout passes; None = never.
    request_id: the LeaseWork call that it was granted to; "" = a work stream.
    """

    task: TaskName
    epoch: int
    activation: int
    attempt: int
    worker_id: WorkerId
    session_id: SessionId
    leased_ns: int
    ttl_ns: int
    queue: str
    attempt_deadline_ns: int | None
    request_id: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal:
    """A lease holder must be told to stop cooperatively, at the latest by `deadline_ns`."""

    task: TaskName
    epoch: int
    deadline_ns: int
    reason: str


def offer(state: RunState, task: TaskName) -> Offer | None:
    """Return the task as it may be offered, or None when it may not."""
    record = find(state, task)
    phase = record.phase
    if not isinstance(phase, Open) or not is_dispatchable(state, record):
        return None
    spec = record.spec
    return Offer(
        task=record.name,
        epoch=record.epoch,
        queue=spec.queue,
        executor=spec.executor,
        priority=spec.priority,
        fairness_key=spec.fairness_key or state.policies.fairness_key,
        ready_ns=record.ready_ns,
        not_before_ns=phase.not_before_ns,
        required_labels=spec.required_labels,
        preferred_labels=spec.preferred_labels,
    )


def every_offer(state: RunState) -> Iterator[Offer]:
    """Yield every task that may be offered: for recovery, and when a hold was lifted."""
    for task in state.open_tasks:
        if (found := offer(state, task)) is not None:
            yield found


def open_lease(state: RunState, task: TaskName) -> OpenLease | None:
    """Return the task's lease, or None when it has none or it is revoked."""
    record = find(state, task)
    lease = current_lease(state, record)
    if lease is None:
        return None
    attempt_ns = record.spec.timeouts.attempt_ns
    return OpenLease(
        task=record.name,
        epoch=record.epoch,
        activation=record.activation,
        attempt=lease.attempt,
        worker_id=lease.worker_id,
        session_id=lease.session_id,
        leased_ns=lease.leased_ns,
        ttl_ns=lease.ttl_ns,
        queue=record.spec.queue,
        attempt_deadline_ns=None if attempt_ns is None else lease.leased_ns + attempt_ns,
        request_id=lease.request_id,
    )


def every_open_lease(state: RunState) -> Iterator[OpenLease]:
    """Yield every lease whose holder's word counts."""
    for task in state.leased_tasks:
        if (found := open_lease(state, task)) is not None:
            yield found


def stop_signal(state: RunState, task: TaskName) -> StopSignal | None:
    """Return what the holder of the task's open lease must be told, or None.

    A lease that is no longer open is revoked: its holder is to end the work at once.
    """
    record = find(state, task)
    if current_lease(state, record) is None:
        return None
    deadline_ns = stop_deadline_ns(state, record)
    if deadline_ns is None:
        return None
    reason = state.stopping.reason if state.stopping else "no longer needed"
    return StopSignal(task=record.name, epoch=record.epoch, deadline_ns=deadline_ns, reason=reason)


def manifest(state: RunState, task: TaskName) -> Manifest:
    """Return what the attempt leased by the newest event is given.

    Ask right after that AttemptLeased was applied: the manifest follows from its version.
    """
    return resolve_manifest(state, find(state, task))


def every_due(state: RunState) -> Iterator[Due]:
    """Yield every timer of the run and its tasks: for recovery, and when a hold was lifted.

    Blocked tasks have none.
    """
    yield from run_due(state)
    for task in (*state.open_tasks, *state.leased_tasks):
        yield from task_due(state, task)


def task_state(state: RunState, task: TaskName, now_ns: int) -> pb.TaskState.ValueType:
    """Return where the task stands, run-wide facts included."""
    record = find(state, task)
    phase = record.phase
    match phase:
        case Succeeded():
            return pb.TASK_STATE_SUCCEEDED
        case Failed():
            return pb.TASK_STATE_FAILED
        case Cancelled():
            return pb.TASK_STATE_CANCELLED
        case Skipped():
            return pb.TASK_STATE_SKIPPED
    if is_given_up(state, record):
        return pb.TASK_STATE_CANCELLED
    match phase:
        case Blocked():
            return pb.TASK_STATE_PENDING
        case Leased():
            return pb.TASK_STATE_RUNNING
        case Open():
            waits = _open_wait(state, phase, now_ns) != pb.WAIT_REASON_UNSPECIFIED
            return pb.TASK_STATE_WAITING if waits else pb.TASK_STATE_READY
        case _:
            assert_never(phase)


def wait_reason(state: RunState, task: TaskName, now_ns: int) -> pb.WaitReason.ValueType:
    """Return what a WAITING task waits for."""
    record = find(state, task)
    if not isinstance(record.phase, Open) or is_given_up(state, record):
        return pb.WAIT_REASON_UNSPECIFIED
    return _open_wait(state, record.phase, now_ns)


def run_state(state: RunState) -> pb.RunState.ValueType:
    """Return where the run stands, as shown: PAUSED while held, CANCELLING while stopping."""
    if state.end is not None:
        return _END_STATES[type(state.end.event)]
    if state.start is None:
        return pb.RUN_STATE_UNSPECIFIED
    if state.stopping is not None:
        return pb.RUN_STATE_CANCELLING
    return pb.RUN_STATE_PAUSED if state.holds else pb.RUN_STATE_RUNNING


def task_counts(state: RunState, now_ns: int) -> pb.TaskCounts:
    """Return how many tasks stand in which state; costs the tasks in backoff at most."""
    shown = pb.TaskCounts(total_count=state.task_count)
    _add_counts(shown, state, clean_up=False)
    if state.clean_up_tasks:
        _add_counts(shown, state, clean_up=True)
    for task in state.backing_off:
        if is_held(state):
            break  # They were counted as waiting for the hold.
        if task_state(state, task, now_ns) == pb.TASK_STATE_WAITING:
            shown.ready_count -= 1
            shown.waiting_count += 1
    return shown


def wake_up(state: RunState) -> str | None:
    """Return the name of something that will move the run on; None only when it has ended."""
    if state.start is None or state.end is not None:
        return None
    for task in state.leased_tasks:
        if current_lease(state, state.tasks[task]) is not None:
            return f"lease of {task}"
    if is_held(state):
        return f"hold {state.holds.placed[0].hold_id}"
    if not state.sealed and state.stopping is None:
        return "deadline of the next slice"
    for task in state.open_tasks:
        if is_dispatchable(state, state.tasks[task]):
            return f"ready task {task}"
    due = next(iter(run_due(state)), None)
    return None if due is None else f"timer {type(due.timer).__name__}"


def _open_wait(state: RunState, phase: Open, now_ns: int) -> pb.WaitReason.ValueType:
    if is_held(state):
        return pb.WAIT_REASON_HOLD
    return pb.WAIT_REASON_BACKOFF if now_ns < phase.not_before_ns else pb.WAIT_REASON_UNSPECIFIED


def _add_counts(shown: pb.TaskCounts, state: RunState, *, clean_up: bool) -> None:
    counts = state.clean_up_counts if clean_up else state.counts
    shown.succeeded_count += counts[Succeeded.number]
    shown.failed_count += counts[Failed.number]
    shown.skipped_count += counts[Skipped.number]
    shown.cancelled_count += counts[Cancelled.number]
    blocked, ready, leased = counts[Blocked.number], counts[Open.number], counts[Leased.number]
    stopping = state.stopping
    gone = state.end is not None
    if clean_up:
        gone = gone or (state.cleaning_up is not None and state.cleaning_up.timed_out)
    elif stopping is None:
        gone = gone or is_resetting(state)
    else:
        gone = gone or stopping.grace_over
        shown.cancelled_count += blocked + ready
        blocked = ready = 0
    if gone:
        shown.cancelled_count += blocked + ready + leased
        return
    shown.pending_count += blocked
    shown.running_count += leased
    if is_held(state):
        shown.waiting_count += ready
    else:
        shown.ready_count += ready


_END_STATES: dict[type, pb.RunState.ValueType] = {
    ev.RunSucceeded: pb.RUN_STATE_SUCCEEDED,
    ev.RunFailed: pb.RUN_STATE_FAILED,
    ev.RunCancelled: pb.RUN_STATE_CANCELLED,
    ev.RunKilled: pb.RUN_STATE_KILLED,
}
