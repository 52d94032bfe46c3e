"""The views `run_phases` and `tasks` in PostgreSQL, as of any version of a run."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Literal
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition, RunId

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.app.moments import Then
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX
from stretto_kernel.projections.past_runs import (
    WHOLE_VERSION,
    ChangeQuery,
    ChangeRows,
    Place,
    RunRows,
    TaskQuery,
    TaskRows,
)
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.run_phases import RUN_PHASES, RunPhaseRow
from stretto_kernel.projections.task_states import EVERY_KIND, TaskKind, kinds_in
from stretto_kernel.projections.tasks import TASKS, TaskRow

NEWEST = (1 << 63) - 1
"""The `to_version` of a row that has no next one."""


class PastViewTables:
    """Implements PastViews over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._tasks = ViewReader(partition, tracking, TASKS, RUN_PHASES, RUN_INDEX, at_once=True)
        self._phases = ViewReader(partition, tracking, RUN_PHASES)
        self._index = ViewReader(partition, tracking, RUN_INDEX)

    async def run_as_of(self, run_id: RunId, then: Then) -> RunRows:
        """See `PastViews`."""
        asked = {"run_id": run_id, "version": then.version, "judged_ns": then.judged_ns}

        def read(cursor: Cursor[DictRow], position: int) -> RunRows:
            if position < then.position:
                return RunRows(position)
            rows = cursor.execute(self._tasks.statements["kinds_as_of"], asked).fetchall()
            kinds = {
                TaskKind(row["phase"], row["clean_up"], row["backs_off"]): row["task_count"]
                for row in rows
            }
            return RunRows(position, self._phase(cursor, run_id, then.version), kinds)

        return await self._tasks.read(read, RunRows(0))

    async def tasks_as_of(self, query: TaskQuery, position: int, count_max: int) -> TaskRows:
        """See `PastViews`."""

        def read(cursor: Cursor[DictRow], reached: int) -> TaskRows:
            newest = self._newest(cursor, query.run_id)
            if reached < position or newest == 0:
                return TaskRows(min(reached, position - 1))
            version = query.version or newest
            phase = self._phase(cursor, query.run_id, version)
            statement = self.list_statement(
                query, version, phase, count_max + 1, is_newest=version == newest
            )
            rows = cursor.execute(_cut(statement, newest_first=query.newest_first)).fetchall()
            tasks = [_task_row(row) for row in rows[:count_max]]
            more = bool(rows) and rows[0]["found_count"] > len(tasks)
            return TaskRows(reached, version, phase, tasks, more=more)

        return await self._tasks.read(read, TaskRows(0))

    async def changes(self, query: ChangeQuery, position: int, count_max: int) -> ChangeRows:
        """See `PastViews`."""
        asked = {
            "run_id": query.run_id,
            "after_version": query.after.version,
            "after_number": query.after.number,
            "until_version": query.until_version,
            "count": count_max + 1,
            "bytes_max": PAGE_BYTES_MAX,
        }

        def read(cursor: Cursor[DictRow], reached: int) -> ChangeRows:
            if reached < position:
                return ChangeRows(reached)
            # One more than the page has, and the one that held before it.
            found = cursor.execute(
                self._phases.statements["changes"], {**asked, "count": count_max + 2}
            ).fetchall()
            phases = [_phase_row(row) for row in found]
            rows = cursor.execute(self._tasks.statements["changes"], asked).fetchall()
            tasks = [_task_row(row) for row in rows[:count_max]]
            last = None
            if rows and rows[0]["found_count"] > len(tasks):
                last = Place(tasks[-1].from_version, tasks[-1].number)
            if len(phases) > count_max + 1:
                whole = Place(phases[-2].from_version, WHOLE_VERSION)
                last = whole if last is None else min(last, whole)
                tasks = [row for row in tasks if row.from_version <= last.version]
            return ChangeRows(reached, phases, tasks, last)

        return await self._tasks.read(read, ChangeRows(0))

    def list_statement(
        self, query: TaskQuery, version: int, phase: RunPhaseRow, count: int, *, is_newest: bool
    ) -> Composed:
        """Return what lists tasks: only the terms asked for, so that each has its index."""
        terms: list[Composable] = [SQL("run_id = {}").format(Literal(query.run_id))]
        if is_newest:
            terms.append(SQL("to_version = {}").format(Literal(NEWEST)))
        else:
            then = SQL("from_version <= {0} AND to_version > {0}")
            terms.append(then.format(Literal(version)))
        if query.state is not None:
            terms.append(_of_kinds(kinds_in(query.state, phase), query.judged_ns))
        if query.queue:
            terms.append(SQL("queue = {}").format(Literal(query.queue)))
        if query.executor:
            terms.append(SQL("executor = {}").format(Literal(query.executor)))
        if query.clean_up is not None:
            terms.append(SQL("clean_up = {}").format(Literal(query.clean_up)))
        if query.after is not None:
            ahead = SQL("<" if query.newest_first else ">")
            terms.append(SQL("number {} {}").format(ahead, Literal(query.after)))
        return SQL(
            "SELECT * FROM {table} WHERE {terms} ORDER BY number {direction} LIMIT {count}"
        ).format(
            table=self._tasks.table,
            terms=SQL(" AND ").join(terms),
            direction=SQL("DESC" if query.newest_first else "ASC"),
            count=Literal(count),
        )

    def _newest(self, cursor: Cursor[DictRow], run_id: RunId) -> int:
        row = cursor.execute(self._index.statements["version"], {"run_id": run_id}).fetchone()
        return 0 if row is None else int(row["version"])

    def _phase(self, cursor: Cursor[DictRow], run_id: RunId, version: int) -> RunPhaseRow:
        asked = {"run_id": run_id, "version": version}
        row = cursor.execute(self._phases.statements["as_of"], asked).fetchone()
        assert row is not None, "a run's first event is run-wide"
        return _phase_row(row)


def _cut(page: Composed, *, newest_first: bool) -> Composed:
    """Return what reads no more of a page than one message takes, and how many rows it had."""
    order = SQL("ORDER BY number {}").format(SQL("DESC" if newest_first else "ASC"))
    return SQL(
        "SELECT * FROM (SELECT *, count(*) OVER () AS found_count,"
        " sum(octet_length(shown)) OVER ({order}) - octet_length(shown) AS before_bytes"
        " FROM ({page}) AS page) AS cut WHERE before_bytes < {bytes_max} {order}"
    ).format(page=page, order=order, bytes_max=Literal(PAGE_BYTES_MAX))


def _of_kinds(kinds: Sequence[TaskKind], judged_ns: int) -> Composed:
    """Return the term for tasks of some kinds: their phases by index, the rest by looking."""
    phases = sorted({kind.phase for kind in kinds})
    term = SQL("phase = ANY({}::smallint[])").format(Literal(phases))
    if len(phases) == 1:  # Then an index by phase is in the order of tasks.
        term = SQL("phase = {}").format(Literal(phases[0]))
    if set(kinds) == {kind for kind in EVERY_KIND if kind.phase in phases}:
        return term
    listed = SQL(", ").join(SQL("({}, {}, {})").format(*map(Literal, kind)) for kind in kinds)
    return SQL("{} AND (phase, clean_up, not_before_ns > {}) IN ({})").format(
        term, Literal(judged_ns), listed
    )


def _phase_row(row: DictRow) -> RunPhaseRow:
    return RunPhaseRow(**{**row, "shown": bytes(row["shown"])})


def _task_row(row: DictRow) -> TaskRow:
    return TaskRow(
        **{name: row[name] for name in TaskRow._fields if name != "shown"},
        shown=bytes(row["shown"]),
    )
