"""The view `blackboard` in PostgreSQL: as of any version of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Literal
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition, RunId

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.app.board_calls import EntryQuery
from stretto_kernel.projections.blackboard import BLACKBOARD, BoardRow
from stretto_kernel.projections.past_boards import BoardRows


class BoardTable:
    """Implements PastBoardView over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, BLACKBOARD)

    async def keys_as_of(self, run_id: RunId, version: int, keys: Collection[str]) -> BoardRows:
        """See `PastBoardView`."""
        return await self._read(self.keys_statement(run_id, version, keys), len(keys))

    async def entries_as_of(
        self, run_id: RunId, version: int, query: EntryQuery, count_max: int
    ) -> BoardRows:
        """See `PastBoardView`."""
        asked = self.statement(run_id, version, self.terms(query), count_max + 1)
        return await self._read(asked, count_max)

    def terms(self, query: EntryQuery) -> list[Composable]:
        """Return what narrows a list: only the terms asked for."""
        terms: list[Composable] = [SQL("key > {}").format(Literal(query.after_key))]
        if query.prefix:
            terms.append(SQL("starts_with(key, {})").format(Literal(query.prefix)))
        if query.task:
            terms.append(SQL("task = {}").format(Literal(query.task)))
        if query.board_namespace:
            terms.append(SQL("board_namespace = {}").format(Literal(query.board_namespace)))
        if query.writer_kind:
            terms.append(SQL("writer_kind = {}").format(Literal(query.writer_kind)))
        return terms

    def keys_statement(self, run_id: RunId, version: int, keys: Collection[str]) -> Composed:
        """Return what reads some entries as of a version: one look each, however often written."""
        return SQL(
            "SELECT kept.* FROM unnest({keys}::text[]) AS asked (key), LATERAL ("
            " SELECT * FROM {table} AS every WHERE run_id = {run_id} AND every.key = asked.key"
            ' COLLATE "C" AND from_version <= {version} ORDER BY from_version DESC LIMIT 1'
            ") AS kept WHERE NOT deleted"
        ).format(
            keys=Literal(list(keys)),
            table=self._reader.table,
            run_id=Literal(run_id),
            version=Literal(version),
        )

    def statement(
        self, run_id: RunId, version: int, terms: Sequence[Composable], count: int
    ) -> Composed:
        """Return what lists entries as of a version, in the order of their keys."""
        return SQL(
            "SELECT * FROM {table} WHERE run_id = {run_id} AND from_version <= {version}"
            " AND (to_version IS NULL OR to_version > {version}) AND NOT deleted AND {terms}"
            " ORDER BY key LIMIT {count}"
        ).format(
            table=self._reader.table,
            run_id=Literal(run_id),
            version=Literal(version),
            terms=SQL(" AND ").join(terms),
            count=Literal(count),
        )

    async def _read(self, statement: Composed, count_max: int) -> BoardRows:
        def read(cursor: Cursor[DictRow], position: int) -> BoardRows:
            return _rows(position, cursor.execute(statement).fetchall(), count_max)

        return await self._reader.read(read, BoardRows(0))


def _rows(position: int, rows: Sequence[DictRow], count_max: int) -> BoardRows:
    found = [board_row(row) for row in rows[:count_max]]
    return BoardRows(position, found, more=len(rows) > count_max)


def board_row(row: DictRow) -> BoardRow:
    """Return a row of the table as the view has it."""
    said = {name: row[name] for name in BoardRow._fields}
    return BoardRow(**{**said, "writer": bytes(row["writer"]), "value": bytes(row["value"])})
