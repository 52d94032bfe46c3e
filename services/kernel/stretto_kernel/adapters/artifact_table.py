"""The view `artifacts` in PostgreSQL, as ListArtifacts reads it."""

from __future__ import annotations

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier, Literal
from stretto.common.v1.payload_pb2 import Artifact, BlobRef
from stretto.run.v1 import run_pb2
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.app.artifact_listing import ArtifactFilter, ArtifactPage
from stretto_kernel.projections.artifacts import ARTIFACTS


class ArtifactTable:
    """Implements ArtifactList over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, ARTIFACTS)

    async def list_artifacts(self, found: ArtifactFilter, *, count_max: int) -> ArtifactPage:
        """See `ArtifactList`."""

        def read(cursor: Cursor[DictRow], position: int) -> ArtifactPage:
            rows = cursor.execute(self.list_statement(found, count_max + 1)).fetchall()
            artifacts = [_artifact(row) for row in rows[:count_max]]
            return ArtifactPage(position, artifacts, more=len(rows) > count_max)

        return await self._reader.read(read, ArtifactPage(0, [], more=False))

    def list_statement(self, found: ArtifactFilter, count: int) -> Composed:
        """Return what lists artifacts."""
        wanted = {"task": found.task, "name": found.name, "content_type": found.content_type}
        terms = [
            SQL("AND {} = {}").format(Identifier(column), Literal(value))
            for column, value in wanted.items()
            if value
        ]
        if found.after is not None:
            places = SQL(", ").join(map(Literal, found.after))
            terms.append(SQL("AND (task, epoch, name) > ({})").format(places))
        return SQL(
            "SELECT * FROM {table} WHERE run_id = {run_id} {terms}"
            " ORDER BY task, epoch, name LIMIT {count}"
        ).format(
            table=self._reader.table,
            run_id=Literal(found.run_id),
            terms=SQL(" ").join(terms),
            count=Literal(count),
        )


def _artifact(row: DictRow) -> run_pb2.TaskArtifact:
    blob = BlobRef(digest=bytes(row["digest"]), size_bytes=row["size_bytes"])
    return run_pb2.TaskArtifact(
        task=row["task"],
        epoch=row["epoch"],
        version=row["version"],
        artifact=Artifact(name=row["name"], blob=blob, content_type=row["content_type"]),
    )
