"""The view `blob_references` as the sweep reads it: over every partition of the database."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from psycopg.sql import Composed
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.ids import Namespace, Partition

from stretto_kernel.adapters.database_lane import Connection, DatabaseLane
from stretto_kernel.adapters.view_tables import view_statements
from stretto_kernel.app.blob_store import Untouched
from stretto_kernel.app.blob_sweep import LogEnds, References
from stretto_kernel.projections.blob_references import BLOB_REFERENCES
from stretto_kernel.projections.store import Target

_PARTITIONS = "SELECT partition FROM stretto.partitions"


class BlobReferenceTables:
    """Implements BlobReferences over every partition of the database. Close it at the end."""

    def __init__(self, dsn: str) -> None:
        self._lane = DatabaseLane(dsn, "blob-references")

    async def ends(self) -> LogEnds:
        """See `BlobReferences`."""

        def read(connection: Connection) -> LogEnds:
            partitions = [Partition(name) for (name,) in connection.execute(_PARTITIONS).fetchall()]
            return {each: _one(connection, _statements(each)["recorded"]) for each in partitions}

        return await self._lane.run(read)

    async def of(self, blobs: Collection[Untouched], ends: LogEnds) -> References:
        """See `BlobReferences`."""
        asked = {
            "namespace": [blob.namespace for blob in blobs],
            "digest": [blob.digest for blob in blobs],
        }

        def read(connection: Connection) -> References:
            named: set[tuple[Namespace, bytes]] = set()
            for partition, end in ends.items():
                statements = _statements(partition)
                if not _one(connection, statements["exists"]):
                    return References(complete=False, named=frozenset())
                # In this order: the rows are those of the position at least.
                if _one(connection, statements["read"]) < end:
                    return References(complete=False, named=frozenset())
                rows = connection.execute(statements["named"], asked).fetchall()
                named.update((Namespace(namespace), bytes(digest)) for namespace, digest in rows)
            return References(complete=True, named=frozenset(named))

        return await self._lane.run(read)

    async def close(self) -> None:
        """Close the connection."""
        await self._lane.close()


def _one(connection: Connection, statement: Composed) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None, "each of these has one row"
    return row[0]


def _statements(partition: Partition) -> dict[str, Composed]:
    return view_statements(PartitionSchema(partition).name, Target(BLOB_REFERENCES))
