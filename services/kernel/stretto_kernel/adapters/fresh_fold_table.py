"""Fresh folds in PostgreSQL: what is asked, how far it is, the proof, the exchange of tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TypeVar

import psycopg
from eventsourcing.persistence import PersistenceError
from psycopg import Cursor, IsolationLevel
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composed, Identifier, Literal
from psycopg.types.json import Jsonb
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.connections import PostgresOptions, connection_parameters
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.chore_board import failing_chores
from stretto_kernel.adapters.snapshot_table import SnapshotTable
from stretto_kernel.adapters.view_tables import REPLACED, ViewTables, common_statements
from stretto_kernel.projections.fresh_folds import FreshFold, Proof, fold_form, fold_of
from stretto_kernel.projections.store import PositionMoved, Stop, Target
from stretto_kernel.projections.view import View
from stretto_kernel.projections.view_calls import RelayStanding, Standing, ViewStanding
from stretto_kernel.relay.place import RELAY

R = TypeVar("R")

SWAP_TRIES = 200
SWAP_WAIT_MS = 80
"""So long one try may keep readers waiting; something else that holds a table is waited out."""


class FreshFoldTable:
    """Implements FreshFoldStore and ViewBoard of one partition."""

    def __init__(self, dsn: str, partition: Partition, tracking: TrackingRecorder) -> None:
        self._dsn = dsn
        self._schema = PartitionSchema(partition).name
        self._views = ViewTables(partition, tracking)
        self._common = common_statements(self._schema)
        self._tracking = tracking
        self._snapshots = SnapshotTable(partition, tracking)
        self._is_made = False
        self._log_counts: dict[int, int] = {0: 0}  # How many events there are up to a position.

    async def open_fold(self) -> FreshFold | None:
        """See `FreshFoldStore`."""

        def read(cursor: Cursor[DictRow]) -> FreshFold | None:
            if not self._made(cursor):
                return None
            row = cursor.execute(self._common["open_fold"]).fetchone()
            return None if row is None else fold_of(row["fold"])

        return await self._views.transact(read, commit=False)

    async def ask(self, fold: FreshFold) -> FreshFold | None:
        """See `ViewBoard`."""

        def insert(cursor: Cursor[DictRow]) -> FreshFold | None:
            if not self._made(cursor):
                cursor.execute(self._common["create"])
            asked = {"fold_id": fold.fold_id, "fold": Jsonb(fold_form(fold))}
            cursor.execute(self._common["ask_fold"], asked)
            cursor.execute(self._common["prune_folds"])
            row = cursor.execute(self._common["open_fold"]).fetchone()
            return None if row is None else fold_of(row["fold"])

        return await self._views.transact(insert)

    async def read_fold(self, fold_id: str) -> FreshFold | None:
        """See `ViewBoard`."""

        def read(cursor: Cursor[DictRow]) -> FreshFold | None:
            row = cursor.execute(self._common["read_fold"], {"fold_id": fold_id}).fetchone()
            return None if row is None else fold_of(row["fold"])

        return await self._views.transact(read, commit=False)

    async def note(self, fold: FreshFold) -> None:
        """See `FreshFoldStore`."""
        await self._views.transact(lambda cursor: self._note(cursor, fold))

    async def standing(self, views: Sequence[View]) -> Standing:
        """See `ViewBoard`."""

        def read(cursor: Cursor[DictRow]) -> Standing:
            # Positions and counts are those of one instant.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            tables = [view.table for view in views]
            sizes = _by_view(
                cursor, self._common["sizes"], {"schema": self._schema, "views": tables}
            )
            positions = _by_view(cursor, self._common["positions"], {"views": [*tables, RELAY]})
            self._is_made = False  # They may have been dropped since.
            made = self._made(cursor)
            known = _Known(
                sizes=sizes,
                positions=positions,
                stops=_by_view(cursor, self._common["stops"], {}) if made else {},
                counts=_by_view(cursor, self._common["counts"], {}) if made else {},
            )
            row = cursor.execute(self._common["log_position"]).fetchone()
            assert row is not None, "an aggregate has a row"
            self._count_log(cursor, known)
            standings = tuple(known.standing(view, self._log_counts) for view in views)
            snapshots = self._snapshots.size(cursor)
            return Standing(
                row["position"],
                standings,
                known.relay(),
                *snapshots,
                failing_chores=failing_chores(known.stops),
            )

        return await self._views.transact(read, commit=False)

    async def move_relay(self, position: int) -> None:
        """See `ViewBoard`."""

        def move() -> None:
            expected = self._tracking.max_tracking_id(RELAY) or 0
            while not self._tracking.move(RELAY, position, expected=expected):
                expected = self._tracking.max_tracking_id(RELAY) or 0

        try:
            await asyncio.to_thread(move)
        except PersistenceError as error:
            raise StoreDown(f"the relay's place cannot be set: {error}") from error

    async def snapshot(self, targets: Collection[Target]) -> TableSnapshot:
        """See `FreshFoldStore`."""

        def begin() -> TableSnapshot:
            with ExitStack() as opened:
                one, other = (opened.enter_context(closing(self._reading())) for _ in range(2))
                named = {"views": [target.table for target in targets]}
                rows = one.execute(self._common["positions"], named).fetchall()
                positions = {row["position"] for row in rows}
                if len(positions) > 1:
                    raise PositionMoved
                row = one.execute("SELECT pg_export_snapshot() AS name").fetchone()
                assert row is not None, "a call returns a row"
                other.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(Literal(row["name"])))
                for connection in (one, other):
                    connection.execute("SET LOCAL work_mem = '64MB'")
                opened.pop_all()
            return TableSnapshot(one, other, self._schema, max(positions, default=0))

        return await _translated(begin)

    def _reading(self) -> psycopg.Connection[DictRow]:
        parameters = connection_parameters(self._dsn, PostgresOptions())
        connection = psycopg.connect(**parameters, row_factory=dict_row)
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        return connection

    async def swap(self, copies: Sequence[Target], done: FreshFold) -> int:
        """See `FreshFoldStore`."""
        await self._views.transact(lambda cursor: self._prepare_swap(cursor, copies))
        for _ in range(SWAP_TRIES):
            took_ns = await self._views.transact(lambda cursor: self._swap(cursor, copies, done))
            if took_ns is not None:
                await self._views.transact(lambda cursor: self._drop_old(cursor, copies))
                return took_ns
            await asyncio.sleep(SWAP_WAIT_MS / 1_000)
        raise StoreDown("the views are held by somebody: they cannot be exchanged")

    def _made(self, cursor: Cursor[DictRow]) -> bool:
        if self._is_made:
            return True
        table = {"table": f"{self._schema}.fresh_folds_v1"}
        row = cursor.execute(self._common["exists"], table).fetchone()
        self._is_made = bool(row and row["found"])
        return self._is_made

    def _count_log(self, cursor: Cursor[DictRow], known: _Known) -> None:
        """Count the log up to where each view is, from where it was counted the last time."""
        counts = {0: 0}
        for position in sorted(known.view_positions()):
            before = max(each for each in {**self._log_counts, **counts} if each <= position)
            found = self._log_counts.get(before, counts.get(before, 0))
            if before < position:
                span = {"after": before, "position": position}
                row = cursor.execute(self._common["log_count"], span).fetchone()
                found += 0 if row is None else row["event_count"]
            counts[position] = found
        self._log_counts = counts

    def _note(self, cursor: Cursor[DictRow], fold: FreshFold) -> None:
        noted = {
            "fold_id": fold.fold_id,
            "done": fold.is_done,
            "fold": Jsonb(fold_form(fold)),
        }
        cursor.execute(self._common["note_fold"], noted)

    def _prepare_swap(self, cursor: Cursor[DictRow], copies: Sequence[Target]) -> None:
        self._drop_old(cursor, copies)
        for copy in copies:
            cursor.execute(SQL("ANALYZE {}").format(Identifier(self._schema, copy.table)))

    def _drop_old(self, cursor: Cursor[DictRow], copies: Sequence[Target]) -> None:
        for copy in copies:
            old = Identifier(self._schema, _old(copy))
            cursor.execute(SQL("DROP TABLE IF EXISTS {}").format(old))

    def _swap(
        self, cursor: Cursor[DictRow], copies: Sequence[Target], done: FreshFold
    ) -> int | None:
        began_ns = time.perf_counter_ns()
        cursor.execute(f"SET LOCAL lock_timeout = '{SWAP_WAIT_MS}ms'")
        live = [Identifier(self._schema, copy.view.table) for copy in copies]
        cursor.execute("SAVEPOINT before")
        try:
            cursor.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(_listed(live)))
        except psycopg.errors.LockNotAvailable:
            cursor.execute("ROLLBACK TO before")
            return None
        self._meet(cursor, copies)
        for copy in copies:
            _rename(cursor, self._schema, copy.view.table, _old(copy))
            _rename(cursor, self._schema, copy.table, copy.view.table)
            counted = {"view": copy.view.table, "copy": copy.table}
            cursor.execute(self._common["take_count"], counted)
        cursor.execute(self._common["forget"], {"views": [copy.table for copy in copies]})
        took_ns = time.perf_counter_ns() - began_ns
        self._note(cursor, replace(done, swap_ns=took_ns))
        return took_ns

    def _meet(self, cursor: Cursor[DictRow], copies: Sequence[Target]) -> None:
        """Let views that stand still be where their copies are. Raises PositionMoved.

        Another projector may have moved one of the two: what one has the other would never get.
        """
        both = [name for copy in copies for name in (copy.table, copy.view.table)]
        found = _by_view(cursor, self._common["positions"], {"views": both})
        places = {name: found[name]["position"] if name in found else 0 for name in both}
        position = places[copies[0].table]
        stops = _by_view(cursor, self._common["stops"], {})
        for copy in copies:
            table = copy.view.table
            at, stop = places[table], stops.get(table)
            if places[copy.table] != position:
                raise PositionMoved
            if at == position:
                continue
            if stop is None or at >= stop["position"]:
                raise PositionMoved  # It is on its way: that it stood still is no longer so.
            if not self._tracking.move_in(cursor, [table], position, expected=at):
                raise PositionMoved
        cursor.execute(self._common["follow"], {"views": [copy.view.table for copy in copies]})


@dataclass(frozen=True, slots=True)
class TableSnapshot:
    """Implements Snapshot: two transactions that see what was committed before the first began."""

    one: psycopg.Connection[DictRow]
    other: psycopg.Connection[DictRow]
    schema: str
    position: int

    async def prove(self, live: Target, fresh: Target) -> Proof:
        """See `Snapshot`."""

        # At the same time: each is a long read of the server's, and nothing else.
        of_live, of_fresh = await asyncio.gather(
            _translated(lambda: self._digest(self.one, live)),
            _translated(lambda: self._digest(self.other, fresh)),
            return_exceptions=True,
        )
        if isinstance(of_live, BaseException):
            raise of_live
        if isinstance(of_fresh, BaseException):
            raise of_fresh
        return Proof(
            view=live.view.name,
            position=self.position,
            live_row_count=of_live[0],
            fresh_row_count=of_fresh[0],
            live_digest=of_live[1],
            fresh_digest=of_fresh[1],
        )

    async def close(self) -> None:
        """See `Snapshot`."""
        for connection in (self.one, self.other):
            await asyncio.to_thread(connection.close)

    def _digest(self, connection: psycopg.Connection[DictRow], target: Target) -> tuple[int, bytes]:
        key = [Identifier(name) for name in target.view.columns[: target.view.key_count]]
        statement = SQL(
            "SELECT count(*) AS row_count, sha256(coalesce(string_agg("
            "sha256(convert_to(kept::text, 'UTF8')), ''::bytea ORDER BY {key}), ''::bytea))"
            " AS digest FROM {table} AS kept"
        ).format(key=_listed(key), table=Identifier(self.schema, target.table))
        row = connection.execute(statement).fetchone()
        assert row is not None, "an aggregate has a row"
        return row["row_count"], bytes(row["digest"])


def _old(copy: Target) -> str:
    return f"{copy.view.table}{REPLACED}"


def _listed(names: Sequence[Identifier]) -> Composed:
    return SQL(", ").join(names)


def _rename(cursor: Cursor[DictRow], schema: str, table: str, new: str) -> None:
    names = (Identifier(schema, table), Identifier(new))
    cursor.execute(SQL("ALTER TABLE {} RENAME TO {}").format(*names))


def _by_view(
    cursor: Cursor[DictRow], statement: Composed, parameters: Mapping[str, object]
) -> dict[str, DictRow]:
    return {row["view"]: row for row in cursor.execute(statement, parameters).fetchall()}


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of views and the relay, each by its table."""

    sizes: Mapping[str, DictRow]
    positions: Mapping[str, DictRow]
    stops: Mapping[str, DictRow]
    counts: Mapping[str, DictRow]

    def view_positions(self) -> set[int]:
        return {row["position"] for name, row in self.positions.items() if name != RELAY}

    def standing(self, view: View, log_counts: Mapping[int, int]) -> ViewStanding:
        size, count = self.sizes.get(view.table), self.counts.get(view.table)
        position = self._position(view.table)
        stop, stop_time_ns = self._stop(view.table)
        return ViewStanding(
            view=view,
            exists=size is not None,
            position=position,
            row_count=0 if size is None else size["row_count"],
            stop=stop,
            stop_time_ns=stop_time_ns,
            event_count=None if count is None else count["event_count"],
            log_event_count=log_counts[position],
        )

    def relay(self) -> RelayStanding | None:
        if RELAY not in self.positions:
            return None
        return RelayStanding(self._position(RELAY), *self._stop(RELAY))

    def _position(self, table: str) -> int:
        return self.positions[table]["position"] if table in self.positions else 0

    def _stop(self, table: str) -> tuple[Stop | None, int]:
        row = self.stops.get(table)
        if row is None:
            return None, 0
        stop_time_ns = int(row["stop_time"].timestamp() * 1e9)
        return Stop(row["position"], row["reason"], row["message"]), stop_time_ns


async def _translated(work: Callable[[], R]) -> R:
    try:
        return await asyncio.to_thread(work)
    except psycopg.Error as error:
        raise StoreDown(f"the views cannot be reached: {error}") from error
