"""Recovery: which runs have not ended, so that they are folded after a start.

The view `run_index` answers for everything up to its cursor; the log after the cursor tells the
rest by the types of its events alone. Without the view one pass over the log does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from stretto.run.v1 import events_pb2 as ev
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import RunId

from stretto_kernel.app.background_folds import NO_DEADLINE_NS

STARTED_TYPE = ev.RunStarted.DESCRIPTOR.full_name
ENDED_TYPES = frozenset(
    event.DESCRIPTOR.full_name
    for event in (ev.RunSucceeded, ev.RunFailed, ev.RunCancelled, ev.RunKilled)
)
RETRIED_TYPE = ev.RunRetried.DESCRIPTOR.full_name
GROWING_TYPES = frozenset(
    event.DESCRIPTOR.full_name for event in (ev.TasksAdded, ev.TasksSpawned, ev.AttemptSucceeded)
)


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that has not ended.

    limited_queues: the queues with a limit that it uses; None = not known, it may use any.
    """

    run_id: RunId
    deadline_ns: int = NO_DEADLINE_NS
    limited_queues: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ActiveRuns:
    """The runs that had not ended at `position`."""

    position: int
    runs: tuple[ActiveRun, ...]


class RunIndex(Protocol):
    """The view that knows the active runs; trails the log."""

    async def active_runs(self) -> ActiveRuns:
        """Return the active runs at the view's cursor; position 0 and none without a view."""
        ...


class NoRunIndex:
    """Knows nothing: recovery reads the whole log."""

    async def active_runs(self) -> ActiveRuns:
        """Return that nothing is known."""
        return ActiveRuns(0, ())


async def find_active_runs(log: EventLog, index: RunIndex) -> list[ActiveRun]:
    """Return the runs that have not ended, those with the oldest deadline first."""
    known = await index.active_runs()
    if known.position > await log.position():
        known = ActiveRuns(0, ())  # A view of a future that the record, restored, does not have.
    active = {run.run_id: run for run in known.runs}
    position, more = known.position, True
    while more:
        page = await log.read_all(after_position=position)
        for event in page.events:
            run_id = RunId(event.stream)
            if event.type in (STARTED_TYPE, RETRIED_TYPE):
                active[run_id] = ActiveRun(run_id)
            elif event.type in ENDED_TYPES:
                active.pop(run_id, None)
            elif event.type in GROWING_TYPES and run_id in active:
                # Its new tasks may be in a queue that the view does not know yet.
                active[run_id] = replace(active[run_id], limited_queues=None)
        if page.events:
            position = page.events[-1].position
        more = page.more
    return sorted(active.values(), key=lambda run: (run.deadline_ns, run.run_id))
