"""Data keys in PostgreSQL: part of the record, every change on disk before it is answered.

Uses one connection of its own; the statements are in `sql/run_keys.sql`. The table is made at the
first key: an installation that encrypts nothing has none, and asks nothing but whether it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import psycopg
import structlog
from psycopg.rows import TupleRow
from stretto_core.ids import RunId

from stretto_kernel.adapters.blob_table import forget_copies
from stretto_kernel.adapters.database_lane import DURABLE, Connection, DatabaseLane
from stretto_kernel.adapters.late_tables import LateTables
from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.app.run_key_store import KeyOfRun, StoredKey

R = TypeVar("R")


class RunKeyTable:
    """Implements RunKeyStore and SweptRunKeys; connects at the first use. Close it at the end."""

    def __init__(self, dsn: str) -> None:
        self._statements = named_statements("run_keys.sql", {})
        self._blob_statements = named_statements("blobs.sql", {})
        self._lane = DatabaseLane(dsn, "run-keys", prepare=DURABLE)
        self._tables = LateTables(self._statements)
        self._log = structlog.get_logger("stretto.kernel.keys")

    async def make(self, secrets: Mapping[RunId, bytes]) -> Mapping[RunId, StoredKey]:
        """See `RunKeyStore`."""

        def make(connection: Connection) -> Mapping[RunId, StoredKey]:
            self._tables.make(connection)
            rows = self._rows(connection, "make", run_ids=[*secrets], secrets=[*secrets.values()])
            return {RunId(run_id): StoredKey(key_id, bytes(key)) for run_id, key_id, key in rows}

        return await self._lane.run(make)

    async def find(self, key_ids: Collection[int]) -> Mapping[int, bytes]:
        """See `RunKeyStore`."""

        def find(connection: Connection) -> Mapping[int, bytes]:
            rows = self._rows(connection, "find", key_ids=list(key_ids))
            return {key_id: bytes(secret) for key_id, secret in rows}

        return await self._if_there(find, {})

    async def mark(self, key_id: int) -> None:
        """See `RunKeyStore`."""
        await self._change("mark", key_id)

    async def marked(self) -> Sequence[KeyOfRun]:
        """See `RunKeyStore`."""

        def read(connection: Connection) -> Sequence[KeyOfRun]:
            rows = self._rows(connection, "marked")
            return [KeyOfRun(key_id, RunId(run_id)) for key_id, run_id in rows]

        return await self._if_there(read, ())

    async def unmark(self, key_id: int) -> None:
        """See `RunKeyStore`."""
        await self._change("unmark", key_id)

    async def destroy(self, key_id: int) -> None:
        """See `RunKeyStore`."""

        def destroy(connection: Connection) -> None:
            named = {"key_id": key_id}
            with connection.transaction():
                connection.execute(self._statements["overwrite"], named)
                # What was copied since the blobs' keys were forgotten: from the overwriting on, who
                # holds this key for a copy has committed it, and nobody finds it any more.
                self._forget_copies(connection, [key_id])
                connection.execute(self._statements["destroy"], named)
            try:
                connection.execute(self._statements["clean"])
            except psycopg.Error as error:
                # The key is destroyed; its dead versions stay until PostgreSQL cleans by itself.
                self._log.warning("keys.not_cleaned", error=type(error).__name__)

        await self._if_there(destroy, None)

    async def old(self, *, after_key_id: int, count_max: int) -> Sequence[KeyOfRun]:
        """See `SweptRunKeys`."""

        def read(connection: Connection) -> Sequence[KeyOfRun]:
            rows = self._rows(connection, "old", after_key_id=after_key_id, count=count_max)
            return [KeyOfRun(key_id, RunId(run_id)) for key_id, run_id in rows]

        return await self._if_there(read, ())

    async def sweep(self, key_ids: Collection[int]) -> int:
        """See `SweptRunKeys`."""

        def delete(connection: Connection) -> int:
            with connection.transaction():
                swept = [row[0] for row in self._rows(connection, "sweep", key_ids=list(key_ids))]
                if swept:
                    self._forget_copies(connection, swept)
            return len(swept)

        return await self._if_there(delete, 0)

    def _forget_copies(self, connection: Connection, key_ids: Sequence[int]) -> None:
        """Delete the copies of blobs' keys that the runs of these keys have."""
        if self._rows(connection, "blobs_exist")[0][0]:
            forget_copies(connection, self._blob_statements, key_ids)

    async def close(self) -> None:
        """Finish what is under way, then close the connection."""
        await self._lane.close()

    async def _change(self, statement: str, key_id: int) -> None:
        def change(connection: Connection) -> None:
            connection.execute(self._statements[statement], {"key_id": key_id})

        await self._if_there(change, None)

    async def _if_there(self, work: Callable[[Connection], R], otherwise: R) -> R:
        def with_table(connection: Connection) -> R:
            return work(connection) if self._tables.are_there(connection) else otherwise

        return await self._lane.run(with_table)

    def _rows(self, connection: Connection, name: str, **parameters: object) -> list[TupleRow]:
        return connection.execute(self._statements[name], parameters, binary=True).fetchall()
