"""The view `queues` in PostgreSQL, as ListQueues and GetQueue read it."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import DictRow
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.projections.past_queues import QueuesSeen
from stretto_kernel.projections.queues import QUEUES, QueueRow


class QueueTable:
    """Implements QueueRows over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, QUEUES)

    async def queues_named(self, queues: Sequence[str]) -> QueuesSeen:
        """See `QueueRows`."""
        return await self._read("named", {"queues": list(queues)})

    async def queues_after(self, queue: str, *, count_max: int) -> QueuesSeen:
        """See `QueueRows`."""
        return await self._read("page", {"after": queue, "count": count_max})

    async def _read(self, statement: str, asked: dict[str, object]) -> QueuesSeen:
        def read(cursor: Cursor[DictRow], position: int) -> QueuesSeen:
            rows = cursor.execute(self._reader.statements[statement], asked).fetchall()
            return QueuesSeen(position, {row["queue"]: QueueRow(**row) for row in rows})

        return await self._reader.read(read, QueuesSeen(0, {}))
