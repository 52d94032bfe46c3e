"""One task's record: its spec, where it stands, and the fencing facts that outlive every attempt.

A phase says only what the task's own events say. What the run does to all tasks at once (cancel,
kill, fail-fast) is never written here: `queries.task_state` derives it, so that such a fact costs
the same in a run of ten tasks or a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Artifact, Payload
from stretto_core.ids import RequestId, SessionId, TaskName, WorkerId

from stretto_kernel.domain.run.plan import TaskSpec

NO_CALL: Final = RequestId("")
"""What a work stream is granted belongs to no LeaseWork call."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Its join is undecided."""

    number: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Open:
    """It may be leased, from `not_before_ns` on.

    ready_ns: when what made it ready was recorded.
    late_epoch: an epoch whose holder went silent and whose result is still welcome; 0 = none.
    """

    number: ClassVar[int] = 1
    ready_ns: int
    not_before_ns: int
    late_epoch: int = 0


class _Lease(NamedTuple):
    worker_id: WorkerId
    session_id: SessionId
    attempt: int
    leased_ns: int
    ttl_ns: int
    stop_deadline_ns: int | None = None
    details_ns: int = 0
    request_id: RequestId = NO_CALL


class Leased(_Lease):
    """A worker holds it under the record's epoch.

    attempt: which try of the activation. stop_deadline_ns: set once a join that no longer needs the
    task asked it to stop. details_ns: when details were last recorded, 0 = never. request_id: the
    LeaseWork call that it was granted to, "" = a work stream.
    """

    __slots__ = ()
    number: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Its result was accepted, with the files its attempt left behind."""

    number: ClassVar[int] = 3
    result: Payload
    ended_ns: int
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """It failed and is not tried again; the record has the failure."""

    number: ClassVar[int] = 4
    ended_ns: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was stopped; unneeded: because a join no longer needed it."""

    number: ClassVar[int] = 5
    ended_ns: int
    unneeded: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """Its join cannot hold any more."""

    number: ClassVar[int] = 6
    ended_ns: int


Ended = Succeeded | Failed | Cancelled | Skipped
Phase = Blocked | Open | Leased | Ended
PHASE_COUNT = 7
BLOCKED = Blocked()


@dataclass(slots=True, eq=False)
class TaskRecord:
    """Everything a run knows of one task. Changed only by `evolve`, through `RunState.edit`.

    epoch: the newest fencing token, 0 before the first lease; rises for ever.
    retry: which retry of the run opened this activation, 0 = none.
    tries: attempts of this activation that were consumed (released ones are not).
    returns: how often in a row holders gave it back, no failure, loss or long work between.
    ready_ns: when it first became ready in this activation, 0 before.
    outcomes: digest of the accepted word of each epoch's holder: tells a repeat from a conflict.
    refused_epochs: granted epochs with a recorded refused write.
    waiting_count, succeeded_count, broken_count: of what the join counts: not ended; ended well;
      ended so that ALL_SUCCEEDED cannot hold. Kept while Blocked.
    changed_version: of the newest fact that touched it.
    """

    spec: TaskSpec
    owner: object
    spawner: TaskName | None = None
    depth: int = 0
    phase: Phase = BLOCKED
    epoch: int = 0
    activation: int = 1
    retry: int = 0
    tries: int = 0
    returns: int = 0
    ready_ns: int = 0
    failure: Failure | None = None
    details: Payload | None = None
    last_lease: Leased | None = None
    waiting_count: int = 0
    succeeded_count: int = 0
    broken_count: int = 0
    changed_version: int = 0
    outcomes: dict[int, bytes] = field(default_factory=dict)
    refused_epochs: frozenset[int] = frozenset()
    dependents: Sequence[TaskName] = ()
    subtree_dependents: Sequence[TaskName] = ()
    children: Sequence[TaskName] = ()

    @property
    def name(self) -> TaskName:
        """The full name inside the run."""
        return self.spec.name

    @property
    def ended(self) -> bool:
        """Whether its own events ended it."""
        return self.phase.number > Leased.number

    @property
    def left_alone(self) -> bool:
        """Whether it failed or was cancelled as the plan allows: not retried unless it is named."""
        phase = self.phase
        if isinstance(phase, Failed):
            return self.spec.failure_ignored
        return isinstance(phase, Cancelled) and phase.unneeded

    def copy(self, owner: object) -> TaskRecord:
        """Return a record of the same facts that `owner` may change."""
        return TaskRecord(
            spec=self.spec,
            owner=owner,
            spawner=self.spawner,
            depth=self.depth,
            phase=self.phase,
            epoch=self.epoch,
            activation=self.activation,
            retry=self.retry,
            tries=self.tries,
            returns=self.returns,
            ready_ns=self.ready_ns,
            failure=self.failure,
            details=self.details,
            last_lease=self.last_lease,
            waiting_count=self.waiting_count,
            succeeded_count=self.succeeded_count,
            broken_count=self.broken_count,
            changed_version=self.changed_version,
            outcomes=dict(self.outcomes),
            refused_epochs=self.refused_epochs,
            dependents=tuple(self.dependents),
            subtree_dependents=tuple(self.subtree_dependents),
            children=tuple(self.children),
        )


def with_name(names: Sequence[TaskName], name: TaskName) -> Sequence[TaskName]:
    """Return a record's own names and one more.

    Most tasks never have any: a list is made with the first, and grows in place.
    """
    if isinstance(names, list):
        names.append(name)
        return names
    return [*names, name]
