"""What a run-wide fact means for one task, and when a run's parts are over.

A stop (cancel, run timeout, fail-fast, an unsealed plan) is one value on the run. Ordinary tasks
that nobody holds are then over without a word about each; those held are asked to stop and have the
grace. Clean-up tasks are not stopped: they have their own time, and a kill.
"""

from __future__ import annotations

from stretto.common.v1.failure_pb2 import Failure

from stretto_kernel.domain.run.state import RunState, Stopping
from stretto_kernel.domain.run.task import Blocked, Leased, Open, TaskRecord


def begin_cancel(state: RunState, reason: str, grace_ns: int) -> None:
    """Somebody asked the run to stop. A stop that had begun is not given more time by that."""
    before = state.stopping
    if before is not None:
        grace_ns = max(0, min(grace_ns, before.deadline_ns - state.time_ns))
    state.stopping = Stopping(
        stamp=state.version,
        cancelled=True,
        reason=reason,
        since_ns=state.time_ns,
        grace_ns=grace_ns,
        grace_over=before is not None and before.grace_over,
    )
    state.touch_all()


def begin_failing(state: RunState, failure: Failure) -> None:
    """Something failed that ends the run: note it if it is the first, and stop what goes on."""
    if state.failure is None:
        state.failure = failure
    if state.stopping is not None:
        return
    state.stopping = Stopping(
        stamp=state.version,
        cancelled=False,
        reason=failure.reason,
        since_ns=state.time_ns,
        grace_ns=state.policies.cancel_grace_ns,
    )
    state.touch_all()


def end_grace(state: RunState) -> None:
    """Revoke the leases of ordinary tasks that are still open."""
    before = state.stopping
    assert before is not None
    state.stopping = Stopping(
        before.stamp, before.cancelled, before.reason, before.since_ns, before.grace_ns, True
    )
    state.touch_all()


def ordinary_over(state: RunState) -> bool:
    """Whether no ordinary task can do anything any more."""
    counts = state.counts
    if state.stopping is not None:
        return state.stopping.grace_over or counts[Leased.number] == 0
    if state.reopening is not None:
        return False
    waiting = counts[Blocked.number] + counts[Open.number] + counts[Leased.number]
    return state.sealed and waiting == 0


def clean_up_over(state: RunState) -> bool:
    """Whether no clean-up task can do anything any more, ordinary ones being over."""
    if state.cleaning_up is not None and state.cleaning_up.timed_out:
        return True
    counts = state.clean_up_counts
    return counts[Blocked.number] + counts[Open.number] + counts[Leased.number] == 0


def is_given_up(state: RunState, record: TaskRecord) -> bool:
    """Whether a run-wide fact has ended this task, whatever its own events say."""
    if state.end is not None:
        return True
    if record.spec.clean_up:
        return state.cleaning_up is not None and state.cleaning_up.timed_out
    if state.stopping is None:
        return is_resetting(state)
    return state.stopping.grace_over or not isinstance(record.phase, Leased)


def is_resetting(state: RunState) -> bool:
    """Whether a retried run has tasks that still stand where its end had left them."""
    return state.reopening is not None and state.reopening.resetting and state.stopping is None


def current_lease(state: RunState, record: TaskRecord) -> Leased | None:
    """Return the lease whose holder's word counts, or None."""
    lease = record.phase
    return lease if isinstance(lease, Leased) and not is_given_up(state, record) else None


def stop_deadline_ns(state: RunState, record: TaskRecord) -> int | None:
    """Return until when the holder of the task's lease was asked to stop, or None."""
    lease = record.phase
    if not isinstance(lease, Leased):
        return None
    own_ns = lease.stop_deadline_ns
    if record.spec.clean_up or state.stopping is None:
        return own_ns
    run_ns = state.stopping.deadline_ns
    return run_ns if own_ns is None else min(own_ns, run_ns)


def is_dispatchable(state: RunState, record: TaskRecord) -> bool:
    """Whether the task may be leased now or after its not-before."""
    return isinstance(record.phase, Open) and not is_given_up(state, record) and not is_held(state)


def is_held(state: RunState) -> bool:
    """Whether holds keep work back. Nothing keeps back the clean-up of a stopping run."""
    return bool(state.holds) and state.stopping is None


def accepts_late(state: RunState, record: TaskRecord, epoch: int) -> bool:
    """Whether the result of a holder that went silent is still welcome: current, though late."""
    phase = record.phase
    return (
        isinstance(phase, Open)
        and epoch == record.epoch == phase.late_epoch
        and not is_given_up(state, record)
    )
