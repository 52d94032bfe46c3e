"""Blobs in PostgreSQL: part of the record, in chunks, one short transaction a call.

Uses connections and threads of its own, so that a slow upload delays no reader of the log; the
statements are in `sql/blobs.sql`. An upload is a row without a digest and its chunks, each stored
without waiting for the disk; the transaction that gives it its digest waits, and what was written
before it is then on disk as well. A touch does not wait either: a command that relies on it is
committed after it, and a crash that loses the touch loses the command too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from psycopg.errors import UniqueViolation
from psycopg.rows import TupleRow
from psycopg.sql import Composed
from stretto_core.clock import Clock
from stretto_core.errors import Unavailable
from stretto_core.ids import Namespace

from stretto_kernel.adapters.database_lane import DURABLE, QUICK, Connection, DatabaseLane
from stretto_kernel.adapters.late_tables import LateTables
from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.app.blob_store import CLEAR, Holder, StoredBlob, Untouched
from stretto_kernel.domain.run.blob_names import BlobName

R = TypeVar("R")

LANES = 2


class UploadExpired(Unavailable):
    """The upload was silent for so long that it was taken for dead: put the blob again."""


class BlobTable:
    """Implements BlobStore and SweptBlobs; connects at the first use. Close it at the end."""

    def __init__(self, dsn: str, clock: Clock) -> None:
        self._clock = clock
        self._statements = named_statements("blobs.sql", {})
        self._quick = [DatabaseLane(dsn, f"blob-write-{n}", prepare=QUICK) for n in range(LANES)]
        self._durable = [DatabaseLane(dsn, f"blob-read-{n}", prepare=DURABLE) for n in range(LANES)]
        self._tables = LateTables(self._statements)

    async def touch(
        self,
        namespace: Namespace,
        blobs: Collection[BlobName],
        *,
        now_ns: int,
        holder: Holder = CLEAR,
    ) -> frozenset[BlobName]:
        """See `BlobStore`."""
        asked = {
            "namespace": namespace,
            "digests": [blob.digest for blob in blobs],
            "sizes_bytes": [blob.size_bytes for blob in blobs],
            "now_ns": now_ns,
        }

        def execute(connection: Connection) -> list[TupleRow]:
            if not holder.key_id:
                return self._read(connection, "touch", asked | holder._asdict())
            with connection.transaction():
                held = self._read(connection, "hold_key", holder._asdict())
                named = holder if held else holder._replace(key_id=0)
                return self._read(connection, "touch", asked | named._asdict())

        rows = await self._run(self._quick, execute)
        return frozenset(blobs) - {BlobName(bytes(digest), size) for digest, size in rows}

    async def begin(self, namespace: Namespace, *, now_ns: int) -> _Upload:
        """See `BlobStore`."""
        rows = await self._rows(self._quick, "begin", namespace=namespace, now_ns=now_ns)
        return _Upload(self, self._clock, namespace, rows[0][0])

    async def find(self, namespace: Namespace, digest: bytes) -> StoredBlob | None:
        """See `BlobStore`."""
        rows = await self._rows(self._durable, "find", namespace=namespace, digest=digest)
        if not rows:
            return None
        key, size_bytes, encrypted, secret = rows[0]
        return StoredBlob(key, size_bytes, encrypted, None if secret is None else bytes(secret))

    async def forget_keys(self, key_id: int) -> None:
        """See `BlobStore`."""

        def forget(connection: Connection) -> None:
            with connection.transaction():
                forget_copies(connection, self._statements, [key_id])

        await self._run(self._durable, forget)

    async def read(self, key: int, chunk_number: int) -> bytes | None:
        """See `BlobStore`."""
        rows = await self._rows(self._durable, "read", key=key, chunk_number=chunk_number)
        return bytes(rows[0][0]) if rows else None

    async def untouched(
        self, *, before_ns: int, count_max: int, after: Untouched | None = None
    ) -> Sequence[Untouched]:
        """See `SweptBlobs`."""
        place = after or Untouched(Namespace(""), b"", 0)
        rows = await self._rows(
            self._durable,
            "untouched",
            before_ns=before_ns,
            count=count_max,
            after_ns=place.touched_ns,
            after_namespace=place.namespace,
            after_digest=place.digest,
        )
        return [Untouched(Namespace(row[0]), bytes(row[1]), row[2]) for row in rows]

    async def delete(self, blob: Untouched) -> bool:
        """See `SweptBlobs`."""
        return bool(await self.change("delete", **blob._asdict()))

    async def delete_uploads(self, *, before_ns: int) -> int:
        """See `SweptBlobs`."""
        return await self.change("delete_uploads", before_ns=before_ns) or 0

    async def change(
        self, statement: str, *, durable: bool = True, **parameters: object
    ) -> int | None:
        """Return how many rows a statement changed; None when the digest is there already.

        durable: what it changed is on disk. Raises Unavailable.
        """

        def execute(connection: Connection) -> int | None:
            try:
                return connection.execute(self._statements[statement], parameters).rowcount
            except UniqueViolation:
                return None

        return await self._run(self._durable if durable else self._quick, execute)

    async def close(self) -> None:
        """Finish what is under way, then close the connections."""
        for lane in (*self._quick, *self._durable):
            await lane.close()

    async def _rows(
        self, lanes: Sequence[DatabaseLane], statement: str, **parameters: object
    ) -> list[TupleRow]:
        return await self._run(
            lanes, lambda connection: self._read(connection, statement, parameters)
        )

    def _read(
        self, connection: Connection, statement: str, parameters: Mapping[str, object]
    ) -> list[TupleRow]:
        return connection.execute(self._statements[statement], parameters, binary=True).fetchall()

    async def _run(self, lanes: Sequence[DatabaseLane], work: Callable[[Connection], R]) -> R:
        def with_tables(connection: Connection) -> R:
            self._tables.make(connection)
            return work(connection)

        return await min(lanes, key=lambda lane: lane.waiting_count).run(with_tables)


def forget_copies(
    connection: Connection, statements: Mapping[str, Composed], key_ids: Sequence[int]
) -> None:
    """Delete the copies of blobs' keys that runs have, by their data keys; in a transaction.

    statements: of `blobs.sql`. What no run has a key of any more nobody can read.
    """
    for name in ("hold_copied", "forget_keys"):
        connection.execute(statements[name], {"key_ids": list(key_ids)})


class _Upload:
    def __init__(self, table: BlobTable, clock: Clock, namespace: Namespace, key: int) -> None:
        self._table = table
        self._clock = clock
        self._namespace = namespace
        self._key = key
        self._chunk_count = 0

    async def add(self, chunk: bytes) -> None:
        """See `BlobUpload`."""
        added = await self._table.change(
            "add",
            durable=False,
            key=self._key,
            chunk_number=self._chunk_count,
            bytes=chunk,
            now_ns=self._clock.now_ns(),
        )
        self._chunk_count += 1
        if not added:
            raise _expired()

    async def commit(self, blob: BlobName, *, now_ns: int, secret: bytes | None = None) -> None:
        """See `BlobUpload`."""
        digest, size_bytes = blob
        while True:
            done = await self._table.change(
                "commit",
                key=self._key,
                digest=digest,
                size_bytes=size_bytes,
                now_ns=now_ns,
                secret=secret,
            )
            if done is not None:
                break
            # Somebody put it meanwhile. Should that one be swept in between, ours is stored.
            if await self._table.change(
                "renew", namespace=self._namespace, digest=digest, now_ns=now_ns
            ):
                await self.discard()
                return
        if not done:
            raise _expired()

    async def discard(self) -> None:
        """See `BlobUpload`."""
        # Should it fail the sweep takes it.
        with suppress(Unavailable):
            await self._table.change("discard", durable=False, key=self._key)


def _expired() -> UploadExpired:
    return UploadExpired("the upload was taken for dead: put the blob again")
