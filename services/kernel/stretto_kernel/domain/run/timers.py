"""The timers of a run: when each passes, and the fact that its passing makes.

A timer is worth what the state would arm now: one that the state would not arm (passed on, done,
held since) or not yet, changes nothing. So late, early and doubled timers are normal. Instants are
UTC nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from stretto.run.v1 import events_pb2 as ev
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.attempts import timeout_failure
from stretto_kernel.domain.run.commands import (
    AttemptGraceEnded,
    AttemptTimeout,
    CleanUpTimeout,
    GraceEnded,
    PlanSliceTimeout,
    QueueTimeout,
    ReopenNext,
    RunTimeout,
    TaskTimeout,
    Timer,
    TimerFired,
)
from stretto_kernel.domain.run.state import RunEvent, RunState
from stretto_kernel.domain.run.stopping import (
    current_lease,
    is_given_up,
    is_held,
    ordinary_over,
    stop_deadline_ns,
)
from stretto_kernel.domain.run.task import Leased, Open, TaskRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When a timer passes, and what it is armed for."""

    at_ns: int
    timer: Timer


def task_due(state: RunState, task: TaskName) -> tuple[Due, ...]:
    """Return every timer of the task; those armed before and not named here are void."""
    record = state.tasks[task]
    if record.ended or is_given_up(state, record):
        return ()
    return tuple(_task_timers(state, record))


def run_due(state: RunState) -> tuple[Due, ...]:
    """Return every timer of the run itself."""
    if state.start is None or state.end is not None:
        return ()
    return tuple(_run_timers(state))


def decide_timer(state: RunState, command: TimerFired) -> tuple[RunEvent, ...]:
    """Return the fact of a timer that has passed, () when it has not or never will."""
    timer = command.timer
    task = getattr(timer, "task", None)
    if task is not None and task not in state.tasks:
        return ()
    armed = run_due(state) if task is None else task_due(state, task)
    if not any(due.timer == timer and due.at_ns <= command.now_ns for due in armed):
        return ()
    match timer:
        case QueueTimeout():
            return (_failed(state, timer.task, "QUEUE_TIMEOUT"),)
        case TaskTimeout():
            return (_failed(state, timer.task, "TASK_TIMEOUT"),)
        case AttemptTimeout(task=name, epoch=epoch):
            return (ev.AttemptTimedOut(task=name, epoch=epoch, details=command.details),)
        case AttemptGraceEnded(task=name, epoch=epoch):
            return (ev.AttemptCancelled(task=name, epoch=epoch, forced=True),)
        case RunTimeout():
            return (ev.RunTimedOut(),)
        case GraceEnded():
            return (ev.RunGraceEnded(),)
        case CleanUpTimeout():
            return (ev.RunCleanUpTimedOut(),)
        case PlanSliceTimeout():
            return (ev.PlanExpired(),)
        case ReopenNext():
            return (ev.TasksReopened(),)
        case _:
            assert_never(timer)


def _task_timers(state: RunState, record: TaskRecord) -> Iterator[Due]:
    timeouts = record.spec.timeouts
    stop_ns = stop_deadline_ns(state, record)
    if timeouts.task_ns is not None and record.ready_ns and stop_ns is None:
        at_ns = record.ready_ns + timeouts.task_ns
        yield Due(at_ns=at_ns, timer=TaskTimeout(record.name, record.activation))
    phase = record.phase
    if isinstance(phase, Open) and timeouts.queue_ns is not None:
        since_ns = max(phase.ready_ns, phase.not_before_ns)
        deadline_ns = _queue_deadline_ns(state, since_ns, timeouts.queue_ns)
        if deadline_ns is not None:
            yield Due(at_ns=deadline_ns, timer=QueueTimeout(record.name, record.epoch))
    if (lease := current_lease(state, record)) is None:
        return
    if timeouts.attempt_ns is not None:
        at_ns = lease.leased_ns + timeouts.attempt_ns
        yield Due(at_ns=at_ns, timer=AttemptTimeout(record.name, record.epoch))
    if lease.stop_deadline_ns is not None:
        timer = AttemptGraceEnded(record.name, record.epoch)
        yield Due(at_ns=lease.stop_deadline_ns, timer=timer)


def _queue_deadline_ns(state: RunState, since_ns: int, span_ns: int) -> int | None:
    if state.holds and not is_held(state):
        return since_ns + span_ns
    return state.holds.running_deadline_ns(since_ns, span_ns)


def _run_timers(state: RunState) -> Iterator[Due]:
    policies = state.policies
    stopping = state.stopping
    if stopping is None:
        if policies.run_timeout_ns is not None and not ordinary_over(state):
            at_ns = state.opened_ns + policies.run_timeout_ns
            yield Due(at_ns=at_ns, timer=RunTimeout())
        if not state.sealed:
            at_ns = state.slice_ns + policies.slice_timeout_ns
            yield Due(at_ns=at_ns, timer=PlanSliceTimeout(state.slice_count))
        if (reopening := state.reopening) is not None:
            yield Due(at_ns=state.time_ns, timer=ReopenNext(reopening.slice_count))
    elif not stopping.grace_over and state.counts[Leased.number]:
        yield Due(at_ns=stopping.deadline_ns, timer=GraceEnded(stopping.stamp))
    if state.cleaning_up is not None and not state.cleaning_up.timed_out:
        at_ns = state.cleaning_up.since_ns + policies.clean_up_timeout_ns
        yield Due(at_ns=at_ns, timer=CleanUpTimeout())


def _failed(state: RunState, task: TaskName, reason: str) -> ev.TaskFailed:
    record = state.tasks[task]
    timeouts = record.spec.timeouts
    limit_ns = timeouts.queue_ns if reason == "QUEUE_TIMEOUT" else timeouts.task_ns
    failure = timeout_failure(reason, limit_ns)
    return ev.TaskFailed(task=task, activation=record.activation, failure=failure)
