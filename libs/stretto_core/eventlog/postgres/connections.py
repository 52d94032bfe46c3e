"""Connections: the writer's own, and the library's pool for everyone who reads.

Sizes and times are in the names. TCP keepalives make a vanished client's session lock end within
half a minute; timeouts bound what a statement may wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from eventsourcing.postgres import PostgresDatastore
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from stretto_core.eventlog.postgres.arrays import ADAPTERS
from stretto_core.eventlog.postgres.schema import THIS_BACKEND, PartitionSchema

_POOL_WAIT_S = 0.5
_POOL_WAITS_MAX = 4
"""Two seconds in all: on a busy machine all connections may be taken, or one be slow to make."""
_POOL_RECONNECT_S = 0.05

WriterSession = psycopg.Connection[TupleRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions:
    """How to use the server.

    lock_timeout_s: an append waits so long for the table's lock, then nothing is stored.
    statement_timeout_s: the server gives up a statement of the writer after this.
    acquire_wait_ms: how long a new owner waits for a dead one's session to end.
    backend_end_wait_ms: how long a settlement waits for the lost append's backend to end.
    release_wait_s: a release waits so long for a call under way, then breaks its connection.
    poll_interval_s: subscribers look at the log this often besides being notified.
    """

    connect_timeout_s: int = 5
    lock_timeout_s: int = 5
    statement_timeout_s: int = 30
    acquire_wait_ms: int = 1_000
    backend_end_wait_ms: int = 5_000
    reader_threads: int = 4
    release_wait_s: float = 2.0
    poll_interval_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Backend:
    """The server process behind a session, told apart from a later one with the same id."""

    pid: int
    started: str


def connection_parameters(dsn: str, options: PostgresOptions) -> dict[str, Any]:
    """Return the parameters of every connection to `dsn` (a URL or key=value text)."""
    parameters: dict[str, Any] = dict(conninfo_to_dict(dsn))
    parameters.setdefault("connect_timeout", options.connect_timeout_s)
    parameters.setdefault("application_name", "stretto")
    parameters.update(keepalives=1, keepalives_idle=5, keepalives_interval=5, keepalives_count=3)
    parameters.update(context=ADAPTERS, client_encoding="UTF8")
    return parameters


def open_session(dsn: str, options: PostgresOptions) -> tuple[WriterSession, Backend]:
    """Return a dedicated connection in autocommit mode, and the backend that serves it."""
    session = psycopg.connect(**connection_parameters(dsn, options), autocommit=True)
    # The append function compares the epoch after it has the lock, and must see it as of then.
    session.isolation_level = IsolationLevel.READ_COMMITTED
    session.execute("SET default_transaction_isolation = 'read committed'")
    # What is acknowledged is on disk, whatever the role or the database has by default.
    session.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
    session.execute(f"SET lock_timeout = '{options.lock_timeout_s}s'")
    session.execute(f"SET statement_timeout = '{options.statement_timeout_s}s'")
    row = session.execute(THIS_BACKEND).fetchone()
    assert row is not None, "a session sees its own backend"
    return session, Backend(pid=row[0], started=row[1])


def open_datastore(dsn: str, names: PartitionSchema, options: PostgresOptions) -> PostgresDatastore:
    """Return the library's datastore for one partition's readers; its pool grows on demand.

    Room for the reader threads, and for one subscription: its LISTEN and its pulls.
    """
    parameters = connection_parameters(dsn, options)
    datastore = PostgresDatastore(
        dbname=parameters.pop("dbname", None) or "",
        host=parameters.pop("host", None) or "",
        port=parameters.pop("port", None) or "",
        user=parameters.pop("user", None) or "",
        password=parameters.pop("password", None) or "",
        connect_timeout=_POOL_WAIT_S,  # The library's name for the wait for a pooled connection.
        pool_size=1,
        max_overflow=options.reader_threads + 2,
        lock_timeout=options.lock_timeout_s,
        schema=names.name,
        originator_id_type="text",
    )
    assert isinstance(datastore.pool.kwargs, dict)
    datastore.pool.kwargs.update(parameters)
    # A lost connection is not re-made on a back-off of seconds: the next read that needs one asks
    # for it, so that readers are back as soon as the server is.
    datastore.pool.reconnect_timeout = _POOL_RECONNECT_S
    _ask_again(datastore.pool)
    return datastore


def _ask_again(pool: ConnectionPool[Any]) -> None:
    """Let who waits for a connection of `pool` ask several times before it is refused.

    One long wait would not do: the pool tries to connect when it is asked, and who asked while the
    server was away would not see it come back.
    """
    ask: Callable[[float | None], psycopg.Connection[Any]] = pool.getconn

    def ask_patiently(timeout: float | None = None) -> psycopg.Connection[Any]:
        for _ in range(_POOL_WAITS_MAX - 1):
            with suppress(PoolTimeout):
                return ask(timeout)
        return ask(timeout)

    pool.getconn = ask_patiently  # type: ignore[method-assign]
