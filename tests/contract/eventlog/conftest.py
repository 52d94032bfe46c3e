"""The log adapters under the contract, and how a case opens handles on one partition."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.postgres.connections import PostgresOptions
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.ids import Partition

OpenLog = Callable[[], Awaitable[EventLog]]
OpenPostgresLog = Callable[[], Awaitable[PostgresLog]]

# Short: the cases in which somebody waits for a lock need not wait long.
OPTIONS = PostgresOptions(
    acquire_wait_ms=100, lock_timeout_s=1, release_wait_s=0.1, poll_interval_s=0.2
)
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def log_database(postgres_dsn: str) -> Iterator[str]:
    """One database for all cases: each takes a partition of its own in it."""
    name = f"log_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        yield make_conninfo(postgres_dsn, dbname=name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def fresh_partition() -> Partition:
    return Partition(f"p{next(_numbers)}")


@pytest.fixture
async def open_postgres_log(
    log_database: str, fresh_partition: Partition
) -> AsyncIterator[OpenPostgresLog]:
    opened: list[PostgresLog] = []

    async def open_log() -> PostgresLog:
        opened.append(await PostgresLog.open(log_database, fresh_partition, options=OPTIONS))
        return opened[-1]

    yield open_log
    for log in opened:
        await log.close()


@pytest.fixture(params=["memory", "postgres"])
def open_log(request: pytest.FixtureRequest, fresh_partition: Partition) -> OpenLog:
    """Opens a handle on the case's partition; every call gives another one."""
    if request.param == "postgres":
        opener: OpenLog = request.getfixturevalue("open_postgres_log")
        return opener
    store = MemoryStore(fresh_partition)

    async def open_memory_log() -> EventLog:
        return MemoryLog(store)

    return open_memory_log
