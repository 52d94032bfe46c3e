"""A view's table and its follower's position, stored together: what every view has in common.

Uses the log's connections. Blocking calls run in threads. A view may lose its newest rows in a
crash of the server (synchronous_commit is off): its position goes with them, and they are made
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from eventsourcing.persistence import IntegrityError, PersistenceError
from psycopg import Cursor, Error
from psycopg.rows import DictRow
from psycopg.sql import Composed
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.tracking import TrackingRecorder

from stretto_kernel.projections.projector import PositionMoved

Row = TypeVar("Row")


class TrackedView(Generic[Row]):
    """Implements ViewStore.

    statements: `create` and `upsert` at least. columns: the upsert's parameters for some rows.
    """

    def __init__(
        self,
        tracking: TrackingRecorder,
        follower: str,
        statements: Mapping[str, Composed],
        columns: Callable[[Sequence[Row]], dict[str, list[object]]],
    ) -> None:
        self._tracking = tracking
        self._follower = follower
        self._statements = statements
        self._columns = columns

    async def prepare(self) -> None:
        """See `ViewStore`."""

        def create() -> None:
            with self.transaction(commit=True) as cursor:
                cursor.execute(self._statements["create"])

        await asyncio.to_thread(create)

    async def position(self) -> int:
        """See `ViewStore`."""

        def read() -> int:
            with self.transaction(commit=False) as cursor:
                return self.position_in(cursor)

        return await asyncio.to_thread(read)

    async def save(self, rows: Sequence[Row], *, after: int, position: int) -> None:
        """See `ViewStore`."""

        def store() -> None:
            with self.transaction(commit=True) as cursor:
                cursor.execute("SET LOCAL synchronous_commit = off")
                if self.position_in(cursor) != after:
                    raise PositionMoved
                try:
                    self._tracking.insert_in(cursor, self._follower, position)
                except IntegrityError as error:
                    raise PositionMoved from error
                if rows:
                    cursor.execute(self._statements["upsert"], self._columns(rows))

        await asyncio.to_thread(store)

    def position_in(self, cursor: Cursor[DictRow]) -> int:
        """Return the follower's position as the transaction sees it."""
        statement = self._tracking.max_tracking_id_statement
        row = cursor.execute(statement, (self._follower,)).fetchone()
        return int(row["max"] or 0) if row else 0

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[Cursor[DictRow]]:
        """Open a transaction on one of the log's connections. Raises StoreDown."""
        try:
            with self._tracking.datastore.transaction(commit=commit) as cursor:
                yield cursor
        except (PersistenceError, Error) as error:
            raise StoreDown(f"the view cannot be reached: {error}") from error
