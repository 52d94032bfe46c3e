"""The view `run_index` in PostgreSQL: written by the projector, read by ListRuns and recovery.

The statements are in `sql/run_index.sql`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import Identifier, Literal
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition, RunId

from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.adapters.tracked_view import TrackedView
from stretto_kernel.app.background_folds import NO_DEADLINE_NS
from stretto_kernel.app.recovery import ActiveRun, ActiveRuns
from stretto_kernel.app.run_listing import ListedRun, RunFilter, RunListPage
from stretto_kernel.projections.run_index import RUN_INDEX, RunRow

Result = TypeVar("Result")


class RunIndexTable(TrackedView[RunRow]):
    """The view of one partition, over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        schema = PartitionSchema(partition).name
        statements = named_statements(
            "run_index.sql",
            {"schema": Identifier(schema), "table_name": Literal(f"{schema}.{RUN_INDEX}")},
        )
        super().__init__(tracking, RUN_INDEX, statements, _columns)
        self._exists = False

    async def active_runs(self) -> ActiveRuns:
        """See `RunIndex`."""

        def read(cursor: Cursor[DictRow], position: int) -> ActiveRuns:
            rows = cursor.execute(self._statements["active"]).fetchall()
            runs = tuple(
                ActiveRun(
                    RunId(row["run_id"]),
                    NO_DEADLINE_NS if row["next_due_ns"] is None else row["next_due_ns"],
                    tuple(row["queues"]),
                )
                for row in rows
            )
            return ActiveRuns(position, runs)

        return await self._read(read, ActiveRuns(0, ()))

    async def list_runs(self, found: RunFilter, *, count_max: int) -> RunListPage:
        """See `RunList`."""

        def read(cursor: Cursor[DictRow], position: int) -> RunListPage:
            parameters = {
                "namespace": found.namespace,
                "since_ns": found.since_ns,
                "before_ns": found.before_ns,
                "before_run_id": found.before_run_id,
                "state": found.state,
                "display_name": found.display_name,
                "labels": found.labels_json,
                "count": count_max + 1,
            }
            rows = cursor.execute(self._statements["list"], parameters).fetchall()
            runs = [
                ListedRun(RunId(row["run_id"]), row["create_ns"], bytes(row["shown"]))
                for row in rows[:count_max]
            ]
            return RunListPage(position, runs, more=len(rows) > count_max)

        return await self._read(read, RunListPage(0, [], more=False))

    async def _read(
        self, read: Callable[[Cursor[DictRow], int], Result], without_view: Result
    ) -> Result:
        """Read the position first: rows may then only be newer than it says."""

        def transact() -> Result:
            with self.transaction(commit=False) as cursor:
                if not self._exists:
                    row = cursor.execute(self._statements["exists"]).fetchone()
                    self._exists = bool(row and row["found"])
                if not self._exists:
                    return without_view
                return read(cursor, self.position_in(cursor))

        return await asyncio.to_thread(transact)


def _columns(rows: Sequence[RunRow]) -> dict[str, list[object]]:
    return {
        "run_id": [row.run_id for row in rows],
        "namespace": [row.namespace for row in rows],
        "version": [row.version for row in rows],
        "state": [row.state for row in rows],
        "display_name": [row.display_name for row in rows],
        "labels": [row.labels for row in rows],
        "create_ns": [row.create_ns for row in rows],
        "ended": [row.ended for row in rows],
        "next_due_ns": [row.next_due_ns for row in rows],
        # Queue names have no comma: an array of arrays of different lengths has no form in SQL.
        "queues": [",".join(row.queues) for row in rows],
        "shown": [row.shown for row in rows],
    }
