"""The view `usage`: attempts of each run's queues and workers, and how long they were held.

Every event counts twice: for its run, and for all runs of its namespace together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from stretto.run.v1 import events_pb2 as ev
from stretto_core.ids import TaskName

from stretto_kernel.domain.run import RunState
from stretto_kernel.domain.run.task import Leased, TaskRecord
from stretto_kernel.projections.view import Step, View, names_of

ALL_RUNS = ""
"""Stands where a row's run does, for all of its namespace."""
_ENDS = (
    ev.AttemptSucceeded,
    ev.AttemptFailed,
    ev.AttemptLost,
    ev.AttemptReleased,
    ev.AttemptTimedOut,
    ev.AttemptCancelled,
    ev.TaskFailed,
)
_REVOKING = (
    ev.RunGraceEnded,
    ev.RunCleanUpTimedOut,
    ev.RunSucceeded,
    ev.RunFailed,
    ev.RunCancelled,
    ev.RunKilled,
)
"""Facts about a whole run that end leases which no event of their own ends."""


class UsageRow(NamedTuple):
    """What was used of a worker for a queue's tasks, or used more.

    run_id: ALL_RUNS = by every run of the namespace. attempt_count: leases granted. held_ns: from
    lease to end, of those that ended. succeeded_count, succeeded_ns: of those with the result.
    """

    namespace: str
    run_id: str
    queue: str
    worker_id: str
    attempt_count: int
    ended_count: int
    succeeded_count: int
    held_ns: int
    succeeded_ns: int


def usage_added(step: Step) -> Sequence[UsageRow]:
    """Return what the event adds to the usage of its run, and of its namespace."""
    event: Any = step.recorded.event
    kind, state = type(event), step.run.state
    if kind in _REVOKING:
        if not state.leased_tasks:
            return ()
        revoked = _revoked(state, kind)
        return [row for record, lease in revoked for row in _ended(state, record, lease, False)]
    record = state.tasks[TaskName(event.task)]
    if kind is ev.AttemptLeased:
        return _rows(state, record, 1, 0, 0, 0, 0)
    if isinstance(step.before, Leased):
        return _ended(state, record, step.before, kind is ev.AttemptSucceeded)
    if kind is ev.AttemptSucceeded:
        # The late word of a holder that was given up: its time was counted then.
        return _rows(state, record, 0, 0, 1, 0, 0)
    return ()


def add(kept: UsageRow, more: UsageRow) -> UsageRow:
    """Return both together."""
    namespace, run_id, queue, worker_id, attempts, ended, succeeded, held_ns, succeeded_ns = kept
    _, _, _, _, more_attempts, more_ended, more_succeeded, more_held_ns, more_succeeded_ns = more
    return UsageRow(
        namespace,
        run_id,
        queue,
        worker_id,
        attempts + more_attempts,
        ended + more_ended,
        succeeded + more_succeeded,
        held_ns + more_held_ns,
        succeeded_ns + more_succeeded_ns,
    )


def _ended(
    state: RunState, record: TaskRecord, lease: Leased, succeeded: bool
) -> Sequence[UsageRow]:
    held_ns = state.time_ns - lease.leased_ns
    return _rows(state, record, 0, 1, int(succeeded), held_ns, held_ns if succeeded else 0)


def _rows(state: RunState, record: TaskRecord, *used: int) -> Sequence[UsageRow]:
    lease = record.last_lease
    assert lease is not None, "an attempt begins with its lease"
    namespace, queue, worker_id = state.namespace, record.spec.queue, lease.worker_id
    return (
        UsageRow(namespace, state.run_id, queue, worker_id, *used),
        UsageRow(namespace, ALL_RUNS, queue, worker_id, *used),
    )


def _revoked(state: RunState, kind: type[Any]) -> Iterator[tuple[TaskRecord, Leased]]:
    """Yield the tasks whose leases that fact ended: those that no such fact ended before it."""
    grace_over = state.stopping is not None and state.stopping.grace_over
    clean_up_over = state.cleaning_up is not None and state.cleaning_up.timed_out
    ends_ordinary = kind is not ev.RunCleanUpTimedOut and (
        kind is ev.RunGraceEnded or not grace_over
    )
    ends_clean_up = kind is not ev.RunGraceEnded and (
        kind is ev.RunCleanUpTimedOut or not clean_up_over
    )
    for name in state.leased_tasks:
        record = state.tasks[name]
        lease = record.phase
        assert isinstance(lease, Leased), "as the state keeps them"
        # A retried run may end before all its tasks are re-opened: those leases ended long ago.
        is_of_this_life = lease.leased_ns >= state.opened_ns
        if is_of_this_life and (ends_clean_up if record.spec.clean_up else ends_ordinary):
            yield record, lease


USAGE = View(
    name="usage",
    version=2,
    row=UsageRow,
    key_count=4,
    of_event=usage_added,
    concerns=names_of(ev.AttemptLeased, *_ENDS, *_REVOKING),
    merge=add,  # type: ignore[arg-type]
)
