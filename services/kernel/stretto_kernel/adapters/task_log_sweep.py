"""Deletes task logs whose time is over, in small statements. The statements are in `sql/`.

Only what is deleted is touched: a run that ended is taken whole once its newest entry is old
enough, another loses its old entries and keeps its positions. A crash in between repeats nothing.
"""

from __future__ import annotations

from typing import Any

from psycopg.sql import Identifier, Literal
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.ids import Partition

from stretto_kernel.adapters.database_lane import QUICK, Connection, DatabaseLane
from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.adapters.task_log_table import RUNS_TABLE
from stretto_kernel.projections.run_index import RUN_INDEX

RUNS_PER_LOOK = 1_000
ENTRIES_PER_STATEMENT = 5_000


class TaskLogSweep:
    """The sweep of one partition; close it at the end."""

    def __init__(self, dsn: str, partition: Partition) -> None:
        schema = PartitionSchema(partition).name
        self._statements = named_statements(
            "task_log_sweep.sql",
            {
                "schema": Identifier(schema),
                "runs_table": Literal(f"{schema}.{RUNS_TABLE}"),
                "run_index": Literal(f"{schema}.{RUN_INDEX.table}"),
                "run_index_table": Identifier(schema, RUN_INDEX.table),
            },
        )
        self._lane = DatabaseLane(dsn, "task-log-sweep", prepare=QUICK)

    async def sweep(self, *, before_ns: int, ended_before_ns: int) -> int:
        """Delete entries stored before `before_ns`, and all of ended runs that wrote nothing since
        `ended_before_ns`; return how many. Raises StoreDown.
        """
        deleted_count = 0
        named = {"before_ns": before_ns, "ended_before_ns": ended_before_ns}
        while due := await self._lane.run(lambda connection: self._due(connection, named)):
            for run_id, whole in due:
                asked = {**named, "run_id": run_id, "whole": whole}
                while count := await self._delete(asked):
                    deleted_count += count
                await self._settle(asked)
            if len(due) < RUNS_PER_LOOK:
                break
        return deleted_count

    async def close(self) -> None:
        """Close the connection."""
        await self._lane.close()

    def _due(self, connection: Connection, named: dict[str, Any]) -> list[tuple[Any, ...]]:
        row = connection.execute(self._statements["exist"]).fetchone()
        if not row or not row[0]:
            return []
        asked = {**named, "count": RUNS_PER_LOOK}
        return connection.execute(self._statements["due_runs"], asked).fetchall()

    async def _delete(self, asked: dict[str, Any]) -> int:
        def delete(connection: Connection) -> int:
            part = {**asked, "count": ENTRIES_PER_STATEMENT}
            return connection.execute(self._statements["delete_entries"], part).rowcount

        return await self._lane.run(delete)

    async def _settle(self, asked: dict[str, Any]) -> None:
        def settle(connection: Connection) -> None:
            name = "forget_run" if asked["whole"] else "note_oldest"
            connection.execute(self._statements[name], asked)

        await self._lane.run(settle)
