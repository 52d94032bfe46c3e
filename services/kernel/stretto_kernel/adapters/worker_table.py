"""The view `workers` in PostgreSQL, as ListWorkers reads it."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import DictRow
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.projections.workers import WORKERS, WorkerRow


class WorkerTable:
    """Implements WorkerHistory over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, WORKERS)

    async def page(self, *, after: str, count_max: int) -> Sequence[WorkerRow]:
        """See `WorkerHistory`."""

        def read(cursor: Cursor[DictRow], _position: int) -> Sequence[WorkerRow]:
            asked = {"after": after, "count": count_max}
            rows = cursor.execute(self._reader.statements["page"], asked).fetchall()
            return [WorkerRow(**row) for row in rows]

        return await self._reader.read(read, [])
