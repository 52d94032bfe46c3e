"""The words of the worker's session machine: what bodies report, and what it asks of the shell.

Pure data. Spans and instants are nanoseconds; `deadline_ns` is wall time (UTC since the Unix
epoch), because it comes from the kernel's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from stretto.common.v1 import failure_pb2, lease_pb2, payload_pb2
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2


class LeaseKey(NamedTuple):
    """Names one lease: the work item and the epoch it was leased under."""

    work_item: str
    epoch: int


def key_of(token: lease_pb2.LeaseToken) -> LeaseKey:
    """Return the lease a token names, with or without its secret."""
    return LeaseKey(token.work_item, token.epoch)


class StopKind(IntEnum):
    """How a body is asked to stop; a greater one overrides a lesser."""

    INTERRUPT = 1
    """Stop and give the work item back; it consumes no try."""
    CANCEL = 2
    """Stop cooperatively until the deadline."""
    REVOKE = 3
    """The lease is gone: end at once, whatever it would still say is dropped."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The body yielded a result and, optionally, tasks to add below its own in the same append.

    artifacts: files it leaves behind, put already.
    """

    result: payload_pb2.Payload | None = None
    spawned: tuple[plan_pb2.TaskSpec, ...] = ()
    artifacts: tuple[payload_pb2.Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The body failed; the failure says whether another attempt may help."""

    failure: failure_pb2.Failure


@dataclass(frozen=True, slots=True)
class Released:
    """The body could not be run or carried on here; it is given back and consumes no try."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The body ended because it was asked to; the session knows what was asked."""


Ending = Succeeded | Failed | Released | Stopped
"""How a body ended, in its executor's word."""


@dataclass(frozen=True, slots=True)
class Start:
    """Begin the body of this assignment, once; then report its ending, once."""

    assignment: work_pb2.Assignment


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a body. May come again with a greater kind or another deadline."""

    key: LeaseKey
    kind: StopKind
    reason: str
    deadline_ns: int | None = None


@dataclass(frozen=True, slots=True)
class SpawnAnswered:
    """A spawn was committed (`reason` empty) or refused (the stable reason word and a message)."""

    key: LeaseKey
    request_id: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class OutcomeSettled:
    """The kernel gave its last word on an outcome: committed (`reason` empty) or refused."""

    key: LeaseKey
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CloseStream:
    """The stream is dead or does not keep to the protocol: drop it and connect again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exit:
    """A newer process of this worker took over: end this one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Somebody asked for this process to end: drain, then exit."""

    reason: str


Effect = Leave | Start | Stop | SpawnAnswered | OutcomeSettled | CloseStream | Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What the hello says of the process, and the limits of its session.

    worker_id, session_id: see Hello. slot_count: bodies at once, at least 1.
    outcome_pending_count_max: outcomes without receipt beyond which no credit is given.
    version: of the software, for people.
    idle_timeout_ns: silence that ends a stream before a welcome has said another.
    details_interval_ns: newest heartbeat details leave no later than this, and no oftener.
    """

    worker_id: str
    session_id: str
    executors: tuple[str, ...]
    queues: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = field(default=())
    slot_count: int = 16
    control_address: str = ""
    version: str = ""
    outcome_pending_count_max: int = 2_000
    idle_timeout_ns: int = 10_000_000_000
    details_interval_ns: int = 500_000_000
