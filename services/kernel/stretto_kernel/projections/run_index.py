"""The view `run_index`: one row a run. ListRuns reads it, and recovery."""

from __future__ import annotations

import json
from typing import NamedTuple

from stretto_core.ids import Namespace, RunId

from stretto_kernel.domain.run.queries import run_due, run_state
from stretto_kernel.domain.run.resource import to_run
from stretto_kernel.projections.view import FoldedRun, View


class RunRow(NamedTuple):
    """A run as the view shows it.

    next_due_ns: the run's own next deadline; None = none. queues: every queue its tasks name, with
    commas between (their names have none). shown: the serialised Run resource without input and
    output.
    """

    run_id: RunId
    namespace: Namespace
    version: int
    state: int
    display_name: str
    labels: str
    create_ns: int
    ended: bool
    next_due_ns: int | None
    queues: str
    shown: bytes


def run_row(run: FoldedRun) -> RunRow:
    """Return the row of a run."""
    state = run.state
    assert state.start is not None, "a run begins with its start"
    shown = to_run(state, state.time_ns, creator=run.creator, with_input=False)
    shown.ClearField("output")
    return RunRow(
        run_id=state.run_id,
        namespace=state.namespace,
        version=state.version,
        state=run_state(state),
        display_name=state.start.display_name,
        labels=json.dumps(state.start.labels, sort_keys=True),
        create_ns=state.start.started_ns,
        ended=state.end is not None,
        next_due_ns=min((due.at_ns for due in run_due(state)), default=None),
        queues=",".join(sorted(run.queues)),
        shown=shown.SerializeToString(deterministic=True),
    )


RUN_INDEX = View(name="run_index", version=2, row=RunRow, key_count=1, of_run=run_row)
