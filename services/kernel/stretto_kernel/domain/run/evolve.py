"""The run's fold: what each recorded fact changes.

No rule is here that could refuse: `decide` judged. Consequences (a task became ready, was skipped,
fail-fast began, clean-up may start) follow from the fact that causes them and are never recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stretto.run.v1 import events_pb2 as ev
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import RequestId, SessionId, TaskName, WorkerId

from stretto_kernel.domain.run.attempts import (
    cancelled,
    end_attempt,
    fail_task,
    loss_failure,
    timeout_failure,
)
from stretto_kernel.domain.run.blackboard_state import BoardEvent, changes_of
from stretto_kernel.domain.run.canonical import WITHDRAWN_DIGEST
from stretto_kernel.domain.run.growth import add_slice, add_spawned
from stretto_kernel.domain.run.holds import Hold
from stretto_kernel.domain.run.joins import Settling
from stretto_kernel.domain.run.plan import duration_ns, read_graph, read_spawned, read_tasks
from stretto_kernel.domain.run.reopening import begin_reopening, go_on_reopening
from stretto_kernel.domain.run.state import (
    CleaningUp,
    RunEnd,
    RunEvent,
    RunState,
    Shredding,
    Start,
)
from stretto_kernel.domain.run.stopping import (
    begin_cancel,
    begin_failing,
    end_grace,
    ordinary_over,
)
from stretto_kernel.domain.run.task import Leased, Succeeded, TaskRecord


def evolve(state: RunState, recorded: Recorded[RunEvent]) -> None:
    """Apply one recorded fact in place; its version is the state's plus one. Never refuses."""
    assert recorded.version == state.version + 1, "a fold takes every version once, in order"
    state.version = recorded.version
    state.time_ns = recorded.time_ns
    event = recorded.event
    settling = Settling(state, recorded.time_ns)
    if isinstance(event, ev.RunStarted):
        _run_started(settling, event, recorded)
    else:
        _EVOLVE[type(event)](settling, event)
        if recorded.request_id:
            state.requests.remember(recorded)
    settling.run()
    # Without anything to clean up the end comes at once: see `conclude`.
    if state.clean_up_tasks and state.end is None and state.cleaning_up is None:
        _begin_clean_up_when_over(settling)


def _run_started(settling: Settling, event: ev.RunStarted, recorded: Recorded[RunEvent]) -> None:
    state = settling.state
    policies, tasks = read_graph(event.plan)
    state.start = Start(
        request_id=RequestId(recorded.request_id),
        request_digest=recorded.request_digest,
        started_ns=recorded.time_ns,
        policies=policies,
        input=event.input if event.HasField("input") else None,
        labels=dict(event.labels),
        display_name=event.display_name,
    )
    state.key_id = recorded.key_id
    state.opened_ns = recorded.time_ns
    state.touch_all()
    _take_slice(state, sealed=not event.plan.growing)
    add_slice(settling, tasks)


def _tasks_added(settling: Settling, event: ev.TasksAdded) -> None:
    _take_slice(settling.state, sealed=event.sealed)
    settling.state.touch_all()
    add_slice(settling, read_tasks(event.tasks))


def _take_slice(state: RunState, *, sealed: bool) -> None:
    state.slice_count += 1
    state.slice_ns = state.time_ns
    state.sealed = state.sealed or sealed


def _tasks_spawned(settling: Settling, event: ev.TasksSpawned) -> None:
    _spawn(settling, TaskName(event.task), event)


def _spawn(
    settling: Settling, spawner: TaskName, event: ev.TasksSpawned | ev.AttemptSucceeded
) -> None:
    tasks = settling.state.tasks
    specs = event.spawned if isinstance(event, ev.AttemptSucceeded) else event.tasks
    add_spawned(
        settling, spawner, read_spawned(specs, tasks[spawner].spec, lambda name: name in tasks)
    )


def _attempt_leased(settling: Settling, event: ev.AttemptLeased) -> None:
    record = settling.state.edit(TaskName(event.task))
    record.epoch = event.epoch
    lease = Leased(
        worker_id=WorkerId(event.worker_id),
        session_id=SessionId(event.session_id),
        attempt=event.attempt,
        leased_ns=settling.time_ns,
        ttl_ns=duration_ns(event.ttl),
        request_id=RequestId(event.request_id),
    )
    record.last_lease = lease
    settling.state.move(record, lease)


def _attempt_progressed(settling: Settling, event: ev.AttemptProgressed) -> None:
    record = settling.state.edit(TaskName(event.task))
    record.details = event.details
    lease = record.phase
    assert isinstance(lease, Leased)
    settling.state.move(record, lease._replace(details_ns=settling.time_ns))


def _attempt_succeeded(settling: Settling, event: ev.AttemptSucceeded) -> None:
    record = settling.state.edit(TaskName(event.task))
    record.outcomes[event.epoch] = event.outcome_digest
    if event.spawned:
        # Before the end: a join over the subtree must not hold between the two.
        _spawn(settling, record.name, event)
    artifacts = tuple(event.artifacts)
    settling.end(record, Succeeded(event.result, settling.time_ns, artifacts))


def _attempt_failed(settling: Settling, event: ev.AttemptFailed) -> None:
    record = settling.state.edit(TaskName(event.task))
    record.outcomes[event.epoch] = event.outcome_digest
    _keep_details(record, event)
    end_attempt(settling, record, event.failure)


def _attempt_lost(settling: Settling, event: ev.AttemptLost) -> None:
    record = settling.state.edit(TaskName(event.task))
    _keep_details(record, event)
    end_attempt(settling, record, loss_failure(event.cause), silent=True)


def _attempt_timed_out(settling: Settling, event: ev.AttemptTimedOut) -> None:
    record = settling.state.edit(TaskName(event.task))
    _keep_details(record, event)
    end_attempt(
        settling, record, timeout_failure("ATTEMPT_TIMEOUT", record.spec.timeouts.attempt_ns)
    )


def _attempt_released(settling: Settling, event: ev.AttemptReleased) -> None:
    record = settling.state.edit(TaskName(event.task))
    _keep_details(record, event)
    if event.cause == ev.RELEASE_CAUSE_RETURNED:
        record.outcomes[event.epoch] = WITHDRAWN_DIGEST
    end_attempt(settling, record, None, silent=event.cause != ev.RELEASE_CAUSE_RETURNED)


def _attempt_cancelled(settling: Settling, event: ev.AttemptCancelled) -> None:
    record = settling.state.edit(TaskName(event.task))
    if event.outcome_digest:
        record.outcomes[event.epoch] = event.outcome_digest
    settling.end(record, cancelled(record, settling.time_ns))


def _task_failed(settling: Settling, event: ev.TaskFailed) -> None:
    fail_task(settling, settling.state.edit(TaskName(event.task)), event.failure)


def _write_refused(settling: Settling, event: ev.WriteRefused) -> None:
    record = settling.state.edit(TaskName(event.task))
    record.refused_epochs |= {event.epoch}


def _hold_placed(settling: Settling, event: ev.HoldPlaced) -> None:
    state = settling.state
    state.holds = state.holds.place(Hold(event.hold_id, event.reason, settling.time_ns))
    state.touch_all()


def _hold_lifted(settling: Settling, event: ev.HoldLifted) -> None:
    state = settling.state
    state.holds = state.holds.lift(event.hold_id, settling.time_ns)
    state.touch_all()


def _cancel_requested(settling: Settling, event: ev.RunCancelRequested) -> None:
    begin_cancel(settling.state, event.reason, duration_ns(event.grace))


def _run_timed_out(settling: Settling, event: ev.RunTimedOut) -> None:
    del event
    limit_ns = settling.state.policies.run_timeout_ns
    begin_failing(settling.state, timeout_failure("RUN_TIMEOUT", limit_ns))


def _plan_expired(settling: Settling, event: ev.PlanExpired) -> None:
    del event
    limit_ns = settling.state.policies.slice_timeout_ns
    begin_failing(settling.state, timeout_failure("PLAN_NOT_SEALED", limit_ns))


def _grace_ended(settling: Settling, event: ev.RunGraceEnded) -> None:
    del event
    end_grace(settling.state)


def _clean_up_timed_out(settling: Settling, event: ev.RunCleanUpTimedOut) -> None:
    del event
    state = settling.state
    assert state.cleaning_up is not None
    state.cleaning_up = CleaningUp(state.cleaning_up.since_ns, timed_out=True)
    if state.clean_up_failure is None:
        state.clean_up_failure = timeout_failure(
            "CLEAN_UP_TIMEOUT", state.policies.clean_up_timeout_ns
        )
    state.touch_all()


def _run_ended(settling: Settling, event: RunEvent) -> None:
    settling.state.end = RunEnd(event, settling.time_ns)
    settling.state.reopening = None
    settling.state.touch_all()


def _run_retried(settling: Settling, event: ev.RunRetried) -> None:
    begin_reopening(settling, [TaskName(name) for name in event.tasks], event.step_count)


def _tasks_reopened(settling: Settling, event: ev.TasksReopened) -> None:
    del event
    go_on_reopening(settling)


def _board_changed(settling: Settling, event: BoardEvent) -> None:
    state = settling.state
    state.own_board().apply(changes_of(event, state.version, state.time_ns))


def _run_shredded(settling: Settling, event: ev.RunShredded) -> None:
    settling.state.shredding = Shredding(event.reason, settling.time_ns)
    settling.state.run_touched = True


def _begin_clean_up_when_over(settling: Settling) -> None:
    state = settling.state
    if not ordinary_over(state):
        return
    state.cleaning_up = CleaningUp(settling.time_ns)
    state.touch_all()
    settling.open_clean_up()
    settling.run()


def _keep_details(
    record: TaskRecord,
    event: ev.AttemptFailed | ev.AttemptLost | ev.AttemptTimedOut | ev.AttemptReleased,
) -> None:
    if event.HasField("details"):
        record.details = event.details


_EVOLVE: dict[type[RunEvent], Callable[[Settling, Any], None]] = {
    ev.TasksAdded: _tasks_added,
    ev.TasksSpawned: _tasks_spawned,
    ev.AttemptLeased: _attempt_leased,
    ev.AttemptProgressed: _attempt_progressed,
    ev.AttemptSucceeded: _attempt_succeeded,
    ev.AttemptFailed: _attempt_failed,
    ev.AttemptLost: _attempt_lost,
    ev.AttemptReleased: _attempt_released,
    ev.AttemptTimedOut: _attempt_timed_out,
    ev.AttemptCancelled: _attempt_cancelled,
    ev.TaskFailed: _task_failed,
    ev.WriteRefused: _write_refused,
    ev.HoldPlaced: _hold_placed,
    ev.HoldLifted: _hold_lifted,
    ev.RunCancelRequested: _cancel_requested,
    ev.RunTimedOut: _run_timed_out,
    ev.RunGraceEnded: _grace_ended,
    ev.RunCleanUpTimedOut: _clean_up_timed_out,
    ev.PlanExpired: _plan_expired,
    ev.RunSucceeded: _run_ended,
    ev.RunFailed: _run_ended,
    ev.RunCancelled: _run_ended,
    ev.RunKilled: _run_ended,
    ev.RunRetried: _run_retried,
    ev.TasksReopened: _tasks_reopened,
    ev.BoardEntriesWritten: _board_changed,
    ev.BoardEntriesDeleted: _board_changed,
    ev.RunShredded: _run_shredded,
}
EVOLVED: frozenset[type[RunEvent]] = frozenset({ev.RunStarted, *_EVOLVE})
"""Every event type the fold knows."""
