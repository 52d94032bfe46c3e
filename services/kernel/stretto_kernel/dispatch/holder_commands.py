"""What lease holders' messages mean: from an outcome or a spawn to a command. Pure.

Checks the limits of failures and details; results and what a plan may hold are the decider's.
"""

from __future__ import annotations

from stretto.run.v1 import events_pb2 as ev
from stretto.work.v1 import work_pb2
from stretto_core.errors import InvalidArgument
from stretto_core.ids import TaskName

from stretto_kernel.dispatch.holder_payloads import check_details, checked_failure
from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.domain.run import commands


def spawn_command(spawn: work_pb2.Spawn, task: TaskName, now_ns: int) -> commands.Command:
    """Return what a spawn means."""
    return commands.Spawn(
        now_ns=now_ns, task=task, epoch=spawn.token.epoch, tasks=tuple(spawn.tasks)
    )


def outcome_command(
    outcome: work_pb2.Outcome, task: TaskName, lease: Lease | None, now_ns: int
) -> commands.Command:
    """Return what an outcome means. Raises InvalidArgument.

    lease: what is known of it, whose newest details stand where the outcome has none.
    """
    epoch = outcome.token.epoch
    details = outcome.details if outcome.HasField("details") else None
    if details is None and lease is not None:
        details = lease.details
    check_details(details)
    match outcome.WhichOneof("result"):
        case "succeeded":
            succeeded = outcome.succeeded
            result = succeeded.result if succeeded.HasField("result") else None
            return commands.Complete(
                now_ns=now_ns,
                task=task,
                epoch=epoch,
                result=result,
                spawned=tuple(succeeded.spawned),
                artifacts=tuple(succeeded.artifacts),
            )
        case "failed":
            failure = checked_failure(outcome.failed)
            return commands.Fail(
                now_ns=now_ns, task=task, epoch=epoch, failure=failure, details=details
            )
        case "released":
            cause = ev.RELEASE_CAUSE_RETURNED
            return commands.Release(
                now_ns=now_ns, task=task, epoch=epoch, cause=cause, details=details
            )
        case "cancelled":
            return commands.CancelAttempt(now_ns=now_ns, task=task, epoch=epoch, details=details)
        case _:
            raise InvalidArgument("an outcome has a result", field="result")
