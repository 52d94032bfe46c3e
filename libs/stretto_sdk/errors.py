"""The errors a user of the SDK meets.

Refusals of a call are the classes of stretto_core.errors, each with its `reason_word`; the same
class is raised here that the kernel raised. How a run ended badly is not a refusal: the call was
answered. That is RunNotSucceeded and its three kinds.
"""

from __future__ import annotations

from stretto_core.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Refusal,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

from stretto_sdk.runs import Run, RunState

__all__ = [
    "AlreadyExists",
    "Conflict",
    "DeadlineExceeded",
    "Exhausted",
    "FailedPrecondition",
    "FieldViolation",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Refusal",
    "RunCancelled",
    "RunFailed",
    "RunKilled",
    "RunNotSucceeded",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "not_succeeded",
]


class RunNotSucceeded(Exception):
    """The run ended without a result; `run` says how.

    >>> try:
    ...     report = await client.result(run)
    ... except RunNotSucceeded as ended:
    ...     print(ended.run.state, ended)
    """

    def __init__(self, run: Run, message: str) -> None:
        super().__init__(message)
        self.run = run


class RunFailed(RunNotSucceeded):
    """A task, a time limit or the plan failed it: `run.failure` has the reason word."""


class RunCancelled(RunNotSucceeded):
    """Somebody asked it to stop: `run.end_reason` says why."""


class RunKilled(RunNotSucceeded):
    """Somebody ended it at once: `run.end_reason` says why."""


def not_succeeded(run: Run) -> RunNotSucceeded:
    """Return the error of a run that ended in any state but SUCCEEDED."""
    if run.state is RunState.FAILED:
        failure = run.failure
        if failure is None:
            return RunFailed(run, f"run {run.run_id} failed")
        where = f" in task {failure.task}" if failure.task else ""
        return RunFailed(
            run, f"run {run.run_id} failed{where}: {failure.reason}: {failure.message}"
        )
    why = f": {run.end_reason}" if run.end_reason else ""
    kind = RunKilled if run.state is RunState.KILLED else RunCancelled
    return kind(run, f"run {run.run_id} was {run.state.lower()}{why}")
