"""What the shell reads from a run: what to offer, to arm, to signal, to show.

Each answer costs the task or the few values it is about, never the run, except where a name says
`every_`. Reading never changes the state. Instants are UTC nanoseconds; READY or WAITING(backoff)
is computed here against the reader's `now_ns`, because time makes nothing true in the fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import run_pb2 as pb
from stretto_core.ids import SessionId, TaskName, WorkerId

from stretto_kernel.domain.run.commands import Timer
from stretto_kernel.domain.run.plan import Labels
from stretto_kernel.domain.run.state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A task that may be leased, from `not_before_ns` on.

    epoch: its newest granted; the lease will bear the next.
    """

    task: TaskName
    epoch: int
    queue: str
    executor: str
    priority: int
    ready_ns: int
    not_before_ns: int
    required_labels: Labels
    preferred_labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLease:
    """A lease whose holder's word counts.

    attempt_deadline_ns: when its attempt timeout passes; None = never.
    """

    task: TaskName
    epoch: int
    activation: int
    attempt: int
    worker_id: WorkerId
    session_id: SessionId
    leased_ns: int
    ttl_ns: int
    queue: str
    attempt_deadline_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an attempt is given: resolved inputs by name, and their digest (SHA-256, 32 bytes)."""

    inputs: Mapping[str, Payload]
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal:
    """A lease holder must be told to stop cooperatively, at the latest by `deadline_ns`."""

    task: TaskName
    epoch: int
    deadline_ns: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When a timer passes, and what it is armed for."""

    at_ns: int
    timer: Timer


def offer(state: RunState, task: TaskName) -> Offer | None:
    """Return the task as it may be offered, or None when it may not."""
    raise NotImplementedError


def every_offer(state: RunState) -> Iterator[Offer]:
    """Yield every task that may be offered: for recovery, and when a hold was lifted."""
    raise NotImplementedError


def open_lease(state: RunState, task: TaskName) -> OpenLease | None:
    """Return the task's lease, or None when it has none or it is revoked."""
    raise NotImplementedError


def every_open_lease(state: RunState) -> Iterator[OpenLease]:
    """Yield every lease whose holder's word counts."""
    raise NotImplementedError


def stop_signal(state: RunState, task: TaskName) -> StopSignal | None:
    """Return what the holder of the task's open lease must be told, or None."""
    raise NotImplementedError


def manifest(state: RunState, task: TaskName) -> Manifest:
    """Return what the attempt leased by the newest event is given.

    Ask right after that AttemptLeased was applied: the manifest follows from its version.
    """
    raise NotImplementedError


def task_due(state: RunState, task: TaskName) -> tuple[Due, ...]:
    """Return every timer of the task; those armed before and not named here are void."""
    raise NotImplementedError


def run_due(state: RunState) -> tuple[Due, ...]:
    """Return every timer of the run itself."""
    raise NotImplementedError


def every_due(state: RunState) -> Iterator[Due]:
    """Yield every timer of the run and its tasks: for recovery, and when a hold was lifted."""
    raise NotImplementedError


def task_state(state: RunState, task: TaskName, now_ns: int) -> pb.TaskState.ValueType:
    """Return where the task stands, run-wide facts included."""
    raise NotImplementedError


def wait_reason(state: RunState, task: TaskName, now_ns: int) -> pb.WaitReason.ValueType:
    """Return what a WAITING task waits for."""
    raise NotImplementedError


def run_state(state: RunState) -> pb.RunState.ValueType:
    """Return where the run stands, as shown: PAUSED while held, CANCELLING while stopping."""
    raise NotImplementedError


def task_counts(state: RunState, now_ns: int) -> pb.TaskCounts:
    """Return how many tasks stand in which state; costs the tasks in backoff."""
    raise NotImplementedError


def wake_up(state: RunState) -> str | None:
    """Return the name of something that will move the run on; None only when it has ended."""
    raise NotImplementedError
