"""Reading views' tables, and how far they are, as one transaction sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import Composed, Identifier
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.view_tables import common_statements, view_statements
from stretto_kernel.adapters.view_transactions import transact
from stretto_kernel.projections.store import Target
from stretto_kernel.projections.view import View

R = TypeVar("R")


class ViewReader:
    """Reads a view of one partition over the connections that `tracking` uses.

    beside: views that are read with it. at_once: all of a transaction's statements see one instant.
    """

    def __init__(
        self,
        partition: Partition,
        tracking: TrackingRecorder,
        view: View,
        *beside: View,
        at_once: bool = False,
    ) -> None:
        self._tracking = tracking
        self._followers = [each.table for each in (view, *beside)]
        self._at_once = at_once
        schema = PartitionSchema(partition).name
        self.table = Identifier(schema, view.table)
        self.statements: dict[str, Composed] = view_statements(schema, Target(view))
        self._table_names = [f"{schema}.{follower}" for follower in self._followers]
        self._positions = common_statements(schema)["positions"]
        self._exists = False

    async def read(self, read: Callable[[Cursor[DictRow], int], R], without_view: R) -> R:
        """Return what `read` returns of a cursor and the least position. Raises StoreDown.

        The position is read first: rows may then only be newer than it says.
        """

        def read_both(cursor: Cursor[DictRow]) -> R:
            if self._at_once:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            if not self._exists:
                row = cursor.execute(
                    "SELECT bool_and(to_regclass(name) IS NOT NULL) AS found"
                    " FROM unnest(%s::text[]) AS name",
                    (self._table_names,),
                ).fetchone()
                self._exists = bool(row and row["found"])
            if not self._exists:
                return without_view
            return read(cursor, self._position(cursor))

        try:
            return await transact(self._tracking, read_both, commit=False)
        except StoreDown:
            self._exists = False  # It may have been dropped: ask again.
            raise

    def _position(self, cursor: Cursor[DictRow]) -> int:
        found = cursor.execute(self._positions, {"views": self._followers}).fetchall()
        return min((int(row["position"]) for row in found), default=0)
