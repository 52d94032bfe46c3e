"""The values of task logs: what lease holders write, what is stored of it, the port of a store.

Instants are UTC nanoseconds since the Unix epoch. A position is an entry's place in its run's log:
1, 2, 3 ... without holes. That is also how two kernels that both believe to own a run are kept
apart here: who stores a position second is refused and looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from stretto.tasklog.v1.task_log_pb2 import LogStream
from stretto_core.errors import Conflict, Exhausted
from stretto_core.ids import RunId, TaskName

from stretto_kernel.app.data_key import DataKey

CONTEXT = b"stretto.task_log.v1"
"""Says of ciphertext that it is of a task log."""
GONE = b"(shredded)\n"
"""Stands for what nobody can read any more."""
EVERY_TASK = TaskName("")


class LeaseId(NamedTuple):
    """One lease of a task: whose sequences count the chunks."""

    run_id: RunId
    task: TaskName
    epoch: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes as a worker sends them; see `LogChunk`."""

    sequence: int
    stream: LogStream.ValueType
    time_ns: int
    content: bytes
    dropped_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What was written under one lease, checked and fenced. key: it is stored encrypted with it."""

    lease: LeaseId
    activation: int
    attempt: int
    chunks: Sequence[Chunk]
    key: DataKey | None = None


class LeaseHead(NamedTuple):
    """How far the log of one lease is."""

    sequence: int = 0
    entry_count: int = 0
    bytes_count: int = 0
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """Some bytes of a log. head: how far the lease's log is with it.

    key: what its content is stored encrypted with; None = clear, or as it was read.
    """

    position: int
    lease: LeaseId
    activation: int
    attempt: int
    stream: LogStream.ValueType
    time_ns: int
    content: bytes
    dropped_bytes: int
    head: LeaseHead
    key: DataKey | None = None

    @property
    def stored_content(self) -> bytes:
        """The content as it is stored: encrypted, its last byte still tells whether a line ends."""
        if self.key is None:
            return self.content
        end = b"\n" if self.content.endswith(b"\n") else b"\x00"
        return self.key.encrypt(self.content, CONTEXT) + end

    def opened(self, key: DataKey | None) -> Entry:
        """Return an entry as it was read of a run with a data key (None: destroyed), in clear."""
        content = GONE if key is None else key.decrypt(self.content[:-1], CONTEXT)
        return replace(self, content=content)

    @property
    def truncated(self) -> bool:
        """The rest of what the attempt wrote is not kept."""
        return self.head.truncated


class Heads(NamedTuple):
    """How far the logs of some runs and leases are; what has no entry is absent."""

    positions: dict[RunId, int]
    leases: dict[LeaseId, LeaseHead]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries of a run: all, one task's (task set), one attempt's (attempt > 0)."""

    run_id: RunId
    task: TaskName = EVERY_TASK
    attempt: int = 0

    def holds(self, entry: Entry) -> bool:
        """Whether the entry is one of them."""
        if self.task and entry.lease.task != self.task:
            return False
        return not self.attempt or entry.attempt == self.attempt


class Page(NamedTuple):
    """Some entries in order; `reached` is the position up to which all of them were looked at."""

    entries: list[Entry]
    reached: int


class TailStart(NamedTuple):
    """Where a tail begins: after a position, and after so many lines of what follows it."""

    after_position: int
    skip_line_count: int


class PositionTaken(Conflict):
    """Another process stored entries of the run: nothing of this call is stored; look again."""

    reason = "VERSION_CONFLICT"


class TaskLogsOverloaded(Exhausted):
    """More is waiting to be stored, or more readers are here, than the limit allows."""

    reason = "OVERLOADED"


class TaskLogStore(Protocol):
    """Where task logs are kept. Every call raises StoreDown when the store does not answer."""

    async def heads(self, leases: Sequence[LeaseId]) -> Heads:
        """How far the logs of these leases, and of their runs, are."""
        ...

    async def append(self, entries: Sequence[Entry], now_ns: int) -> None:
        """Store entries, all or none. Raises PositionTaken."""
        ...

    async def read(self, selection: Selection, *, after_position: int) -> Page:
        """Read a page of entries after a position, oldest first; a page without any is the end."""
        ...

    async def tail(self, selection: Selection, *, line_count: int) -> TailStart:
        """Find where the last `line_count` lines of what is kept begin."""
        ...
