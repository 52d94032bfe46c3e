"""The log port: one partition's append-only record, and the right to append to it.

Owns no state. Adapters: `memory` (tests, simulator) and `postgres` (threads exist only behind it).
`EventLog` reads and needs no ownership; `OwnedLog` appends under an owner epoch, which is compared
where the events are stored: whoever raised the epoch last is the only one who can append. Nothing
read is ever uncommitted. An adapter's calls may be cancelled at any await; a cancelled append is
an unknown one. Units: positions and versions as in `recorded`; sizes in bytes.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stretto_core.errors import Conflict, FailedPrecondition, Unavailable
from stretto_core.eventlog.recorded import LeaseKeys, NewEvent, Page, StoredEvent, StreamHead
from stretto_core.ids import Partition, StreamId

if TYPE_CHECKING:
    from stretto_core.eventlog.seals import SealKey

PAGE_EVENTS_MAX = 5_000
"""The largest page any read gives."""
PAGE_BYTES_MAX = 8 * 1024 * 1024
"""A page ends early when its stored bytes exceed this; it always has at least one event if any."""


class VersionConflict(Conflict):
    """A (stream, version) of the group exists already: nothing of the group is stored."""

    reason = "VERSION_CONFLICT"


class PartitionMoved(Unavailable):
    """Another owner raised the epoch: nothing is stored, and this ownership is over for good."""

    reason = "PARTITION_MOVED"


class PartitionHeld(FailedPrecondition):
    """Another process owns the partition now: do not start a second one on it."""

    reason = "PARTITION_HELD"


class StoreDown(Unavailable):
    """The store cannot be reached or did not answer in time; nothing of this call is stored."""

    reason = "STORE_DOWN"


class AppendUnknown(Unavailable):
    """The store may or may not have stored the group: settle it before anything else."""

    reason = "APPEND_UNKNOWN"


class SettledAs(enum.Enum):
    """What became of a group whose append had no clear answer. Final: it cannot change any more."""

    COMMITTED = "committed"
    NOT_COMMITTED = "not committed"
    MIXED = "mixed"
    """Some events are stored and some are not: the store broke its word; stop with INTERNAL."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A settled group; `positions` has one entry per event when it is committed, else it is ()."""

    outcome: SettledAs
    positions: tuple[int, ...] = ()


class OwnedLog(Protocol):
    """The right to append to one partition, under an owner epoch. One call at a time."""

    @property
    def owner_epoch(self) -> int:
        """The epoch the next append presents; rises by itself when a settlement renews it."""
        ...

    async def append(self, events: Sequence[NewEvent]) -> tuple[int, ...]:
        """Store a group of events of any streams, in order, all or nothing; return their positions.

        Returns after the commit is on disk. Raises VersionConflict, PartitionMoved or StoreDown
        when nothing is stored for sure, AppendUnknown otherwise (then call `settle`).
        """
        ...

    async def settle(self, events: Sequence[NewEvent]) -> Settlement:
        """Find out, finally, what became of a group; () only makes sure of the connection.

        Ends whatever the lost append still does, takes the ownership again and raises the epoch,
        so that a late commit of the lost append is impossible afterwards. Idempotent. Raises
        StoreDown while the store cannot be reached (call again). When another owner has taken the
        partition the answer still holds, and every later append raises PartitionMoved.
        """
        ...

    async def probe(self) -> None:
        """Prove that this ownership held at some instant during the call.

        Raises PartitionMoved, or StoreDown when the store cannot be reached (then `settle(())`).
        """
        ...

    async def release(self) -> None:
        """Give the partition up so that another process may own it at once. Idempotent.

        Every later call of the others raises PartitionMoved.
        """
        ...


class EventLog(Protocol):
    """One partition's record, read without owning it."""

    @property
    def partition(self) -> Partition:
        """The partition this log is."""
        ...

    async def acquire(self) -> OwnedLog:
        """Own the partition: raise its owner epoch, fencing every earlier owner's appends.

        Raises PartitionHeld while another live process owns it, StoreDown.
        """
        ...

    async def read_stream(
        self,
        stream: StreamId,
        *,
        after_version: int = 0,
        limit: int = PAGE_EVENTS_MAX,
        bytes_max: int = PAGE_BYTES_MAX,
    ) -> Page:
        """Read one stream's events with a version above `after_version`, oldest first."""
        ...

    async def read_all(
        self,
        *,
        after_position: int = 0,
        limit: int = PAGE_EVENTS_MAX,
        bytes_max: int = PAGE_BYTES_MAX,
    ) -> Page:
        """Read all events with a position above `after_position`, in order.

        Never passes over an event that commits later, and never waits for a hole to be filled.
        """
        ...

    async def stream_heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamHead]:
        """Read the heads of many streams in one statement; streams without events are absent."""
        ...

    async def existing_streams(self, streams: Sequence[StreamId]) -> frozenset[StreamId]:
        """Return which of many streams have an event, in one statement."""
        ...

    async def position(self) -> int:
        """Return the position of the last committed event; 0 when there is none."""
        ...

    def subscribe(self, *, after_position: int = 0) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        """Follow the log: batches of what is recorded, then of what comes; no gap, no repeat.

        Never empty batches; never ends by itself: a lost connection is taken up again from the
        last position. Close it (`contextlib.aclosing`) to free what it holds.
        """
        ...

    async def tracking_position(self, name: str) -> int:
        """Return up to which position the follower `name` has done its work; 0 at first."""
        ...

    async def save_tracking(self, name: str, position: int) -> None:
        """Record that `name` has done its work up to `position`; never goes back. Idempotent."""
        ...

    async def move_tracking(self, name: str, position: int, *, expected: int) -> bool:
        """Set the follower's place, also back, if it is at `expected`; return whether it was.

        A follower that nobody knows is at 0, and is known afterwards.
        """
        ...

    async def lease_keys(self) -> LeaseKeys:
        """Return the partition's lease keys, made when the partition was initialised."""
        ...

    async def rotate_lease_keys(self) -> LeaseKeys:
        """Make a new current key; the old one stays valid as the one predecessor."""
        ...

    async def seal_key(self) -> SealKey:
        """Return the key that signs the partition's seals, made when it was initialised."""
        ...

    async def close(self) -> None:
        """Free connections and threads; subscriptions end. Does not release an ownership."""
        ...


def cut_page(found: Sequence[StoredEvent], *, limit: int, bytes_max: int) -> Page:
    """Return the page that `limit` and `bytes_max` leave of up to `limit` + 1 events found."""
    bytes_count = 0
    for index, event in enumerate(found[:limit]):
        bytes_count += len(event.stored_bytes)
        if bytes_count > bytes_max and index > 0:
            return Page(tuple(found[:index]), more=True)
    return Page(tuple(found[:limit]), more=len(found) > limit)
