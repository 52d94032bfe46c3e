"""Re-opening an ended run: which tasks begin their next activation, and in which steps.

Called by `evolve` only. First tasks are reset, so that each waits again and counts anew what it
waits for; until all are, nothing of the run is offered. Then those whose joins hold open. Both are
done in steps over any number of facts, so that no fact costs the run's size: a step is a task
looked at or an edge counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from stretto.common.v1.failure_pb2 import Failure
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.joins import (
    Settling,
    count_again,
    count_end,
    dependents_of,
    uncount_end,
    verdict,
)
from stretto_kernel.domain.run.state import Reopening, RunState
from stretto_kernel.domain.run.task import (
    BLOCKED,
    Blocked,
    Cancelled,
    Failed,
    Leased,
    Open,
    Skipped,
    TaskRecord,
)


def something_to_retry(state: RunState) -> bool:
    """Whether anything of an ended run failed, was cancelled or may still come."""
    if not state.sealed:
        return True
    left = (Blocked, Open, Leased, Failed, Cancelled)
    ordinary = sum(state.counts[phase.number] for phase in left)
    clean_up = sum(state.clean_up_counts[phase.number] for phase in left)
    return ordinary > state.left_alone_count or clean_up > 0


def may_be_retried(record: TaskRecord) -> bool:
    """Whether a task of an ended run may be named to be retried."""
    return not record.ended or isinstance(record.phase, Failed | Cancelled)


def begin_reopening(settling: Settling, named: Sequence[TaskName], step_count: int) -> None:
    """Clear what ended the run and do the first steps.

    Leases that the end revoked are over at once, and clean-up tasks wait at once for the new end:
    what comes between two steps finds the ones gone and the others whole.
    """
    state = settling.state
    state.end = state.stopping = state.cleaning_up = None
    state.failure = state.clean_up_failure = None
    state.opened_ns = state.slice_ns = settling.time_ns
    state.retry_count += 1
    for name in list(state.leased_tasks):
        record = state.edit(name)
        lease = record.phase
        assert isinstance(lease, Leased)
        unneeded = lease.stop_deadline_ns is not None
        _end_unjudged(state, record, Cancelled(settling.time_ns, unneeded))
    state.reopening = Reopening(
        step_count=step_count,
        named=frozenset(named),
        waiting=tuple(named),
        task_count=state.task_count,
    )
    resetting = _Resetting(settling, state.reopening)
    for name in state.clean_up_tasks:
        resetting.reset(name)
    go_on_reopening(settling)


def go_on_reopening(settling: Settling) -> None:
    """Do as many steps as one fact does."""
    state = settling.state
    assert state.reopening is not None, "a run is re-opened step by step until it is open"
    slice_count = state.reopening.slice_count + 1
    steps_left = state.reopening.step_count
    if state.reopening.resetting:
        steps_left = _Resetting(settling, state.reopening).go_on(steps_left)
    if not state.reopening.resetting:
        _open(settling, state.reopening, steps_left)
    if state.reopening is not None:
        state.reopening = replace(state.reopening, slice_count=slice_count)
    state.touch_all()


class _Resetting:
    """The steps in which tasks are reset, or left as they ended."""

    def __init__(self, settling: Settling, reopening: Reopening) -> None:
        self._time_ns = settling.time_ns
        self._state = settling.state
        self._reopening = reopening
        self._waiting = list(reopening.waiting)

    def go_on(self, steps_left: int) -> int:
        """Go on until nothing is left to reset, or no step; return how many steps are left."""
        state, before = self._state, self._reopening
        passed = before.passed
        names = islice(state.tasks, passed, before.task_count)
        while steps_left > 0:
            if self._waiting:
                steps_left -= self.reset(self._waiting.pop())
            elif (name := next(names, None)) is not None:
                passed += 1
                steps_left -= self._look_at(name)
            else:
                state.reopening = replace(before, waiting=(), passed=0, resetting=False)
                return steps_left
        state.reopening = replace(before, waiting=tuple(self._waiting), passed=passed)
        return 0

    def reset(self, name: TaskName) -> int:
        """Begin the task's next activation, waiting for its join; return the steps it took."""
        state = self._state
        if state.tasks[name].retry == state.retry_count:
            return 1  # It was reached by another way.
        record = state.edit(name)
        before = record.phase
        record.retry = state.retry_count
        record.activation += 1
        record.tries = record.returns = record.ready_ns = 0
        record.failure = record.details = record.last_lease = None
        state.move(record, BLOCKED)
        steps = 1 + count_again(state, record)
        for dependent in dependents_of(state, record):
            steps += 1
            other = state.tasks[dependent]
            if isinstance(other.phase, Blocked) and before.number > Leased.number:
                uncount_end(state.own(dependent), record.spec, before)
            if isinstance(other.phase, Blocked | Skipped) and other.retry != state.retry_count:
                self._waiting.append(dependent)
        return steps

    def _look_at(self, name: TaskName) -> int:
        state = self._state
        record = state.tasks[name]
        if record.spec.clean_up or record.retry == state.retry_count:
            return 1
        if record.ended and (record.left_alone or not may_be_retried(record)):
            return 1
        if not self._reopening.named:
            return self.reset(name)
        if not record.ended:  # Only the run's end had ended it, and that is cleared.
            record = state.edit(name)
            _end_unjudged(state, record, Cancelled(self._time_ns))
        state.failure = state.failure or _left_out(record)
        return 1


def _open(settling: Settling, before: Reopening, steps_left: int) -> None:
    """Judge the joins of what was reset, and of what was added meanwhile."""
    state = settling.state
    last = min(before.passed + steps_left, state.task_count)
    for name in islice(state.tasks, before.passed, last):
        record = state.tasks[name]
        if isinstance(record.phase, Blocked) and verdict(record) is not None:
            settling.judge(state.own(name))
    state.reopening = None if last == state.task_count else replace(before, passed=last)
    settling.run()


def _end_unjudged(state: RunState, record: TaskRecord, phase: Cancelled) -> None:
    """End a task; those that wait for it count that and are judged when all are reset."""
    state.move(record, phase)
    record.details = None
    for name in dependents_of(state, record):
        if isinstance(state.tasks[name].phase, Blocked):
            count_end(state.own(name), record.spec, phase)


def _left_out(record: TaskRecord) -> Failure:
    if isinstance(record.phase, Failed):
        assert record.failure is not None
        return record.failure
    message = f"task {record.name!r} had been cancelled and was not retried"
    return Failure(reason="NOT_RETRIED", message=message, task=record.name)
