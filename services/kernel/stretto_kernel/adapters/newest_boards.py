"""The newest rows of the view `blackboard` in PostgreSQL: what a lost mirror is filled from."""

from __future__ import annotations

from psycopg import Cursor
from psycopg.rows import DictRow
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Namespace, Partition, RunId

from stretto_kernel.adapters.board_table import board_row
from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.adapters.view_tables import common_statements
from stretto_kernel.projections.blackboard import BLACKBOARD, entry_of
from stretto_kernel.relay.board_mirror import BoardNamespaces, NewestEntries, RunEntry


class NewestBoards:
    """Implements BoardSource over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, BLACKBOARD)
        self._rebuilt_by = common_statements(PartitionSchema(partition).name)["rebuilt_by"]

    async def namespaces(self) -> BoardNamespaces:
        """See `BoardSource`."""

        def read(cursor: Cursor[DictRow], position: int) -> BoardNamespaces:
            rows = cursor.execute(self._reader.statements["namespaces"]).fetchall()
            names = [Namespace(row["namespace"]) for row in rows]
            fold = cursor.execute(self._rebuilt_by, {"view": BLACKBOARD.name}).fetchone()
            return BoardNamespaces(position, names, fold["fold_id"] if fold else "")

        return await self._reader.read(read, BoardNamespaces(0))

    async def newest(
        self, namespace: Namespace, after: RunEntry | None, count_max: int
    ) -> NewestEntries:
        """See `BoardSource`."""
        asked = {
            "namespace": namespace,
            "run_id": "" if after is None else after.run_id,
            "key": "" if after is None else after.entry.key,
            "count": count_max + 1,
        }

        def read(cursor: Cursor[DictRow], position: int) -> NewestEntries:
            rows = cursor.execute(self._reader.statements["newest"], asked).fetchall()
            found = [
                RunEntry(RunId(row["run_id"]), entry_of(board_row(row))) for row in rows[:count_max]
            ]
            return NewestEntries(position, found, more=len(rows) > count_max)

        return await self._reader.read(read, NewestEntries(0))
