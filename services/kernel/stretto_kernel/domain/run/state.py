"""The folded state of one run: one owned mutable value, changed in place by `evolve` alone.

Every change of an event costs the tasks it reaches and nothing more: counts are kept per phase,
joins count, and run-wide facts are one value here from which task states are derived. A `clone`
goes its own way, for exploration; it copies a task record when it first changes it. Instants are
UTC nanoseconds.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import NamedTuple

from google.protobuf.message import Message
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload
from stretto_core.ids import Namespace, RequestId, RunId, TaskName

from stretto_kernel.domain.requests import Requests
from stretto_kernel.domain.run.blackboard_state import Board
from stretto_kernel.domain.run.holds import NO_HOLDS, Holds
from stretto_kernel.domain.run.plan import Policies
from stretto_kernel.domain.run.task import PHASE_COUNT, Leased, Open, Phase, TaskRecord

RunEvent = Message
"""A fact of a run's stream: one of the messages of stretto/run/v1/events.proto."""


@dataclass(frozen=True, slots=True)
class Start:
    """What the run was started with. `request_digest` keeps its request id its own for ever."""

    request_id: RequestId
    request_digest: bytes
    started_ns: int
    policies: Policies
    input: Payload | None
    labels: dict[str, str]
    display_name: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """Ordinary tasks are asked to stop and none starts; `stamp` is the version that began it.

    cancelled: somebody asked for it; then `reason` is theirs, and the run ends CANCELLED.
    grace_over: leases of ordinary tasks that were still open are revoked.
    """

    stamp: int
    cancelled: bool
    reason: str
    since_ns: int
    grace_ns: int
    grace_over: bool = False

    @property
    def deadline_ns(self) -> int:
        """When the grace is over."""
        return self.since_ns + self.grace_ns


@dataclass(frozen=True, slots=True)
class CleaningUp:
    """Every ordinary task has ended and clean-up tasks may run.

    timed_out: the clean-up's time is up; what was left of it is given up, its leases revoked.
    """

    since_ns: int
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopening:
    """How far the re-opening of a retried run is: see `reopening`.

    step_count: how many steps a fact does; slice_count: how many facts did theirs.
    named: the only tasks asked for; empty = all. waiting: tasks to reset before others are looked
      at. passed: how many of the first `task_count` tasks were looked at.
    resetting: False once everything is reset and joins are judged.
    """

    step_count: int
    named: frozenset[TaskName]
    waiting: tuple[TaskName, ...]
    task_count: int
    passed: int = 0
    resetting: bool = True
    slice_count: int = 0


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The terminal fact: RunSucceeded, RunFailed, RunCancelled or RunKilled."""

    event: RunEvent
    ended_ns: int


@dataclass(frozen=True, slots=True)
class Shredding:
    """What the run carried is forgotten, and since when."""

    reason: str
    since_ns: int


class Touched(NamedTuple):
    """What changed since it was last asked: task names, and whether a run-wide fact came.

    After a run-wide fact (hold, cancel, fail-fast, end ...) every offer, lease, signal and timer of
    the run may have changed, not only those of the tasks named.
    """

    tasks: tuple[TaskName, ...]
    run_wide: bool


@dataclass(slots=True, eq=False)
class RunState:
    """One run. `version` 0: not started.

    tasks: by full name, in the order they came to be.
    counts, clean_up_counts: ordinary and clean-up tasks per phase number.
    open_tasks, leased_tasks, backing_off: names by phase (values unused), the last of tasks opened
      with a wait.
    left_alone_count: ordinary tasks that failed or were cancelled as the plan allows.
    opened_ns: when it was started or last retried; retry_count: how often it was.
    failure: the first failure of an ordinary task, or of the run itself, that decides its end.
    requests: digest, time and version per request id, oldest first, of the last 24 h.
    board: the blackboard, once something was written on it.
    key_id: the run's data key, 0 = none. digest_key: what its digests over values are made with;
      b"" without a key, and where only ciphertext is folded: no digest is compared there.
    wide_version: the version of the newest run-wide fact.
    """

    run_id: RunId
    namespace: Namespace
    version: int = 0
    time_ns: int = 0
    start: Start | None = None
    tasks: dict[TaskName, TaskRecord] = field(default_factory=dict)
    task_count: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * PHASE_COUNT)
    clean_up_counts: list[int] = field(default_factory=lambda: [0] * PHASE_COUNT)
    clean_up_tasks: list[TaskName] = field(default_factory=list)
    open_tasks: dict[TaskName, None] = field(default_factory=dict)
    leased_tasks: dict[TaskName, None] = field(default_factory=dict)
    backing_off: dict[TaskName, None] = field(default_factory=dict)
    left_alone_count: int = 0
    opened_ns: int = 0
    retry_count: int = 0
    reopening: Reopening | None = None
    slice_count: int = 0
    slice_ns: int = 0
    sealed: bool = False
    holds: Holds = NO_HOLDS
    stopping: Stopping | None = None
    cleaning_up: CleaningUp | None = None
    end: RunEnd | None = None
    failure: Failure | None = None
    clean_up_failure: Failure | None = None
    requests: Requests = field(default_factory=Requests)
    board: Board | None = None
    key_id: int = 0
    digest_key: bytes = field(default=b"", repr=False)
    shredding: Shredding | None = None
    touched_tasks: dict[TaskName, None] = field(default_factory=dict)
    run_touched: bool = False
    wide_version: int = 0
    owner: object = field(default_factory=object)

    @property
    def policies(self) -> Policies:
        """The run-wide part of the plan; only of a started run."""
        assert self.start is not None, "the run has not started"
        return self.start.policies

    def keyed(self, digest: bytes) -> bytes:
        """Return what stands in facts for a digest over values: of a short one, no hint."""
        return hmac.digest(self.digest_key, digest, "sha256") if self.digest_key else digest

    def edit(self, name: TaskName) -> TaskRecord:
        """Return the record to change, this state's own, and note that it was touched."""
        record = self.own(name)
        self._touch(record)
        return record

    def own(self, name: TaskName) -> TaskRecord:
        """Return the record to change in a way that no reader sees."""
        record = self.tasks[name]
        if record.owner is not self.owner:
            record = record.copy(self.owner)
            self.tasks[name] = record
        return record

    def own_board(self) -> Board:
        """Return the blackboard to change, this state's own."""
        board = self.board
        if board is None:
            board = self.board = Board(self.owner)
        elif board.owner is not self.owner:
            board = self.board = board.copy(self.owner)
        return board

    def add(self, record: TaskRecord) -> None:
        """Add a new, blocked task."""
        self.tasks[record.name] = record
        self._touch(record)
        self.task_count += 1
        if record.spec.clean_up:
            self.clean_up_counts[record.phase.number] += 1
            self.clean_up_tasks.append(record.name)
        else:
            self.counts[record.phase.number] += 1

    def move(self, record: TaskRecord, phase: Phase) -> None:
        """Put an edited record into a phase and keep counts and indexes true."""
        spec = record.spec
        name = spec.name
        counts = self.clean_up_counts if spec.clean_up else self.counts
        before = record.phase
        counts[before.number] -= 1
        counts[phase.number] += 1
        if isinstance(before, Leased):
            self.leased_tasks.pop(name, None)
        elif isinstance(before, Open):
            self.open_tasks.pop(name, None)
            self.backing_off.pop(name, None)
        elif record.left_alone:
            self.left_alone_count -= not spec.clean_up
        record.phase = phase
        if isinstance(phase, Leased):
            self.leased_tasks[name] = None
        elif isinstance(phase, Open):
            self.open_tasks[name] = None
            if phase.not_before_ns > phase.ready_ns:
                self.backing_off[name] = None
        elif record.left_alone:
            self.left_alone_count += not spec.clean_up
        self._touch(record)

    def touch_all(self) -> None:
        """Note a run-wide fact."""
        self.run_touched = True
        self.wide_version = self.version

    def take_touched(self) -> Touched:
        """Return what `evolve` touched since the last call, and forget it."""
        touched = Touched(tuple(self.touched_tasks), self.run_touched)
        self.touched_tasks = {}
        self.run_touched = False
        return touched

    def changed_after(self, version: int) -> list[TaskName]:
        """Return the tasks whose own or run-wide facts came after a version, in their order."""
        if self.wide_version > version:
            return list(self.tasks)
        return [record.name for record in self.tasks.values() if record.changed_version > version]

    def _touch(self, record: TaskRecord) -> None:
        self.touched_tasks[record.name] = None
        record.changed_version = self.version

    def clone(self) -> RunState:
        """Return an equal state that shares task records until either changes one."""
        twin = _shallow(self)
        twin.owner = object()
        twin.tasks = dict(self.tasks)
        twin.counts = list(self.counts)
        twin.clean_up_counts = list(self.clean_up_counts)
        twin.clean_up_tasks = list(self.clean_up_tasks)
        twin.open_tasks = dict(self.open_tasks)
        twin.leased_tasks = dict(self.leased_tasks)
        twin.backing_off = dict(self.backing_off)
        twin.touched_tasks = dict(self.touched_tasks)
        twin.requests = self.requests.copy()
        self.owner = object()  # The records are shared from now on: this state copies on write too.
        return twin


def new_run(run_id: RunId, namespace: Namespace) -> RunState:
    """Return the state before the first event. `namespace` without the collection: "default"."""
    return RunState(run_id, namespace)


_values_of = attrgetter(*(each.name for each in fields(RunState)))


def _shallow(state: RunState) -> RunState:
    return RunState(*_values_of(state))
