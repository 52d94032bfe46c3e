"""When a run ends, and how. The end is in the same append as the fact that ended its last task.

Looking past that fact costs what the fact itself costs: it is applied to a branch of the state,
which shares everything it does not change.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto.common.v1.failure_pb2 import Failure
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1.plan_pb2 import JOIN_KIND_ALL_SUCCEEDED
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.bindings import Unresolved, resolve_output
from stretto_kernel.domain.run.evolve import evolve
from stretto_kernel.domain.run.joins import may_open
from stretto_kernel.domain.run.output_schema import REASON, violations
from stretto_kernel.domain.run.state import RunEvent, RunState
from stretto_kernel.domain.run.stopping import clean_up_over, ordinary_over
from stretto_kernel.domain.run.task import Blocked, Leased, Open

_NEVER_END: frozenset[type[RunEvent]] = frozenset(
    {
        ev.RunStarted,  # A plan has a task without dependencies, or grows.
        ev.AttemptLeased,
        ev.AttemptProgressed,
        ev.TasksSpawned,
        ev.WriteRefused,
        ev.HoldPlaced,
        ev.HoldLifted,
        ev.BoardEntriesWritten,
        ev.BoardEntriesDeleted,
        ev.RunSucceeded,
        ev.RunFailed,
        ev.RunCancelled,
        ev.RunKilled,
        ev.RunShredded,
    }
)
_ALWAYS_LOOK: frozenset[type[RunEvent]] = frozenset(
    {
        ev.RunGraceEnded,  # These two revoke leases.
        ev.RunCleanUpTimedOut,
        ev.RunRetried,  # What was named may wait for something that was not.
        ev.TasksReopened,
    }
)
_STOPS: frozenset[type[RunEvent]] = frozenset(
    {
        ev.RunCancelRequested,
        ev.RunTimedOut,
        ev.PlanExpired,
    }
)
"""By type: `isinstance` of a protobuf class costs a call of its metaclass for each."""


def with_end(state: RunState, events: tuple[RunEvent, ...], now_ns: int) -> tuple[RunEvent, ...]:
    """Return the events, followed by the run's terminal fact when nothing is left after them."""
    if not events or not _may_end(state, events):
        return events
    ahead = state.branch()
    for event in events:
        evolve(ahead, Recorded(event, ahead.version + 1, max(now_ns, ahead.time_ns)))
    return (*events, *conclusion(ahead))


def conclusion(state: RunState) -> tuple[RunEvent, ...]:
    """Return the terminal fact of a run in which nothing is left to happen, else ()."""
    if state.end is not None or not (ordinary_over(state) and clean_up_over(state)):
        return ()
    stopping = state.stopping
    if stopping is not None and stopping.cancelled:
        return (ev.RunCancelled(reason=stopping.reason),)
    if failure := state.failure or state.clean_up_failure:
        return (ev.RunFailed(failure=failure),)
    try:
        output = resolve_output(state)
    except Unresolved as unresolved:
        return (ev.RunFailed(failure=_of_run(unresolved.failure)),)
    schema = state.policies.output_schema_json
    if schema and output is not None and (violated := violations(schema, output)):
        failure = Failure(reason=REASON, message=f"it violates its output schema: {violated}")
        return (ev.RunFailed(failure=_of_run(failure)),)
    return (ev.RunSucceeded(output=output),)


def _of_run(failure: Failure) -> Failure:
    return Failure(reason=failure.reason, message=f"the run's output: {failure.message}")


def _may_end(state: RunState, events: Sequence[RunEvent]) -> bool:
    """Whether to look ahead: cheap, and never False when the run ends with these events."""
    event = events[-1]
    kind = type(event)
    if kind in _NEVER_END:
        return False
    if kind in _ALWAYS_LOOK:
        return True
    if isinstance(event, ev.TasksAdded):
        # A task without dependencies may be leased at once; others may all be skipped.
        return event.sealed and all(task.dependencies for task in event.tasks)
    leased = state.clean_up_counts[Leased.number]
    if state.stopping is None or not state.stopping.grace_over:  # After it, they are revoked.
        leased += state.counts[Leased.number]
    if leased > 1:
        return False  # The event ends at most one of them, and the run waits for every lease.
    if state.stopping is not None or state.policies.fails_fast:
        return True
    if kind in _STOPS:
        return True
    # Without a stop the run waits for every task that may be leased, too.
    if leased + state.counts[Open.number] + state.clean_up_counts[Open.number] > 1:
        return False
    return not (isinstance(event, ev.AttemptSucceeded) and _opens_another(state, event))


def _opens_another(state: RunState, event: ev.AttemptSucceeded) -> bool:
    """Whether a task waits for nothing but this success: the next link of a chain."""
    for name in state.tasks[TaskName(event.task)].dependents:
        next_ = state.tasks[name]
        waits = isinstance(next_.phase, Blocked) and next_.waiting_count == 1
        if waits and next_.broken_count == 0 and may_open(state, next_):
            return next_.spec.join.kind == JOIN_KIND_ALL_SUCCEEDED
    return False
