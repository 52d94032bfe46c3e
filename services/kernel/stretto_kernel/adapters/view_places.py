"""How far every view has followed the log, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import Cursor
from psycopg.rows import DictRow
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.view_tables import common_statements
from stretto_kernel.adapters.view_transactions import transact
from stretto_kernel.projections.registry import VIEWS


class ViewPlaceReader:
    """Implements ViewPlaces over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._tracking = tracking
        self._positions = common_statements(PartitionSchema(partition).name)["positions"]

    async def places(self) -> Mapping[str, int]:
        """See `ViewPlaces`."""
        views = {"views": [view.table for view in VIEWS]}

        def read(cursor: Cursor[DictRow]) -> Mapping[str, int]:
            rows = cursor.execute(self._positions, views, prepare=True).fetchall()
            return {row["view"]: int(row["position"]) for row in rows}

        return await transact(self._tracking, read, commit=False)
