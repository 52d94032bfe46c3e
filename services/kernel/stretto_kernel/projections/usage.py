"""The view `usage`: how many attempts each task took, and how long they held a worker."""

from __future__ import annotations

from typing import Any, NamedTuple

from stretto.run.v1 import events_pb2 as ev

from stretto_kernel.domain.run.task import Leased
from stretto_kernel.projections.view import Step, View, names_of

_ENDS = (
    ev.AttemptSucceeded,
    ev.AttemptFailed,
    ev.AttemptLost,
    ev.AttemptReleased,
    ev.AttemptTimedOut,
    ev.AttemptCancelled,
    ev.TaskFailed,
)


class UsageRow(NamedTuple):
    """What a task used, or used more.

    attempt_count: leases granted. held_ns: from lease to end, of those that ended of themselves.
    """

    run_id: str
    task: str
    attempt_count: int
    held_ns: int


def usage_added(step: Step) -> tuple[UsageRow, ...]:
    """Return what the event adds to a task's usage."""
    event: Any = step.recorded.event
    kind = type(event)
    if kind is ev.AttemptLeased:
        return (UsageRow(step.run.state.run_id, event.task, 1, 0),)
    before = step.before
    if kind in _ENDS and isinstance(before, Leased):
        state = step.run.state
        return (UsageRow(state.run_id, event.task, 0, state.time_ns - before.leased_ns),)
    return ()


def add(kept: UsageRow, more: UsageRow) -> UsageRow:
    """Return both together."""
    return UsageRow(
        kept.run_id,
        kept.task,
        kept.attempt_count + more.attempt_count,
        kept.held_ns + more.held_ns,
    )


USAGE = View(
    name="usage",
    version=1,
    row=UsageRow,
    key_count=2,
    of_event=usage_added,
    concerns=names_of(ev.AttemptLeased, *_ENDS),
    merge=add,  # type: ignore[arg-type]
)
