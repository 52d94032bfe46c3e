"""Views in PostgreSQL: their tables, and how far each is, stored together.

Each view's SQL is in `sql/<view>.sql`: `create` and `upsert`, for the table that they are given.
Commits are not awaited (synchronous_commit is off): a crash of the server may take a view's newest
rows, and its position goes with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from psycopg import Cursor, errors
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier, Literal
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.adapters.view_transactions import transact
from stretto_kernel.projections.store import (
    COPY,
    Change,
    PositionMoved,
    RowsRefused,
    Stop,
    Target,
)
from stretto_kernel.projections.view import View

R = TypeVar("R")
REFUSALS = (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded)
"""What a table says of rows that it would not take the next time, either."""
REPLACED = "_old"
"""After the name of a table that a fresh copy has replaced."""


class ViewTables:
    """Implements ViewStore over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self.schema = PartitionSchema(partition).name
        self._tracking = tracking
        self._statements: dict[Target, dict[str, Composed]] = {}
        self._common = common_statements(self.schema)

    async def prepare(self, targets: Collection[Target]) -> Mapping[Target, int]:
        """See `ViewStore`."""

        def make(cursor: Cursor[DictRow]) -> Mapping[Target, int]:
            cursor.execute(self._common["create"])
            for target in targets:
                self._drop_older(cursor, target.view)
                row = cursor.execute(
                    "SELECT to_regclass(%s) IS NULL AS missing", (f"{self.schema}.{target.table}",)
                ).fetchone()
                if row is not None and row["missing"]:
                    self._empty(cursor, target)
                    cursor.execute(self.statements(target)["create"])
            return self._positions(cursor, targets)

        return await self.transact(make)

    async def empty(self, targets: Collection[Target]) -> None:
        """See `ViewStore`."""

        def drop(cursor: Cursor[DictRow]) -> None:
            for target in targets:
                self._empty(cursor, target)

        await self.transact(drop)

    async def save(
        self, changes: Sequence[Change], *, after: int, position: int, event_count: int
    ) -> None:
        """See `ViewStore`."""
        counted = {
            "views": [change.target.table for change in changes],
            "after": after,
            "event_count": event_count,
        }

        def store(cursor: Cursor[DictRow]) -> None:
            cursor.execute("SET LOCAL synchronous_commit = off")
            tables = [change.target.table for change in changes]
            if not self._tracking.move_in(cursor, tables, position, expected=after):
                raise PositionMoved
            for target, rows in changes:
                if rows:
                    self._upsert(cursor, target, rows)
            cursor.execute(self._common["count"], counted, prepare=True)

        await self.transact(store)

    async def note_stop(self, target: Target, stop: Stop) -> None:
        """See `ViewStore`."""
        noted = _noted(target.table, stop)
        await self.transact(lambda cursor: _run(cursor, self._common["stop"], noted))

    async def note_following(self, targets: Collection[Target]) -> None:
        """See `ViewStore`."""
        tables = {"views": [target.table for target in targets]}
        await self.transact(lambda cursor: _run(cursor, self._common["follow"], tables))

    async def note_beside(self, name: str, stop: Stop | None) -> None:
        """Write down that something that is no view stands still; None: that it does not.

        Raises StoreDown.
        """

        def note(cursor: Cursor[DictRow]) -> None:
            cursor.execute(self._common["create"])
            if stop is None:
                cursor.execute(self._common["follow"], {"views": [name]})
            else:
                cursor.execute(self._common["stop"], _noted(name, stop))

        await self.transact(note)

    async def transact(self, work: Callable[[Cursor[DictRow]], R], *, commit: bool = True) -> R:
        """Return what `work` returns, in a transaction of its own. Raises StoreDown."""
        return await transact(self._tracking, work, commit=commit)

    def statements(self, target: Target) -> dict[str, Composed]:
        """Return the view's statements for one of its tables."""
        found = self._statements.get(target)
        if found is None:
            found = view_statements(self.schema, target)
            self._statements[target] = found
        return found

    def _positions(self, cursor: Cursor[DictRow], targets: Collection[Target]) -> dict[Target, int]:
        rows = cursor.execute(
            self._common["positions"], {"views": [target.table for target in targets]}, prepare=True
        ).fetchall()
        found = {row["view"]: int(row["position"]) for row in rows}
        return {target: found.get(target.table, 0) for target in targets}

    def _upsert(
        self, cursor: Cursor[DictRow], target: Target, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        try:
            statement = self.statements(target)["upsert"]
            cursor.execute(statement, _columns(target.view, rows), prepare=True)
        except REFUSALS as error:
            raise RowsRefused(target, str(error).partition("\n")[0]) from error

    def _empty(self, cursor: Cursor[DictRow], target: Target) -> None:
        cursor.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(self.schema, target.table)))
        _run(cursor, self._common["forget"], {"views": [target.table]})

    def _drop_older(self, cursor: Cursor[DictRow], view: View) -> None:
        """Drop what other versions left, and what a death right after an exchange did."""
        older = [
            f"{view.name}_v{version}{suffix}"
            for version in range(1, view.version)
            for suffix in ("", COPY)
        ]
        for table in [*older, f"{view.table}{REPLACED}"]:
            cursor.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(self.schema, table)))
        if older:
            _run(cursor, self._common["forget"], {"views": older})


def _noted(name: str, stop: Stop) -> dict[str, object]:
    return {
        "view": name,
        "position": stop.position,
        "reason": stop.reason,
        "message": stop.message,
    }


def common_statements(schema: str) -> dict[str, Composed]:
    """Return the statements about views as a whole."""
    parts = {"schema": Identifier(schema), "lock_name": Literal(f"{schema} views")}
    return named_statements("views.sql", parts)


def view_statements(schema: str, target: Target) -> dict[str, Composed]:
    """Return the statements of a view's file, for one of its tables."""
    return named_statements(
        f"{target.view.name}.sql",
        {
            "table": Identifier(schema, target.table),
            "schema": Identifier(schema),
            "table_name": Literal(f"{schema}.{target.table}"),
            "follower": Literal(target.table),
        },
    )


def _run(cursor: Cursor[DictRow], statement: Composed, parameters: dict[str, Any]) -> None:
    cursor.execute(statement, parameters)


def _columns(view: View, rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Return the rows as an array for each column."""
    return {
        name: list(column)
        for name, column in zip(view.columns, zip(*rows, strict=True), strict=True)
    }
