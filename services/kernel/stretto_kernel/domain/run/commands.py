"""What can be asked of a run: frozen values, never stored, carrying server time and minted ids.

`now_ns` is the shell's UTC instant in nanoseconds when the command was taken. Nothing here is
checked beyond its type: `decide` judges. Protobuf messages inside a command are read, never kept.

A command with a `request_id` is deduplicated by it (24 h): the shell puts the same id and digest
into the envelope of every event the command caused. Lease holders' commands are deduplicated by
epoch and content, timers by what they were armed for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stretto.blackboard.v1.blackboard_pb2 import Writer
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Artifact, Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.ids import RequestId, SessionId, TaskName, WorkerId

from stretto_kernel.domain.run.judging import JudgedGraph, JudgedTasks
from stretto_kernel.domain.run.task import NO_CALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What every command carries: when the shell took it, UTC nanoseconds."""

    now_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested(Command):
    """A client's call: the same id and digest again changes nothing.

    request_digest: SHA-256 over the parsed request's fields, 32 bytes.
    """

    request_id: RequestId
    request_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun(Requested):
    """Accept a run: the first command of every stream.

    judged: the graph, when it was judged ahead of its decision.
    """

    graph: plan.TaskGraph
    input: Payload | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    display_name: str = ""
    judged: JudgedGraph | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddTasks(Requested):
    """Add a slice to a growing plan; `sealed` says that no further one will come.

    judged: the tasks, when they were judged ahead of the decision.
    """

    tasks: tuple[plan.TaskSpec, ...]
    sealed: bool = False
    judged: JudgedTasks | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceHold(Requested):
    """Stop dispatching until the hold of this id is lifted."""

    hold_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftHold(Requested):
    """Lift one hold; lifting one that is not there changes nothing."""

    hold_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Requested):
    """Ask the run to stop; grace_ns None = the plan's."""

    reason: str = ""
    grace_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill(Requested):
    """End the run at once, without clean-up."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shred(Requested):
    """Forget what an ended run carried."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(Requested):
    """Re-open an ended run: all that failed or was cancelled, or only `tasks`.

    step_count: how much of a large run is re-opened by one fact.
    """

    tasks: tuple[TaskName, ...] = ()
    step_count: int


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who writes on the blackboard under a lease, its secret checked."""

    task: TaskName
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryChange:
    """An entry to change. expected_revision: 0 = it must not be there; None = whatever there is."""

    key: str
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryWrite(EntryChange):
    """An entry to write."""

    value: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class PutEntries(Requested):
    """Write entries of the blackboard, all or nothing. writer: a holder, or somebody as said."""

    writer: LeaseHolder | Writer
    writes: tuple[EntryWrite, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteEntries(Requested):
    """Delete entries of the blackboard, all or nothing; those not there stay so."""

    writer: LeaseHolder | Writer
    deletions: tuple[EntryChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Command):
    """Give the task's next attempt to a worker.

    The answer is AttemptLeased, or TaskFailed when an input cannot be resolved (nothing is leased).
    request_id: the LeaseWork call it is granted to; "" = a work stream.
    ttl_ns: None = the task's heartbeat timeout.
    """

    task: TaskName
    worker_id: WorkerId
    session_id: SessionId
    request_id: RequestId = NO_CALL
    ttl_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderCommand(Command):
    """A write under a lease: refused with LEASE_LOST unless `epoch` is the task's newest."""

    task: TaskName
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(HolderCommand):
    """The attempt succeeded; `spawned` tasks are added in the same append."""

    result: Payload | None = None
    spawned: tuple[plan.TaskSpec, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(HolderCommand):
    """The attempt failed; the policy decides whether the task is tried again."""

    failure: Failure
    details: Payload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(HolderCommand):
    """The attempt is given back and consumes no try."""

    cause: ev.ReleaseCause.ValueType
    details: Payload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAttempt(HolderCommand):
    """The worker says that it stopped because it was asked to."""

    details: Payload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn(HolderCommand):
    """Add tasks below a leased one before its result."""

    tasks: tuple[plan.TaskSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(HolderCommand):
    """Record newest heartbeat details; () when unchanged or within 10 s of the last record."""

    details: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Lose(Command):
    """A lease ended without its holder's word; () when `epoch` is no longer leased."""

    task: TaskName
    epoch: int
    cause: ev.LossCause.ValueType
    details: Payload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRefusal(Command):
    """Record that a write with a stale epoch was refused; () beyond once per granted epoch."""

    task: TaskName
    epoch: int


@dataclass(frozen=True, slots=True)
class QueueTimeout:
    """Nobody leased the task in time; `epoch` is its newest when it became ready."""

    task: TaskName
    epoch: int


@dataclass(frozen=True, slots=True)
class AttemptTimeout:
    """The attempt under `epoch` ran too long."""

    task: TaskName
    epoch: int


@dataclass(frozen=True, slots=True)
class TaskTimeout:
    """All attempts of this activation together took too long."""

    task: TaskName
    activation: int


@dataclass(frozen=True, slots=True)
class AttemptGraceEnded:
    """The attempt under `epoch` was asked to stop by a join that no longer needs it."""

    task: TaskName
    epoch: int


@dataclass(frozen=True, slots=True)
class RunTimeout:
    """The run took too long."""


@dataclass(frozen=True, slots=True)
class GraceEnded:
    """The grace of the stopping run is over; `stamp` names the stop it was armed for."""

    stamp: int


@dataclass(frozen=True, slots=True)
class CleanUpTimeout:
    """The clean-up tasks took too long."""


@dataclass(frozen=True, slots=True)
class PlanSliceTimeout:
    """No slice came in time; `slice_count` is how many there were."""

    slice_count: int


@dataclass(frozen=True, slots=True)
class ReopenNext:
    """The next steps of a retried run are due at once; `slice_count` is how many were done."""

    slice_count: int


Timer = (
    QueueTimeout
    | AttemptTimeout
    | TaskTimeout
    | AttemptGraceEnded
    | RunTimeout
    | GraceEnded
    | CleanUpTimeout
    | PlanSliceTimeout
    | ReopenNext
)
"""What a timer was armed for; hashable, so that it is also the timer's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Command):
    """An armed timer is due; () when it came early, late or twice.

    details: the newest heartbeat details of the attempt it ends, if any.
    """

    timer: Timer
    details: Payload | None = None
