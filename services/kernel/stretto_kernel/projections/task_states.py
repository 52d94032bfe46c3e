"""A task as of any version of its run, from the rows of two views: `tasks` and `run_phases`.

The one place where both are put together: every count, filter and read of the past goes by
`state_of`. It says what `queries.task_state` says of the folded run; a model test holds the two
against each other at every version of random histories.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

from stretto.run.v1 import run_pb2 as pb

from stretto_kernel.domain.run.task import (
    PHASE_COUNT,
    Blocked,
    Cancelled,
    Failed,
    Leased,
    Open,
    Skipped,
    Succeeded,
)
from stretto_kernel.projections.run_phases import GIVEN_UP_ALL, GIVEN_UP_UNLEASED, RunPhaseRow
from stretto_kernel.projections.tasks import TaskRow

_OWN_STATES = {
    Blocked.number: pb.TASK_STATE_PENDING,
    Open.number: pb.TASK_STATE_READY,
    Leased.number: pb.TASK_STATE_RUNNING,
    Succeeded.number: pb.TASK_STATE_SUCCEEDED,
    Failed.number: pb.TASK_STATE_FAILED,
    Cancelled.number: pb.TASK_STATE_CANCELLED,
    Skipped.number: pb.TASK_STATE_SKIPPED,
}


class TaskKind(NamedTuple):
    """What of a task's row its state depends on.

    backs_off: it is open, and may not be leased yet at the moment of reading.
    """

    phase: int
    clean_up: bool
    backs_off: bool


EVERY_KIND = tuple(
    TaskKind(phase, clean_up, backs_off)
    for phase, clean_up, backs_off in product(range(PHASE_COUNT), (False, True), (False, True))
    if phase == Open.number or not backs_off
)


def state_of(kind: TaskKind, run: RunPhaseRow) -> pb.TaskState.ValueType:
    """Return where tasks of a kind stand under what their run does to them."""
    if _is_given_up(kind, run):
        return pb.TASK_STATE_CANCELLED
    if kind.phase == Open.number and (run.held or kind.backs_off):
        return pb.TASK_STATE_WAITING
    return _OWN_STATES[kind.phase]


def kinds_in(state: pb.TaskState.ValueType, run: RunPhaseRow) -> list[TaskKind]:
    """Return the kinds of tasks that stand there."""
    return [kind for kind in EVERY_KIND if state_of(kind, run) == state]


def task_then(row: TaskRow, run: RunPhaseRow, judged_ns: int) -> pb.Task:
    """Return the resource that both rows make; `judged_ns` says which waits are over."""
    kind = TaskKind(row.phase, row.clean_up, row.not_before_ns > judged_ns)
    shown = pb.Task.FromString(row.shown)
    shown.state = state_of(kind, run)
    if shown.state == pb.TASK_STATE_WAITING:
        shown.wait_reason = pb.WAIT_REASON_HOLD if run.held else pb.WAIT_REASON_BACKOFF
        if not run.held:
            shown.not_before_time.FromNanoseconds(row.not_before_ns)
    if _is_given_up(kind, run):
        ended_ns = run.ended_ns if row.clean_up else run.given_up_ns
        if ended_ns:
            shown.end_time.FromNanoseconds(ended_ns)
    return shown


def counts_of(kinds: Mapping[TaskKind, int], run: RunPhaseRow) -> pb.TaskCounts:
    """Return how many tasks stand in which state."""
    shown = pb.TaskCounts(total_count=sum(kinds.values()))
    for kind, task_count in kinds.items():
        state = pb.TaskState.Name(state_of(kind, run)).removeprefix("TASK_STATE_").lower()
        field = f"{state}_count"
        setattr(shown, field, getattr(shown, field) + task_count)
    return shown


def _is_given_up(kind: TaskKind, run: RunPhaseRow) -> bool:
    if kind.phase > Leased.number:
        return False  # Its own events ended it.
    if kind.clean_up:
        return run.clean_up
    return run.ordinary == GIVEN_UP_ALL or (
        run.ordinary == GIVEN_UP_UNLEASED and kind.phase != Leased.number
    )
