"""Deciding what a client may do to a run as a whole: hold, cancel, kill, retry or shred it."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from stretto.run.v1 import events_pb2 as ev

from stretto_kernel.domain.run.commands import Cancel, Kill, LiftHold, PlaceHold, Retry, Shred
from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.domain.run.holders import find
from stretto_kernel.domain.run.holds import HOLDS_MAX
from stretto_kernel.domain.run.plan_check import HOUR_S, WORD
from stretto_kernel.domain.run.refusals import (
    HoldLimit,
    NothingToRetry,
    RunClosed,
    RunNotEncrypted,
    RunNotEnded,
    TaskNotRetriable,
)
from stretto_kernel.domain.run.reopening import may_be_retried, something_to_retry
from stretto_kernel.domain.run.state import RunEvent, RunState

REASON_CHARS_MAX = 1_000
NAMED_TASKS_MAX = 1_000


def place_hold(state: RunState, command: PlaceHold) -> tuple[RunEvent, ...]:
    """Hold the run; a hold of the same id that is on it stands as it is."""
    _check_reason(command.reason, command.hold_id)
    refuse_ended(state)
    if command.hold_id in state.holds:
        return ()
    if len(state.holds.placed) >= HOLDS_MAX:
        raise HoldLimit(f"a run bears {HOLDS_MAX} holds", hold_count_max=str(HOLDS_MAX))
    return (ev.HoldPlaced(hold_id=command.hold_id, reason=command.reason),)


def lift_hold(state: RunState, command: LiftHold) -> tuple[RunEvent, ...]:
    """Lift one hold; lifting one that is not there changes nothing."""
    refuse_ended(state)
    if command.hold_id not in state.holds:
        return ()
    return (ev.HoldLifted(hold_id=command.hold_id),)


def cancel(state: RunState, command: Cancel) -> tuple[RunEvent, ...]:
    """Ask the run to stop; one that was asked already, or ended so, stands as it is."""
    grace = Duration()
    grace.FromNanoseconds(
        state.policies.cancel_grace_ns if command.grace_ns is None else command.grace_ns
    )
    findings = Findings()
    findings.check_span("grace", grace, least_ns=0, most_s=HOUR_S)
    findings.refuse("the cancellation")
    _check_reason(command.reason)
    if state.end is not None and isinstance(state.end.event, ev.RunCancelled):
        return ()
    refuse_ended(state)
    if state.stopping is not None and state.stopping.cancelled:
        return ()
    return (ev.RunCancelRequested(reason=command.reason, grace=grace),)


def kill(state: RunState, command: Kill) -> tuple[RunEvent, ...]:
    """End the run at once; a killed one stands as it is."""
    _check_reason(command.reason)
    if state.end is not None and isinstance(state.end.event, ev.RunKilled):
        return ()
    refuse_ended(state)
    return (ev.RunKilled(reason=command.reason),)


def shred(state: RunState, command: Shred) -> tuple[RunEvent, ...]:
    """Forget what an ended run carried; a shredded one stands as it is."""
    _check_reason(command.reason)
    if state.shredding is not None:
        return ()
    if not state.key_id:
        raise RunNotEncrypted("the run was started without a data key: it cannot be forgotten")
    if state.end is None:
        raise RunNotEnded("the run goes on; only an ended one can be shredded: kill it first")
    return (ev.RunShredded(reason=command.reason),)


def retry(state: RunState, command: Retry) -> tuple[RunEvent, ...]:
    """Re-open the failed and cancelled tasks of a run that ended without success."""
    findings = Findings()
    if len(command.tasks) > NAMED_TASKS_MAX:
        findings.wrong("tasks", f"has more than {NAMED_TASKS_MAX} names")
    if len(set(command.tasks)) < len(command.tasks):
        findings.wrong("tasks", "has a name twice")
    findings.refuse("the retry")
    if state.end is None:
        raise RunNotEnded("the run goes on; only an ended one can be retried")
    for name in command.tasks:
        record = find(state, name)
        if not may_be_retried(record):
            raise TaskNotRetriable(
                f"task {name!r} neither failed nor was cancelled: nothing of it can be retried",
                task=name,
            )
    if isinstance(state.end.event, ev.RunSucceeded) or not something_to_retry(state):
        raise NothingToRetry("the run succeeded, or no task of it failed or was cancelled")
    return (ev.RunRetried(tasks=command.tasks, step_count=command.step_count),)


def refuse_ended(state: RunState) -> None:
    """Refuse what an ended run does not take. Raises RunClosed."""
    if state.end is not None:
        ended_as = type(state.end.event).DESCRIPTOR.name.removeprefix("Run").upper()
        raise RunClosed(
            f"the run has ended: {ended_as}; start another, or retry it if it did not succeed",
            state=ended_as,
        )


def _check_reason(reason: str, hold_id: str | None = None) -> None:
    findings = Findings()
    if hold_id is not None and not WORD.match(hold_id):
        findings.wrong("hold_id", "must be 1-64 characters of [A-Za-z0-9._-]")
    if len(reason) > REASON_CHARS_MAX:
        findings.wrong("reason", f"is longer than {REASON_CHARS_MAX} characters")
    findings.refuse("the request")
