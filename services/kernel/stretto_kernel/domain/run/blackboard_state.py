"""The blackboard in a run's state: its entries as the newest fact left them, and what that changed.

A run without one has no `Board`. The revision of an entry is the version of the run that wrote it,
so nothing has to be kept of what was deleted. An entry is a value that all states share; the table
of entries belongs to one state, and is copied when another one first changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stretto.blackboard.v1.blackboard_pb2 import Writer
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1.events_pb2 import BoardEntriesDeleted, BoardEntriesWritten


@dataclass(frozen=True, slots=True)
class BoardEntry:
    """An entry as one fact left it. value: None = it was deleted. written_ns: UTC nanoseconds."""

    key: str
    revision: int
    value: Payload | None
    writer: Writer
    written_ns: int

    @property
    def size_bytes(self) -> int:
        """What it counts for, about what it takes."""
        return entry_bytes(self.key, self.value)


def entry_bytes(key: str, value: Payload | None) -> int:
    """Return what an entry counts for; a blob counts as its name."""
    return len(key) + (0 if value is None else value.ByteSize())


@dataclass(slots=True, eq=False)
class Board:
    """The entries that are there, by key. newest: what the newest fact about them changed."""

    owner: object
    entries: dict[str, BoardEntry] = field(default_factory=dict)
    size_bytes: int = 0
    newest: tuple[BoardEntry, ...] = ()

    def apply(self, changes: tuple[BoardEntry, ...]) -> None:
        """Take over what one fact changed."""
        for change in changes:
            before = self.entries.pop(change.key, None)
            if before is not None:
                self.size_bytes -= before.size_bytes
            if change.value is not None:
                self.entries[change.key] = change
                self.size_bytes += change.size_bytes
        self.newest = changes

    def copy(self, owner: object) -> Board:
        """Return the same entries for another state to change."""
        return Board(owner, dict(self.entries), self.size_bytes, self.newest)


BoardEvent = BoardEntriesWritten | BoardEntriesDeleted


def changes_of(event: BoardEvent, version: int, time_ns: int) -> tuple[BoardEntry, ...]:
    """Return the entries as a fact leaves them, copied: none keeps the whole fact in memory.

    version, time_ns: of the fact.
    """
    writer = Writer()
    writer.CopyFrom(event.writer)
    if isinstance(event, BoardEntriesDeleted):
        return tuple(BoardEntry(key, version, None, writer, time_ns) for key in event.keys)
    changes = []
    for entry in event.entries:
        value = Payload()
        value.CopyFrom(entry.value)
        changes.append(BoardEntry(entry.key, version, value, writer, time_ns))
    return tuple(changes)
