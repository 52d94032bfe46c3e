"""The committed events that no seal covers yet: their tree, cut where a seal is due.

Pure. Costs a hash for each event and one more when it is cut off, and memory for the hash until
then.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from stretto_core.eventlog.merkle import leaf_hash, root_of
from stretto_core.eventlog.seals import Covered
from stretto_core.ids import EventId, StreamId


class Cut(NamedTuple):
    """What the next seal covers, and the last event of it."""

    covered: Covered
    event_id: EventId


class Unsealed:
    """Grows event by event, in order of position, from the last one that is sealed.

    seals: the stream of the seals. Seals themselves never make one due, or there would be no end
    to them: they are covered by the seal that something else makes due.
    events_max: as soon as there are so many a seal is due.
    """

    def __init__(self, seals: StreamId, after_position: int, *, events_max: int) -> None:
        self.position = after_position
        """The last position that was added."""
        self.event_count = 0
        """How many were added."""
        self.has_news = False
        """Whether something else than seals is not cut off yet."""
        self.cuts: deque[Cut] = deque()
        """What seals are due for, in order."""
        self._seals = seals
        self._after_position = after_position
        self._events_max = events_max
        self._leaves: list[bytes] = []
        self._event_id = EventId("")

    def add(self, position: int, stream: StreamId, event_hash: bytes, event_id: EventId) -> None:
        """Add the next event; `event_hash` is the hash its stream's chain has after it."""
        assert position > self.position, "events are covered in order, and once"
        self._leaves.append(leaf_hash(position, event_hash))
        self.position = position
        self.event_count += 1
        self._event_id = event_id
        if stream != self._seals:
            self.has_news = True
        if self.has_news and len(self._leaves) >= self._events_max:
            self.cut()

    def cut(self) -> None:
        """Let a seal be due for all that was added, unless that is nothing but seals."""
        if not self.has_news:
            return
        covered = Covered(
            self._after_position, self.position, len(self._leaves), root_of(self._leaves)
        )
        self.cuts.append(Cut(covered, self._event_id))
        self._after_position, self._leaves, self.has_news = self.position, [], False
