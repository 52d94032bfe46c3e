"""The view `attempts`: who held what, from when until when, under which epoch, and how it ended.

Leases that a run-wide fact revoked have no end of their own: `run_phases` says when it came.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.message import Message
from stretto.common.v1.failure_pb2 import Failure
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import run_pb2
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.attempts import loss_failure
from stretto_kernel.domain.run.task import Leased
from stretto_kernel.projections.view import Step, View, names_of

_OUTCOMES: dict[type[Message], run_pb2.AttemptOutcome.ValueType] = {
    ev.AttemptSucceeded: run_pb2.ATTEMPT_OUTCOME_SUCCEEDED,
    ev.AttemptFailed: run_pb2.ATTEMPT_OUTCOME_FAILED,
    ev.AttemptLost: run_pb2.ATTEMPT_OUTCOME_LOST,
    ev.AttemptReleased: run_pb2.ATTEMPT_OUTCOME_RELEASED,
    ev.AttemptTimedOut: run_pb2.ATTEMPT_OUTCOME_TIMED_OUT,
    ev.AttemptCancelled: run_pb2.ATTEMPT_OUTCOME_CANCELLED,
}


class AttemptRow(NamedTuple):
    """One lease and its attempt.

    leased_version: of the event that granted it. ended_ns: 0 = its own events have not ended it.
    failure: serialised; empty = none.
    """

    run_id: str
    task: str
    epoch: int
    leased_version: int
    activation: int
    attempt: int
    worker_id: str
    session_id: str
    leased_ns: int
    ended_ns: int
    outcome: int
    failure: bytes


def attempts_changed(step: Step) -> tuple[AttemptRow, ...]:
    """Return the attempt that the event began or ended."""
    event: Any = step.recorded.event
    kind = type(event)
    if kind is ev.AttemptLeased:
        return (_row(step, event.task, event.epoch, run_pb2.ATTEMPT_OUTCOME_RUNNING),)
    if (outcome := _OUTCOMES.get(kind)) is not None:
        return (_row(step, event.task, event.epoch, outcome, _failure(event)),)
    if kind is ev.TaskFailed and isinstance(step.before, Leased):
        epoch = step.run.state.tasks[TaskName(event.task)].epoch
        timed_out = run_pb2.ATTEMPT_OUTCOME_TIMED_OUT
        return (_row(step, event.task, epoch, timed_out, event.failure),)
    return ()


def later_word(kept: AttemptRow, changed: AttemptRow) -> AttemptRow:
    """Take the newer word (a late result is welcome); when it was leased stays as it was."""
    return changed._replace(leased_version=kept.leased_version)


def _row(
    step: Step,
    task: str,
    epoch: int,
    outcome: run_pb2.AttemptOutcome.ValueType,
    failure: Failure | None = None,
) -> AttemptRow:
    state = step.run.state
    record = state.tasks[TaskName(task)]
    lease = record.last_lease
    assert lease is not None, "an attempt begins with its lease"
    ended = outcome != run_pb2.ATTEMPT_OUTCOME_RUNNING
    return AttemptRow(
        run_id=state.run_id,
        task=task,
        epoch=epoch,
        leased_version=state.version,
        activation=record.activation,
        attempt=lease.attempt,
        worker_id=lease.worker_id,
        session_id=lease.session_id,
        leased_ns=lease.leased_ns,
        ended_ns=state.time_ns if ended else 0,
        outcome=outcome,
        failure=b"" if failure is None else failure.SerializeToString(deterministic=True),
    )


def _failure(event: Any) -> Failure | None:
    if isinstance(event, ev.AttemptFailed):
        return event.failure
    return loss_failure(event.cause) if isinstance(event, ev.AttemptLost) else None


ATTEMPTS = View(
    name="attempts",
    version=1,
    row=AttemptRow,
    key_count=3,
    of_event=attempts_changed,
    concerns=names_of(ev.AttemptLeased, ev.TaskFailed, *_OUTCOMES),
    merge=later_word,  # type: ignore[arg-type]
)
