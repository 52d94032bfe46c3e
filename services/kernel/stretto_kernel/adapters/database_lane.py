"""A thread with one connection, for work beside the record that may wait.

Opened at first use, closed after an error and opened again by the next call. Threads exist only
here and behind the log port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
from psycopg.rows import TupleRow
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.connections import PostgresOptions, connection_parameters

R = TypeVar("R")
Connection = psycopg.Connection[TupleRow]

DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'",
)
"""What is acknowledged is on disk, whatever the role or the database has by default."""
QUICK = ("SET synchronous_commit = off",)
"""A crash of the server may take what was acknowledged last."""


class DatabaseLane:
    """Does one piece of work after another on a connection of its own, in autocommit mode.

    prepare: statements for every new connection.
    """

    def __init__(self, dsn: str, name: str, *, prepare: tuple[str, ...] = ()) -> None:
        self._dsn = dsn
        self._prepare = prepare
        self._thread = ThreadPoolExecutor(1, name)
        self._connection: Connection | None = None
        self.waiting_count = 0

    async def run(self, work: Callable[[Connection], R]) -> R:
        """Return what `work` returns. Raises StoreDown for what the database does not do."""
        self.waiting_count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)
        except psycopg.Error as error:
            raise StoreDown(f"the database does not answer: {type(error).__name__}") from error
        finally:
            self.waiting_count -= 1

    async def close(self) -> None:
        """Finish what is under way, then close the connection."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _do(self, work: Callable[[Connection], R]) -> R:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return work(self._connection)
        except psycopg.Error:
            self._disconnect()
            raise

    def _connect(self) -> Connection:
        parameters = connection_parameters(self._dsn, PostgresOptions())
        connection = psycopg.connect(**parameters, autocommit=True)
        for statement in ("SET statement_timeout = '30s'", *self._prepare):
            connection.execute(statement.encode())
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
