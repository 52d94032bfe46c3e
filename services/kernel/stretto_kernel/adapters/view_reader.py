"""Reading a view's table, and how far it is, as one transaction sees them. Blocking calls run in
threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from eventsourcing.persistence import PersistenceError
from psycopg import Cursor, Error
from psycopg.rows import DictRow
from psycopg.sql import Composed, Identifier
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.view_tables import view_statements
from stretto_kernel.projections.store import Target
from stretto_kernel.projections.view import View

R = TypeVar("R")


class ViewReader:
    """Reads one view of one partition, over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder, view: View) -> None:
        self._tracking = tracking
        self._follower = view.table
        schema = PartitionSchema(partition).name
        self.table = Identifier(schema, view.table)
        self.statements: dict[str, Composed] = view_statements(schema, Target(view))
        self._table_name = f"{schema}.{view.table}"
        self._exists = False

    async def read(self, read: Callable[[Cursor[DictRow], int], R], without_view: R) -> R:
        """Return what `read` returns of a cursor and the view's position. Raises StoreDown.

        The position is read first: rows may then only be newer than it says.
        """

        def transact() -> R:
            with self._transaction() as cursor:
                if not self._exists:
                    row = cursor.execute(
                        "SELECT to_regclass(%s) IS NOT NULL AS found", (self._table_name,)
                    ).fetchone()
                    self._exists = bool(row and row["found"])
                if not self._exists:
                    return without_view
                return read(cursor, self._position(cursor))

        try:
            return await asyncio.to_thread(transact)
        except StoreDown:
            self._exists = False  # It may have been dropped: ask again.
            raise

    def _position(self, cursor: Cursor[DictRow]) -> int:
        statement = self._tracking.max_tracking_id_statement
        row = cursor.execute(statement, (self._follower,)).fetchone()
        return int(row["max"] or 0) if row else 0

    @contextmanager
    def _transaction(self) -> Iterator[Cursor[DictRow]]:
        try:
            with self._tracking.datastore.transaction(commit=False) as cursor:
                yield cursor
        except (PersistenceError, Error) as error:
            raise StoreDown(f"the view cannot be reached: {error}") from error
