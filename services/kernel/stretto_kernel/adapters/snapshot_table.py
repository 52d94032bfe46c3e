"""Snapshots in PostgreSQL, in a table of their own beside the views.

Commits are not awaited: what a crash of the server takes is made again.
"""

from __future__ import annotations

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import Identifier, Literal
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition, StreamId

from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.adapters.view_transactions import transact
from stretto_kernel.app.snapshots import Snapshot

TABLE = "snapshots_v1"


class SnapshotTable:
    """Implements SnapshotStore over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._tracking = tracking
        schema = PartitionSchema(partition).name
        parts = {"table": Identifier(schema, TABLE), "table_name": Literal(f"{schema}.{TABLE}")}
        self._statements = named_statements("snapshots.sql", parts)

    async def load(self, stream: StreamId) -> Snapshot | None:
        """See `SnapshotStore`."""

        def read(cursor: Cursor[DictRow]) -> Snapshot | None:
            if not self._exists(cursor):
                return None
            rows = cursor.execute(
                self._statements["load"], {"stream": stream}, binary=True
            ).fetchall()
            if not rows:
                return None
            first = rows[0]
            return Snapshot(
                stream,
                int(first["version"]),
                bytes(first["chain_hash"]),
                first["rules"],
                bytes(first["digest"]),
                tuple(bytes(row["bytes"]) for row in rows),
            )

        return await transact(self._tracking, read, commit=False)

    async def save(self, snapshot: Snapshot) -> None:
        """See `SnapshotStore`."""

        def store(cursor: Cursor[DictRow]) -> None:
            cursor.execute("SET LOCAL synchronous_commit = off")
            if not self._exists(cursor):
                cursor.execute(self._statements["create"])
            cursor.execute(self._statements["forget"], {"stream": snapshot.stream})
            values = {**snapshot._asdict(), "parts": list(snapshot.parts)}
            cursor.execute(self._statements["keep"], values)

        await transact(self._tracking, store, commit=True)

    def size(self, cursor: Cursor[DictRow]) -> tuple[int, int]:
        """Return how many snapshots there are, and how many bytes they take."""
        if not self._exists(cursor):
            return 0, 0
        row = cursor.execute(self._statements["size"]).fetchone()
        assert row is not None
        return int(row["snapshot_count"]), int(row["size_bytes"])

    def _exists(self, cursor: Cursor[DictRow]) -> bool:
        row = cursor.execute(self._statements["exists"]).fetchone()
        return bool(row and row["found"])
