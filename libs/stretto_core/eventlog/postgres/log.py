"""One partition's log in PostgreSQL: the adapter behind the port.

Readers use the library's pool from a few threads; each owner has a connection and a thread of its
own. All reads are of committed events; positions are safe to follow, since whoever draws one holds
the events table's EXCLUSIVE lock until its commit.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TypeVar

import psycopg
from eventsourcing.persistence import PersistenceError
from psycopg.rows import TupleRow, tuple_row

from stretto_core.eventlog.chain import head_of
from stretto_core.eventlog.port import (
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    StoreDown,
    cut_page,
)
from stretto_core.eventlog.postgres.connections import PostgresOptions, open_datastore
from stretto_core.eventlog.postgres.initialise import KEY_BYTES, initialise
from stretto_core.eventlog.postgres.owner_session import OwnerSession
from stretto_core.eventlog.postgres.ownership import PostgresOwnedLog
from stretto_core.eventlog.postgres.recorder import PartitionRecorder
from stretto_core.eventlog.postgres.schema import (
    LEASE_PURPOSE,
    NEWEST_KEYS,
    ROTATE_KEY,
    SEAL_PURPOSE,
    PartitionSchema,
)
from stretto_core.eventlog.postgres.tail import Tail
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.eventlog.recorded import LeaseKeys, Page, StoredEvent, StreamHead
from stretto_core.eventlog.seals import SealKey
from stretto_core.ids import Partition, StreamId

R = TypeVar("R")

_SUBSCRIBE_PAGE_EVENTS = 1_000


class PostgresLog:
    """A handle on one partition; made by `open`. See `EventLog` for every method of the port."""

    def __init__(
        self,
        dsn: str,
        recorder: PartitionRecorder,
        tracking: TrackingRecorder,
        options: PostgresOptions,
    ) -> None:
        self._dsn = dsn
        self._recorder = recorder
        self._tracking = tracking
        self._options = options
        self._readers = ThreadPoolExecutor(options.reader_threads, "log-reader")
        self._tail = Tail(recorder, self._read_to_follow, poll_interval_s=options.poll_interval_s)

    @classmethod
    async def open(
        cls, dsn: str, partition: Partition, *, options: PostgresOptions | None = None
    ) -> PostgresLog:
        """Open the partition in the database of `dsn`, making its tables if they are missing.

        Raises StoreDown.
        """
        options = options or PostgresOptions()

        def build() -> tuple[PartitionRecorder, TrackingRecorder]:
            names = PartitionSchema(partition)
            datastore = open_datastore(dsn, names, options)
            try:
                recorder = PartitionRecorder(datastore, names)
                tracking = TrackingRecorder(datastore)
                initialise(dsn, options, recorder, tracking)
            except BaseException:
                datastore.close()
                raise
            return recorder, tracking

        recorder, tracking = await _translated(asyncio.to_thread(build))
        return cls(dsn, recorder, tracking, options)

    @property
    def partition(self) -> Partition:
        """The partition this log is."""
        return self._recorder.names.partition

    @property
    def tracking(self) -> TrackingRecorder:
        """The followers' positions, for views that save theirs in their own transaction."""
        return self._tracking

    async def acquire(self) -> PostgresOwnedLog:
        """See `EventLog.acquire`."""
        session = OwnerSession(self._dsn, self._recorder, self._options)
        return await PostgresOwnedLog.acquire(session)

    async def read_stream(
        self,
        stream: StreamId,
        *,
        after_version: int = 0,
        limit: int = PAGE_EVENTS_MAX,
        bytes_max: int = PAGE_BYTES_MAX,
    ) -> Page:
        """See `EventLog.read_stream`."""

        def read() -> Page:
            rows = self._recorder.rows_of_stream(stream, after_version, limit + 1)
            return cut_page([StoredEvent(*row) for row in rows], limit=limit, bytes_max=bytes_max)

        return await self._read(read)

    async def read_all(
        self,
        *,
        after_position: int = 0,
        limit: int = PAGE_EVENTS_MAX,
        bytes_max: int = PAGE_BYTES_MAX,
    ) -> Page:
        """See `EventLog.read_all`."""

        def read() -> Page:
            rows = self._recorder.rows_after(after_position, limit + 1)
            return cut_page([StoredEvent(*row) for row in rows], limit=limit, bytes_max=bytes_max)

        return await self._read(read)

    async def stream_heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamHead]:
        """See `EventLog.stream_heads`."""

        def read() -> dict[StreamId, StreamHead]:
            return {stream: head_of(state) for stream, state in self._recorder.last_states(streams)}

        return await self._read(read)

    async def existing_streams(self, streams: Sequence[StreamId]) -> frozenset[StreamId]:
        """See `EventLog.existing_streams`."""
        rows = await self._read(lambda: self._recorder.streams_with_events(streams))
        return frozenset(stream for (stream,) in rows)

    async def position(self) -> int:
        """See `EventLog.position`."""
        return await self._read(self._recorder.last_position)

    async def subscribe(
        self, *, after_position: int = 0
    ) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        """See `EventLog.subscribe`."""
        async with aclosing(self._tail.follow(after_position)) as batches:
            async for batch in batches:
                yield batch

    async def tracking_position(self, name: str) -> int:
        """See `EventLog.tracking_position`."""
        return await self._read(lambda: self._tracking.max_tracking_id(name)) or 0

    async def save_tracking(self, name: str, position: int) -> None:
        """See `EventLog.save_tracking`."""
        await self._read(lambda: self._tracking.save(name, position))

    async def move_tracking(self, name: str, position: int, *, expected: int) -> bool:
        """See `EventLog.move_tracking`."""
        return await self._read(lambda: self._tracking.move(name, position, expected=expected))

    async def lease_keys(self) -> LeaseKeys:
        """See `EventLog.lease_keys`."""
        return await self._read(self._newest_keys)

    async def rotate_lease_keys(self) -> LeaseKeys:
        """See `EventLog.rotate_lease_keys`."""

        def rotate() -> LeaseKeys:
            drawn = {
                "partition": self.partition,
                "purpose": LEASE_PURPOSE,
                "secret": secrets.token_bytes(KEY_BYTES),
            }
            with self._recorder.datastore.get_connection() as connection:
                connection.execute(ROTATE_KEY, drawn)
            return self._newest_keys()

        return await self._read(rotate)

    async def seal_key(self) -> SealKey:
        """See `EventLog.seal_key`."""

        def read() -> SealKey:
            (secret,) = self._secrets(SEAL_PURPOSE)
            return SealKey(secret)

        return await self._read(read)

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._tail.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._recorder.datastore.close)

    async def _read_to_follow(self, after_position: int) -> Page:
        return await self.read_all(after_position=after_position, limit=_SUBSCRIBE_PAGE_EVENTS)

    def _newest_keys(self) -> LeaseKeys:
        current, *previous = self._secrets(LEASE_PURPOSE)
        return LeaseKeys(current, previous[0] if previous else None)

    def _secrets(self, purpose: str) -> list[bytes]:
        """Return the newest keys of the partition for that purpose, two at most."""
        with self._recorder.datastore.get_connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            asked = (self.partition, purpose)
            rows: list[TupleRow] = cursor.execute(NEWEST_KEYS, asked).fetchall()
        return [bytes(secret) for (secret,) in rows]

    async def _read(self, read: Callable[[], R]) -> R:
        loop = asyncio.get_running_loop()
        return await _translated(loop.run_in_executor(self._readers, read))


async def _translated(result: Awaitable[R]) -> R:
    try:
        return await result
    except (PersistenceError, psycopg.Error) as error:
        raise StoreDown("the store does not answer") from error
