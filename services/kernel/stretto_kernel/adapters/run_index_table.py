"""The view `run_index` in PostgreSQL, as recovery and ListRuns read it."""

from __future__ import annotations

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Literal
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition, RunId

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.app.background_folds import NO_DEADLINE_NS
from stretto_kernel.app.recovery import ActiveRun, ActiveRuns
from stretto_kernel.app.run_listing import ListedRun, RunFilter, RunListPage
from stretto_kernel.projections.run_index import RUN_INDEX


class RunIndexTable:
    """Implements RunIndex and RunList over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, RUN_INDEX)

    async def active_runs(self) -> ActiveRuns:
        """See `RunIndex`."""

        def read(cursor: Cursor[DictRow], position: int) -> ActiveRuns:
            rows = cursor.execute(self._reader.statements["active"]).fetchall()
            runs = tuple(
                ActiveRun(
                    RunId(row["run_id"]),
                    NO_DEADLINE_NS if row["next_due_ns"] is None else row["next_due_ns"],
                    tuple(row["queues"]),
                )
                for row in rows
            )
            return ActiveRuns(position, runs)

        return await self._reader.read(read, ActiveRuns(0, ()))

    async def list_runs(self, found: RunFilter, *, count_max: int) -> RunListPage:
        """See `RunList`."""

        def read(cursor: Cursor[DictRow], position: int) -> RunListPage:
            statement = self.list_statement(found, count_max + 1)
            rows = cursor.execute(statement).fetchall()
            runs = [
                ListedRun(RunId(row["run_id"]), row["create_ns"], bytes(row["shown"]))
                for row in rows[:count_max]
            ]
            return RunListPage(position, runs, more=len(rows) > count_max)

        return await self._reader.read(read, RunListPage(0, [], more=False))

    def list_statement(self, found: RunFilter, count: int) -> Composed:
        """Return what lists runs: only the terms asked for, so that each has its index."""
        terms = [SQL("namespace = {}").format(Literal(found.namespace))]
        if found.state is not None:
            terms.append(SQL("state = {}").format(Literal(found.state)))
        if found.display_name is not None:
            terms.append(SQL("display_name = {}").format(Literal(found.display_name)))
        if found.labels_json is not None:
            terms.append(SQL("labels @> {}::jsonb").format(Literal(found.labels_json)))
        since, before = Literal(found.since_ns), Literal(found.before_ns)
        terms.append(SQL("create_ns >= {}").format(since))
        terms.append(SQL("create_ns < {}").format(before))
        direction = SQL("ASC" if found.oldest_first else "DESC")
        if found.after is not None:
            ahead = SQL(">" if found.oldest_first else "<")
            place = SQL(", ").join([Literal(found.after[0]), Literal(found.after[1])])
            terms.append(SQL("(create_ns, run_id) {} ({})").format(ahead, place))
        return SQL(
            "SELECT run_id, create_ns, shown FROM {table} WHERE {terms}"
            " ORDER BY create_ns {direction}, run_id {direction} LIMIT {count}"
        ).format(
            table=self._reader.table,
            terms=SQL(" AND ").join(terms),
            direction=direction,
            count=Literal(count),
        )
