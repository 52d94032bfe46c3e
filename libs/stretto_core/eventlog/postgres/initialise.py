"""Make one partition's tables, functions and first keys. Blocking; idempotent.

Processes that start together wait for each other; one that finds everything made changes nothing,
so that a restart costs one statement.
"""

from __future__ import annotations

import secrets

import psycopg

from stretto_core.eventlog.postgres.connections import PostgresOptions, open_session
from stretto_core.eventlog.postgres.recorder import PartitionRecorder
from stretto_core.eventlog.postgres.schema import (
    CREATE_SHARED,
    FIRST_KEY,
    LEASE_PURPOSE,
    LOCK_INITIALISATION,
    PARTITIONS_TABLE_EXISTS,
    RECORD_PARTITION,
    SCHEMA_VERSION,
    SCHEMA_VERSION_OF,
    SEAL_PURPOSE,
    TRACKING_TABLE,
)
from stretto_core.eventlog.postgres.tracking import TrackingRecorder

KEY_BYTES = 32


def initialise(
    dsn: str,
    options: PostgresOptions,
    recorder: PartitionRecorder,
    tracking: TrackingRecorder,
) -> None:
    """After it, the partition can be owned and read. Raises psycopg.Error, PersistenceError."""
    session, _ = open_session(dsn, options)
    with session:
        if _schema_version(session, recorder) == SCHEMA_VERSION and _has_tracking(
            session, recorder
        ):
            return
        with session.transaction():
            session.execute(LOCK_INITIALISATION)
            for statement in CREATE_SHARED:
                session.execute(statement)
        with session.transaction():
            session.execute(LOCK_INITIALISATION)
            session.execute(recorder.names.create_schema())
        with session.transaction():
            # Held while the recorders work on connections of their own.
            session.execute(LOCK_INITIALISATION)
            recorder.create_table()
            tracking.create_table()
            partition = recorder.names.partition
            for purpose in (LEASE_PURPOSE, SEAL_PURPOSE):
                session.execute(FIRST_KEY, (partition, purpose, secrets.token_bytes(KEY_BYTES)))
            session.execute(RECORD_PARTITION, (partition, SCHEMA_VERSION))


def _has_tracking(session: psycopg.Connection[tuple[int]], recorder: PartitionRecorder) -> bool:
    """Whether followers have a table for their places: it is no record, and may have been lost."""
    table = f"{recorder.names.name}.{TRACKING_TABLE}"
    row = session.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return bool(row and row[0])


def _schema_version(session: psycopg.Connection[tuple[int]], recorder: PartitionRecorder) -> int:
    exists = session.execute(PARTITIONS_TABLE_EXISTS).fetchone()
    if exists is None or not exists[0]:
        return 0
    row = session.execute(SCHEMA_VERSION_OF, (recorder.names.partition,)).fetchone()
    return row[0] if row is not None else 0
