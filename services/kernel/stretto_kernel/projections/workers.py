"""The view `workers`: who was ever given work, how often, and when a fact last told of it.

What is live is no fact: who is connected now is known to the kernel alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stretto.run.v1 import events_pb2 as ev
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.task import Leased
from stretto_kernel.projections.view import Step, View, names_of

_OWN_WORDS = (ev.AttemptSucceeded, ev.AttemptFailed, ev.AttemptReleased, ev.AttemptCancelled)
"""Facts that a worker reported itself: it was there."""


class WorkerRow(NamedTuple):
    """A worker, or what is added to what is known of it.

    session_id: its newest process. lease_count: leases granted. first_ns, last_ns: of facts.
    """

    worker_id: str
    session_id: str
    lease_count: int
    first_ns: int
    last_ns: int


def workers_seen(step: Step) -> tuple[WorkerRow, ...]:
    """Return what the event tells of a worker."""
    event: Any = step.recorded.event
    now_ns = step.recorded.time_ns
    if type(event) is ev.AttemptLeased:
        lease = step.run.state.tasks[TaskName(event.task)].last_lease
        assert lease is not None, "an attempt begins with its lease"
        return (WorkerRow(lease.worker_id, lease.session_id, 1, now_ns, now_ns),)
    before = step.before
    if type(event) in _OWN_WORDS and isinstance(before, Leased):
        return (WorkerRow(before.worker_id, before.session_id, 0, now_ns, now_ns),)
    return ()


def both(kept: WorkerRow, more: WorkerRow) -> WorkerRow:
    """Return both together; times of different runs may cross."""
    newest = more if more.last_ns >= kept.last_ns else kept
    return WorkerRow(
        kept.worker_id,
        newest.session_id,
        kept.lease_count + more.lease_count,
        min(kept.first_ns, more.first_ns),
        newest.last_ns,
    )


WORKERS = View(
    name="workers",
    version=2,
    row=WorkerRow,
    key_count=1,
    of_event=workers_seen,
    concerns=names_of(ev.AttemptLeased, *_OWN_WORDS),
    merge=both,  # type: ignore[arg-type]
)
