"""The view `run_phases`: what each run does to its tasks, from which version on.

A run-wide fact (cancel, kill, fail-fast, a hold) changes one row here and none of `tasks`: a task's
row says how its own events leave it, and the effective state follows from both.
"""

from __future__ import annotations

from typing import NamedTuple

from stretto_kernel.domain.run.queries import is_held, run_state
from stretto_kernel.domain.run.resource import run_of_its_phase
from stretto_kernel.domain.run.stopping import is_resetting
from stretto_kernel.projections.view import FoldedRun, Step, View

GIVEN_UP_NONE = 0
GIVEN_UP_UNLEASED = 1
GIVEN_UP_ALL = 2


class RunPhaseRow(NamedTuple):
    """The run from a version on, until the next row of it.

    ordinary: which ordinary tasks that have not ended of themselves are given up: none, those that
    nobody holds, all. clean_up: whether such clean-up tasks are. given_up_ns: since when ordinary
    ones are; 0 = not. ended_ns: when the run ended; 0 = it has not. held: open tasks wait.
    shown: the serialised Run resource without what changes with every event, and without input.
    """

    run_id: str
    from_version: int
    state: int
    ordinary: int
    clean_up: bool
    held: bool
    given_up_ns: int
    ended_ns: int
    shown: bytes


def phase_row(run: FoldedRun) -> RunPhaseRow:
    """Return what the run does to its tasks as of its newest event."""
    state = run.state
    stopping, cleaning, end = state.stopping, state.cleaning_up, state.end
    ordinary = GIVEN_UP_NONE
    if end is not None or is_resetting(state):
        ordinary = GIVEN_UP_ALL
    elif stopping is not None:
        ordinary = GIVEN_UP_ALL if stopping.grace_over else GIVEN_UP_UNLEASED
    ended_ns = end.ended_ns if end is not None else 0
    shown = run_of_its_phase(state, creator=run.creator)
    return RunPhaseRow(
        run_id=state.run_id,
        from_version=state.version,
        state=run_state(state),
        ordinary=ordinary,
        clean_up=end is not None or (cleaning is not None and cleaning.timed_out),
        held=is_held(state),
        given_up_ns=stopping.since_ns if stopping is not None else ended_ns,
        ended_ns=ended_ns,
        shown=shown.SerializeToString(deterministic=True),
    )


def phases_changed(step: Step) -> tuple[RunPhaseRow, ...]:
    """Return the run's row when a run-wide fact came."""
    return (phase_row(step.run),) if step.touched.run_wide else ()


RUN_PHASES = View(
    name="run_phases", version=2, row=RunPhaseRow, key_count=2, of_event=phases_changed
)
