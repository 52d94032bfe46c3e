"""The run decider's door: which facts a command makes true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stretto_kernel.domain.requests import RequestIdReused
from stretto_kernel.domain.run import blackboard, control, holders, planning
from stretto_kernel.domain.run.commands import (
    AddTasks,
    Cancel,
    CancelAttempt,
    Command,
    Complete,
    DeleteEntries,
    Fail,
    Kill,
    Lease,
    LiftHold,
    Lose,
    PlaceHold,
    Progress,
    PutEntries,
    RecordRefusal,
    Release,
    Requested,
    Retry,
    Shred,
    Spawn,
    StartRun,
    TimerFired,
)
from stretto_kernel.domain.run.refusals import RunNotFound, RunShredded
from stretto_kernel.domain.run.state import RunEvent, RunState
from stretto_kernel.domain.run.timers import decide_timer


def decide(state: RunState, command: Command) -> tuple[RunEvent, ...]:
    """Return the facts `command` makes true, in order; () when it repeats one or came too late.

    Never changes the state. All facts of one command belong into one append, with what they
    `conclude`. Raises the refusals of `refusals`, and
    InvalidArgument or Unimplemented for a plan or value that is wrong whatever the state.
    """
    if state.start is None and not isinstance(command, StartRun):
        raise RunNotFound(state.run_id)
    if state.shredding is not None:
        return _decide_shredded(command)
    if isinstance(command, Requested) and _was_done(state, command):
        return ()
    return _DECIDE[type(command)](state, command)


def _decide_shredded(command: Command) -> tuple[RunEvent, ...]:
    """Nothing follows a shredding, and no digest can be compared any more."""
    if isinstance(command, Shred | TimerFired):
        return ()
    raise RunShredded("the run was shredded: nothing can be done with it any more")


def _was_done(state: RunState, command: Requested) -> bool:
    """Whether the same request had its effect already. Raises RequestIdReused, RequestIdLimit."""
    if isinstance(command, StartRun):
        if state.start is None:
            return False
        known = (state.start.request_id, state.start.request_digest)
        if known == (command.request_id, state.keyed(command.request_digest)):
            return True
        raise RequestIdReused(command.request_id)
    if state.start is not None and command.request_id == state.start.request_id:
        raise RequestIdReused(command.request_id)
    return state.requests.had_effect(
        command.request_id, state.keyed(command.request_digest), now_ns=command.now_ns
    )


_DECIDE: dict[type[Command], Callable[[RunState, Any], tuple[RunEvent, ...]]] = {
    StartRun: planning.start_run,
    AddTasks: planning.add_tasks,
    Lease: holders.lease,
    Complete: holders.complete,
    Fail: holders.fail,
    Release: holders.release,
    CancelAttempt: holders.cancel_attempt,
    Spawn: holders.spawn,
    Progress: holders.progress,
    Lose: holders.lose,
    RecordRefusal: holders.record_refusal,
    TimerFired: decide_timer,
    PlaceHold: control.place_hold,
    LiftHold: control.lift_hold,
    Cancel: control.cancel,
    Kill: control.kill,
    Retry: control.retry,
    PutEntries: blackboard.put_entries,
    DeleteEntries: blackboard.delete_entries,
    Shred: control.shred,
}
DECIDED = frozenset(_DECIDE)
"""Every command the decider knows."""
