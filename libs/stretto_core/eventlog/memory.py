"""The log in memory: the test double and the simulator's log, held to the same contract suite.

Owns the rows of one partition in a `MemoryStore`, which outlives the `MemoryLog` handles opened on
it as a database outlives its clients. Faults are planned by the caller (`AppendFaults`), so that a
seed decides them; time passes only through the running loop. Nothing here uses a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from bisect import bisect_right, insort
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter

from stretto_core.eventlog.chain import head_of
from stretto_core.eventlog.faults import AppendFaults, Fault, NoFaults
from stretto_core.eventlog.port import (
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    AppendUnknown,
    PartitionHeld,
    PartitionMoved,
    SettledAs,
    Settlement,
    StoreDown,
    VersionConflict,
    cut_page,
)
from stretto_core.eventlog.recorded import LeaseKeys, NewEvent, Page, StoredEvent, StreamHead
from stretto_core.eventlog.seals import SealKey
from stretto_core.ids import Partition, StreamId

_SUBSCRIBE_BATCH_EVENTS = 500
_position = attrgetter("position")
_version = attrgetter("version")


class MemoryStore:
    """The rows of one partition; survives its handles.

    lease_key: the first lease key, 32 bytes; derived from the partition's name when not given.
    """

    def __init__(self, partition: Partition, *, lease_key: bytes | None = None) -> None:
        self.partition = partition
        self.owner_epoch = 0
        self.events: list[StoredEvent] = []
        self.held_by: object | None = None
        self._streams: dict[StreamId, list[StoredEvent]] = {}
        self._by_place: dict[tuple[StreamId, int], StoredEvent] = {}
        self._tracking: dict[str, int] = {}
        self._last_position = 0
        self._appended = asyncio.Event()
        self.context = contextvars.copy_context()
        key = lease_key or hashlib.sha256(f"lease key of {partition}".encode()).digest()
        self._keys = LeaseKeys(key)
        self.seal_key = SealKey(hashlib.sha256(f"seal key of {partition}".encode()).digest())

    def append(self, owner_epoch: int, events: Sequence[NewEvent]) -> tuple[int, ...]:
        """Store a group, all or nothing, if `owner_epoch` is the highest; return the positions."""
        if owner_epoch != self.owner_epoch:
            raise PartitionMoved("another owner has the partition", partition=self.partition)
        positions = range(self._last_position + 1, self._last_position + 1 + len(events))
        # Positions are spent whether the group is stored or not, as a database's sequence does.
        self._last_position += len(events)
        new_versions: set[tuple[StreamId, int]] = set()
        for event in events:
            place = (event.stream, event.version)
            if place in new_versions or self.event_at(*place) is not None:
                raise VersionConflict(
                    "the version exists", stream=event.stream, version=str(event.version)
                )
            new_versions.add(place)
        for position, event in zip(positions, events, strict=True):
            stored = StoredEvent(
                position, event.stream, event.version, event.type, event.stored_bytes
            )
            self.events.append(stored)
            self._by_place[event.stream, event.version] = stored
            insort(self._streams.setdefault(event.stream, []), stored, key=_version)
        self.wake_followers()
        return tuple(positions)

    def wake_followers(self) -> None:
        """Let every subscription look again."""
        self._appended.set()
        self._appended = asyncio.Event()

    def event_at(self, stream: StreamId, version: int) -> StoredEvent | None:
        """Return the event of `stream` with `version`."""
        return self._by_place.get((stream, version))

    def stream_events(self, stream: StreamId) -> list[StoredEvent]:
        """Return the stream's events, oldest first; [] when there is none."""
        return self._streams.get(stream, [])

    def index_after(self, position: int) -> int:
        """Return the index in `events` of the first one after `position`."""
        return bisect_right(self.events, position, key=_position)

    def next_append(self) -> asyncio.Event:
        """Return an event that is set by the next append or `wake_followers`."""
        return self._appended

    @property
    def tracking(self) -> dict[str, int]:
        """How far each follower is, by name."""
        return self._tracking

    @property
    def lease_keys(self) -> LeaseKeys:
        """The partition's lease keys."""
        return self._keys

    def rotate_lease_keys(self) -> LeaseKeys:
        """Make a new key that follows from the current one, so that a simulation repeats."""
        current = hashlib.sha256(b"next lease key" + self._keys.current).digest()
        self._keys = LeaseKeys(current, self._keys.current)
        return self._keys


class MemoryOwnedLog:
    """An ownership of a `MemoryStore`; made by `MemoryLog.acquire`."""

    def __init__(self, store: MemoryStore, faults: AppendFaults) -> None:
        self._store = store
        self._faults = faults
        self._released = False
        store.owner_epoch += 1
        store.held_by = self
        self._owner_epoch = store.owner_epoch

    @property
    def owner_epoch(self) -> int:
        """The epoch the next append presents."""
        return self._owner_epoch

    async def append(self, events: Sequence[NewEvent]) -> tuple[int, ...]:
        """See `OwnedLog.append`."""
        self._refuse_when_released()
        fault = self._faults.plan_append(self._owner_epoch, events)
        await _pass(fault.before_s)
        if fault.kind is Fault.REFUSED:
            raise StoreDown("planned fault: refused")
        if fault.kind is Fault.LOST_BEFORE:
            raise AppendUnknown("planned fault: lost before the store acted")
        if fault.kind is Fault.LATE:
            asyncio.get_running_loop().call_later(
                fault.late_s,
                self._append_late,
                self._owner_epoch,
                tuple(events),
                # In the store's hands by now: it happens even if the caller's process dies.
                context=self._store.context,
            )
            raise AppendUnknown("planned fault: the append is still on its way")
        positions = self._store.append(self._owner_epoch, events)
        await _pass(fault.after_s)
        if fault.kind is Fault.LOST_AFTER:
            raise AppendUnknown("planned fault: the answer was lost")
        return positions

    async def settle(self, events: Sequence[NewEvent]) -> Settlement:
        """See `OwnedLog.settle`."""
        self._refuse_when_released()
        fault = self._faults.plan_settle()
        await _pass(fault.before_s)
        if fault.kind is not Fault.NONE:
            raise StoreDown("planned fault: refused")
        stored = [self._store.event_at(event.stream, event.version) for event in events]
        positions = tuple(
            found.position
            for event, found in zip(events, stored, strict=True)
            if found is not None and found.stored_bytes == event.stored_bytes
        )
        if self._store.owner_epoch == self._owner_epoch:
            # From here on the lost append cannot succeed any more: it bears the epoch before.
            self._store.owner_epoch += 1
            self._owner_epoch = self._store.owner_epoch
        if len(positions) == len(events):
            return Settlement(SettledAs.COMMITTED, positions)
        return Settlement(SettledAs.MIXED if positions else SettledAs.NOT_COMMITTED)

    async def probe(self) -> None:
        """See `OwnedLog.probe`."""
        self._refuse_when_released()
        fault = self._faults.plan_settle()
        await _pass(fault.before_s)
        if fault.kind is not Fault.NONE:
            raise StoreDown("planned fault: refused")
        if self._store.owner_epoch != self._owner_epoch:
            raise PartitionMoved("another owner has the partition", partition=self._store.partition)
        await _pass(fault.after_s)

    async def release(self) -> None:
        """See `OwnedLog.release`."""
        self._released = True
        self.abandon()

    def abandon(self) -> None:
        """Stop holding the partition without a word, as a killed process does."""
        if self._store.held_by is self:
            self._store.held_by = None

    def _refuse_when_released(self) -> None:
        if self._released:
            raise PartitionMoved("the partition was released", partition=self._store.partition)

    def _append_late(self, owner_epoch: int, events: tuple[NewEvent, ...]) -> None:
        try:
            self._store.append(owner_epoch, events)
        except (PartitionMoved, VersionConflict):
            return  # Too late: nobody waits for this answer.


class MemoryLog:
    """A handle on a `MemoryStore`, as one process holds it.

    faults: what goes wrong with its appends.
    exclusive: False lets a second owner take a held partition, as when the first only seems dead.
    """

    def __init__(
        self, store: MemoryStore, *, faults: AppendFaults | None = None, exclusive: bool = True
    ) -> None:
        self._store = store
        self._faults = faults or NoFaults()
        self._exclusive = exclusive
        self._closed = False

    @property
    def partition(self) -> Partition:
        """The partition this log is."""
        return self._store.partition

    async def acquire(self) -> MemoryOwnedLog:
        """See `EventLog.acquire`."""
        if self._exclusive and self._store.held_by is not None:
            raise PartitionHeld(
                "another process owns the partition", partition=self._store.partition
            )
        return MemoryOwnedLog(self._store, self._faults)

    async def read_stream(
        self,
        stream: StreamId,
        *,
        after_version: int = 0,
        limit: int = PAGE_EVENTS_MAX,
        bytes_max: int = PAGE_BYTES_MAX,
    ) -> Page:
        """See `EventLog.read_stream`."""
        async with self._reading():
            events = self._store.stream_events(stream)
            start = bisect_right(events, after_version, key=_version)
            found = events[start : start + limit + 1]
        return cut_page(found, limit=limit, bytes_max=bytes_max)

    async def read_all(
        self,
        *,
        after_position: int = 0,
        limit: int = PAGE_EVENTS_MAX,
        bytes_max: int = PAGE_BYTES_MAX,
    ) -> Page:
        """See `EventLog.read_all`."""
        async with self._reading():
            start = self._store.index_after(after_position)
            found = self._store.events[start : start + limit + 1]
        return cut_page(found, limit=limit, bytes_max=bytes_max)

    async def stream_heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamHead]:
        """See `EventLog.stream_heads`."""
        async with self._reading():
            found = ((stream, self._store.stream_events(stream)) for stream in streams)
            newest = {stream: events[-1].stored_bytes for stream, events in found if events}
        return {stream: head_of(stored_bytes) for stream, stored_bytes in newest.items()}

    async def existing_streams(self, streams: Sequence[StreamId]) -> frozenset[StreamId]:
        """See `EventLog.existing_streams`."""
        async with self._reading():
            return frozenset(stream for stream in streams if self._store.stream_events(stream))

    async def position(self) -> int:
        """See `EventLog.position`."""
        async with self._reading():
            return self._store.events[-1].position if self._store.events else 0

    async def subscribe(
        self, *, after_position: int = 0
    ) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        """See `EventLog.subscribe`."""
        while not self._closed:
            appended = self._store.next_append()  # Before the read: none may fall in between.
            page = await self.read_all(after_position=after_position, limit=_SUBSCRIBE_BATCH_EVENTS)
            if not page.events:
                await appended.wait()
                continue
            after_position = page.events[-1].position
            yield page.events

    async def tracking_position(self, name: str) -> int:
        """See `EventLog.tracking_position`."""
        return self._store.tracking.get(name, 0)

    async def save_tracking(self, name: str, position: int) -> None:
        """See `EventLog.save_tracking`."""
        self._store.tracking[name] = max(position, self._store.tracking.get(name, 0))

    async def move_tracking(self, name: str, position: int, *, expected: int) -> bool:
        """See `EventLog.move_tracking`."""
        if self._store.tracking.get(name, 0) != expected:
            return False
        self._store.tracking[name] = position
        return True

    async def lease_keys(self) -> LeaseKeys:
        """See `EventLog.lease_keys`."""
        return self._store.lease_keys

    async def rotate_lease_keys(self) -> LeaseKeys:
        """See `EventLog.rotate_lease_keys`."""
        return self._store.rotate_lease_keys()

    async def seal_key(self) -> SealKey:
        """See `EventLog.seal_key`."""
        return self._store.seal_key

    async def close(self) -> None:
        """See `EventLog.close`."""
        self._closed = True
        self._store.wake_followers()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        """Look at the store at one instant of the read: its answer may be old when it comes."""
        fault = self._faults.plan_read()
        await _pass(fault.before_s)
        if fault.kind is not Fault.NONE:
            raise StoreDown("planned fault: refused")
        yield
        await _pass(fault.after_s)


async def _pass(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
