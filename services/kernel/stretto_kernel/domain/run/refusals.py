"""Every refusal of the run decider, code and reason side by side."""

from __future__ import annotations

from stretto_core.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound
from stretto_core.ids import RunId


class RunNotFound(NotFound):
    """No such run, or it is another tenant's: the two are never told apart."""

    reason = "NOT_FOUND"

    def __init__(self, run_id: RunId) -> None:
        super().__init__("no such run", run_id=run_id)


class TaskNotFound(NotFound):
    """The run has no such task."""

    reason = "NOT_FOUND"


class RunClosed(FailedPrecondition):
    """The run has ended, or is ending in a way that rules this out: metadata `state` says how."""

    reason = "RUN_CLOSED"


class RunNotEnded(FailedPrecondition):
    """The run goes on: only an ended one can be retried."""

    reason = "RUN_NOT_ENDED"


class NothingToRetry(FailedPrecondition):
    """The run succeeded, or no task of it failed or was cancelled."""

    reason = "NOTHING_TO_RETRY"


class TaskNotRetriable(FailedPrecondition):
    """A task named to be retried (metadata `task`) neither failed nor was cancelled."""

    reason = "TASK_NOT_RETRIABLE"


class LeaseLost(FailedPrecondition):
    """The presented epoch is not current (metadata `current_epoch`): stop work, drop the result."""

    reason = "LEASE_LOST"


class NotLeasable(FailedPrecondition):
    """The task is held, ended or not ready, or its run does not dispatch."""

    reason = "NOT_LEASABLE"


class ResultConflict(AlreadyExists):
    """Another outcome was accepted under this epoch; the first stands."""

    reason = "RESULT_CONFLICT"


class PlanSealed(FailedPrecondition):
    """The plan takes no further slices."""

    reason = "PLAN_SEALED"


class TaskLimit(Exhausted):
    """The run holds its most tasks (metadata `task_count_max`)."""

    reason = "TASK_LIMIT"


class SpawnNotAllowed(FailedPrecondition):
    """The task's spec does not say `may_spawn`."""

    reason = "SPAWN_NOT_ALLOWED"


class TaskConflict(AlreadyExists):
    """A task of that name has another spec."""

    reason = "TASK_CONFLICT"


class RunShredded(FailedPrecondition):
    """What the run carried was forgotten: nothing can be done with it any more."""

    reason = "RUN_SHREDDED"


class RunNotEncrypted(FailedPrecondition):
    """The run has no data key whose end would make it unreadable."""

    reason = "RUN_NOT_ENCRYPTED"


class HoldLimit(Exhausted):
    """The run bears its most holds."""

    reason = "HOLD_LIMIT"
