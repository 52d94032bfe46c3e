"""What the client returns: runs, tasks, changes and events as plain frozen values.

Owns the translation from the contract's messages; JSON payloads are parsed, instants are aware
datetimes in UTC. Nothing here talks to anyone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from stretto.common.v1 import failure_pb2, lease_pb2, payload_pb2, principal_pb2
from stretto.eventlog.v1 import event_log_service_pb2
from stretto.run.v1 import run_pb2, run_service_pb2
from stretto_core.ids import RunId

from stretto_sdk.artifacts import Artifact, artifact_of
from stretto_sdk.shredded import SHREDDED
from stretto_sdk.values import blob_of
from stretto_sdk.words import member_of, word_of


class RunState(StrEnum):
    """Where a run stands."""

    PENDING = "PENDING"
    PLANNING = "PLANNING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    KILLED = "KILLED"
    UNKNOWN = "UNKNOWN"
    """One that only a newer kernel knows."""

    @property
    def ended(self) -> bool:
        """No event but a retry changes it any more."""
        return self in _ENDED


_ENDED = {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.KILLED}


class TaskState(StrEnum):
    """Where a task stands."""

    PENDING = "PENDING"
    READY = "READY"
    RUNNING = "RUNNING"
    VERIFYING = "VERIFYING"
    WAITING = "WAITING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    UNKNOWN = "UNKNOWN"
    """One that only a newer kernel knows."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task or a run did not succeed: `reason` is the stable word, `message` is for people.

    task: where it began, in a run's failure. retry_after: how long the next attempt waits at least.
    """

    reason: str
    message: str
    retryable: bool = False
    task: str = ""
    details: object = None
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCounts:
    """How many tasks of a run stand in which state."""

    total: int = 0
    pending: int = 0
    ready: int = 0
    running: int = 0
    waiting: int = 0
    verifying: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0

    @property
    def ended(self) -> int:
        """How many have ended, however."""
        return self.succeeded + self.failed + self.cancelled + self.skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in one partition's log: proves where a write of yours stands."""

    partition: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as of `version` of its stream; also what every call takes as "the run".

    input, output: a Blob when it is too large to stand here. output: once SUCCEEDED.
    failure: once FAILED. end_reason: once CANCELLED or KILLED.
    holds: reasons that keep it from dispatching, by hold id.
    encrypted: its values have a data key. shred_time: when that was destroyed, shred_reason: why;
    every value is SHREDDED since.
    position: where the log holds the write that returned this; None from a read.
    """

    run_id: RunId
    namespace: str
    state: RunState
    version: int
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tasks: TaskCounts = field(default_factory=TaskCounts)
    input: object = None
    output: object = None
    failure: Failure | None = None
    end_reason: str = ""
    holds: Mapping[str, str] = field(default_factory=dict)
    creator: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    end_time: datetime | None = None
    growing: bool = False
    encrypted: bool = False
    shred_time: datetime | None = None
    shred_reason: str = ""
    position: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of a run as read. epoch: its newest fencing token, 0 before the first lease.

    result: a Blob when it is too large to stand here. artifacts: files it left behind, by name.

    not_before_time: while it waits for its back-off, when the next attempt may begin.
    """

    name: str
    state: TaskState
    executor: str
    wait_reason: str = ""
    activation: int = 1
    attempt: int = 0
    epoch: int = 0
    worker_id: str = ""
    result: object = None
    failure: Failure | None = None
    queue: str = ""
    dependencies: tuple[str, ...] = ()
    subtree_dependencies: tuple[str, ...] = ()
    spawner: str = ""
    clean_up: bool = False
    not_before_time: datetime | None = None
    ready_time: datetime | None = None
    lease_time: datetime | None = None
    end_time: datetime | None = None
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """One step of a watch. tasks: those changed since the step before, when asked for."""

    run: Run
    tasks: tuple[Task, ...]
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One recorded fact. type: the full name of its message; body: the message as parsed JSON.

    principal: who made it true. request_id: of the call that caused it; "" when none did, then
    cause: the event_id of the fact before it. correlation_id: shared by all that one call led to.
    cursor: resume from it and miss nothing after this event; the events that came in one message
    with it may come again. "": from the first event (always so when read by stream).
    """

    stream: str
    version: int
    type: str
    time: datetime | None
    principal: str
    request_id: str
    position: Position
    body: Mapping[str, object]
    cursor: str = ""
    event_id: str = ""
    cause: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCheck:
    """What a check of the hash chain found. broken: the first bad link, "" when all is whole."""

    whole: bool
    event_count: int
    stream_count: int
    broken: str = ""


def run_of(message: run_pb2.Run, position: lease_pb2.Position | None = None) -> Run:
    """Return a run's message as a value."""
    counts = message.task_counts
    return Run(
        run_id=RunId(message.run_id),
        namespace=message.name.split("/")[1] if message.name else "default",
        state=member_of(RunState, run_pb2.RunState, message.state),
        version=message.version,
        name=message.display_name,
        labels=dict(message.labels),
        tasks=TaskCounts(
            total=counts.total_count,
            pending=counts.pending_count,
            ready=counts.ready_count,
            running=counts.running_count,
            waiting=counts.waiting_count,
            verifying=counts.verifying_count,
            succeeded=counts.succeeded_count,
            failed=counts.failed_count,
            cancelled=counts.cancelled_count,
            skipped=counts.skipped_count,
        ),
        input=value_of(message.input),
        output=value_of(message.output),
        failure=_failure(message, message.failure),
        end_reason=message.end_reason,
        holds={hold.hold_id: hold.reason for hold in message.holds},
        creator=_principal(message.creator),
        create_time=optional_time(message, message.create_time, "create_time"),
        update_time=optional_time(message, message.update_time, "update_time"),
        end_time=optional_time(message, message.end_time, "end_time"),
        growing=message.growing,
        encrypted=message.encrypted,
        shred_time=optional_time(message, message.shred_time, "shred_time"),
        shred_reason=message.shred_reason,
        position=None if position is None else _position(position),
    )


def task_of(message: run_pb2.Task) -> Task:
    """Return a task's message as a value."""
    return Task(
        name=message.task,
        state=member_of(TaskState, run_pb2.TaskState, message.state),
        executor=message.executor,
        wait_reason=word_of(run_pb2.WaitReason, message.wait_reason),
        activation=message.activation,
        attempt=message.attempt,
        epoch=message.epoch,
        worker_id=message.worker_id,
        result=value_of(message.result),
        artifacts=tuple(artifact_of(each) for each in message.artifacts),
        failure=_failure(message, message.failure),
        queue=message.queue,
        dependencies=tuple(message.dependencies),
        subtree_dependencies=tuple(message.subtree_dependencies),
        spawner=message.spawner,
        clean_up=message.clean_up,
        not_before_time=optional_time(message, message.not_before_time, "not_before_time"),
        ready_time=optional_time(message, message.ready_time, "ready_time"),
        lease_time=optional_time(message, message.lease_time, "lease_time"),
        end_time=optional_time(message, message.end_time, "end_time"),
    )


def change_of(message: run_service_pb2.WatchRunResponse) -> RunChange:
    """Return a watch's message as a value."""
    return RunChange(
        run=run_of(message.run),
        tasks=tuple(task_of(each) for each in message.tasks),
        ended=message.ended,
    )


def event_of(message: event_log_service_pb2.LoggedEvent, cursor: str = "") -> Event:
    """Return a logged event, read with its body as JSON, as a value."""
    event = message.event
    return Event(
        stream=event.stream,
        version=event.version,
        type=event.type,
        time=optional_time(event, event.time, "time"),
        principal=_principal(event.principal),
        request_id=event.request_id,
        position=_position(message.position),
        body=json.loads(message.body_json) if message.body_json else {},
        cursor=cursor,
        event_id=event.event_id,
        cause=event.causation_id,
        correlation_id=event.correlation_id,
    )


def value_of(payload: payload_pb2.Payload) -> object:
    """Return what a payload holds: parsed JSON, bytes, a Blob to fetch, None for an unset one.

    SHREDDED for one that nobody can read any more.
    """
    match payload.WhichOneof("value"):
        case "json":
            value: object = json.loads(payload.json)
            return value
        case "data":
            return payload.data
        case "blob" | "composed":
            return blob_of(payload)
        case "shredded":
            return SHREDDED
        case _:
            return None


def _failure(holder: Message, failure: failure_pb2.Failure) -> Failure | None:
    if not holder.HasField("failure"):
        return None
    return Failure(
        reason=failure.reason,
        message=failure.message,
        retryable=failure.retryable,
        task=failure.task,
        details=value_of(failure.details),
        retry_after=failure.retry_after.ToTimedelta() if failure.HasField("retry_after") else None,
    )


def _principal(principal: principal_pb2.Principal) -> str:
    return principal.name or word_of(principal_pb2.PrincipalKind, principal.kind).lower()


def _position(position: lease_pb2.Position) -> Position:
    return Position(partition=position.partition, number=position.number)


def optional_time(holder: Message, stamp: Timestamp, name: str) -> datetime | None:
    """Return the stamp in a field of a message; None when it is absent."""
    if not holder.HasField(name):
        return None
    # By hand: every run told has two of them, and `ToDatetime` takes three times as long.
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1_000)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
