"""The smallest owner of a group writer: decides ahead of the disk, answers behind it.

Each command adds one event to each of its streams. The ledger keeps what the kernel's shell must
keep: heads as decided, which run ahead, heads as committed, and the commands that wait for their
commit; after a drop it goes back to the committed heads and decides them again, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto_core.errors import Refusal
from stretto_core.eventlog.chain import EMPTY_HEAD, head_of
from stretto_core.eventlog.group_writer import GroupWriter
from stretto_core.eventlog.port import OwnedLog, PartitionMoved
from stretto_core.eventlog.recorded import NewEvent, StreamHead
from stretto_core.eventlog.writer import Committed, WriterLimits

from tests.contract.eventlog.events import StreamWriter


class Ledger:
    """Commands in, acknowledged commands out."""

    def __init__(self, owned: OwnedLog, *, limits: WriterLimits | None = None) -> None:
        self.acknowledged: list[str] = []
        self.drops: list[Refusal] = []
        self.closed_by: Refusal | None = None
        self._decided: dict[str, StreamHead] = {}
        self._committed: dict[str, StreamHead] = {}
        self._waiting: dict[int, tuple[str, list[NewEvent]]] = {}
        self._decisions = 0
        self.writer = GroupWriter(owned, self, limits=limits)

    def command(self, text: str, *streams: str) -> None:
        """Decide and submit; the text is acknowledged once it is on disk."""
        events = [self._decide(text, stream) for stream in streams]
        self._waiting[self.writer.submit(events)] = (text, events)

    def _decide(self, text: str, stream: str) -> NewEvent:
        self._decisions += 1
        head = self._decided.get(stream) or self._committed.get(stream, EMPTY_HEAD)
        # Another seed gives another event id: a command decided again is another event.
        writer = StreamWriter(stream, seed=self._decisions, head=head)
        event = writer.next(text)
        self._decided[stream] = writer.head
        return event

    def batches_committed(self, commits: Sequence[Committed]) -> None:
        for commit in commits:
            text, events = self._waiting.pop(commit.batch)
            self.acknowledged.append(text)
            for event in events:
                self._committed[event.stream] = head_of(event.stored_bytes)

    def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
        self.drops.append(cause)
        dropped = [self._waiting.pop(number) for number in batches]
        assert not self._waiting, "a drop is of everything that is not committed"
        self._decided.clear()
        if not isinstance(cause, PartitionMoved):
            for text, events in dropped:
                self.command(text, *(event.stream for event in events))

    def writer_closed(self, cause: Refusal) -> None:
        self.closed_by = cause
