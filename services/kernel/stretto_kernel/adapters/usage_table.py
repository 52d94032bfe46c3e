"""The view `usage` in PostgreSQL, as GetUsage reads it."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Literal
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Namespace, Partition, RunId

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.app.usage_reading import UsageSums, Used
from stretto_kernel.projections.usage import ALL_RUNS, USAGE

_QUEUES, _WORKERS, _TOTAL = 1, 2, 3
"""What GROUPING(queue, worker_id) says of a row: the bits of what it does not tell apart."""


class UsageTable:
    """Implements UsageView over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, USAGE)

    async def usage_of(
        self, namespace: Namespace, run_id: RunId | None, *, count_max: int
    ) -> UsageSums:
        """See `UsageView`."""

        def read(cursor: Cursor[DictRow], position: int) -> UsageSums:
            statement = self.sums_statement(namespace, run_id, count_max)
            rows = cursor.execute(statement).fetchall()
            return UsageSums(
                position,
                next((_used(row) for row in rows if row["apart"] == _TOTAL), Used()),
                _shares(rows, _QUEUES, "queue"),
                _shares(rows, _WORKERS, "worker_id"),
            )

        return await self._reader.read(read, UsageSums(0))

    def sums_statement(self, namespace: Namespace, run_id: RunId | None, count: int) -> Composed:
        """Return what adds up by queue, by worker and by all, the longest held first."""
        return SQL(
            "SELECT * FROM (SELECT *, row_number() OVER"
            "  (PARTITION BY apart ORDER BY held_ns DESC, queue, worker_id) AS place"
            " FROM (SELECT queue, worker_id, GROUPING(queue, worker_id) AS apart,"
            "  sum(attempt_count) AS attempt_count, sum(ended_count) AS ended_count,"
            "  sum(succeeded_count) AS succeeded_count, sum(held_ns) AS held_ns,"
            "  sum(succeeded_ns) AS succeeded_ns"
            "  FROM {table} WHERE namespace = {namespace} AND run_id = {run_id}"
            "  GROUP BY GROUPING SETS ((queue), (worker_id), ()) HAVING count(*) > 0) AS summed"
            ") AS placed WHERE place <= {count} ORDER BY apart, place"
        ).format(
            table=self._reader.table,
            namespace=Literal(namespace),
            run_id=Literal(ALL_RUNS if run_id is None else run_id),
            count=Literal(count),
        )


def _shares(rows: Sequence[DictRow], apart: int, name: str) -> list[tuple[str, Used]]:
    return [(row[name], _used(row)) for row in rows if row["apart"] == apart]


def _used(row: DictRow) -> Used:
    return Used(*(int(row[name]) for name in Used._fields))
