"""The writer's connection: take the partition, append, settle, probe. Blocking, for one thread.

The session's advisory lock only keeps a second process from trying; what fences is the owner
epoch, raised under the events table's EXCLUSIVE lock and compared under it by every append. No
call is ever sent twice by itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import psycopg
from eventsourcing.persistence import StoredEvent as LibraryEvent
from psycopg import errors

from stretto_core.eventlog.port import (
    AppendUnknown,
    PartitionHeld,
    PartitionMoved,
    SettledAs,
    Settlement,
    StoreDown,
    VersionConflict,
)
from stretto_core.eventlog.postgres.connections import (
    Backend,
    PostgresOptions,
    WriterSession,
    open_session,
)
from stretto_core.eventlog.postgres.recorder import PartitionRecorder
from stretto_core.eventlog.postgres.schema import (
    END_BACKEND,
    LOCK_PARTITION,
    OWNER_EPOCH_MISMATCH,
    OWNER_EPOCH_OF,
    RAISE_OWNER_EPOCH,
)
from stretto_core.eventlog.recorded import NewEvent


class OwnerSession:
    """One ownership's connection and epoch; a lost connection is replaced only by `settle`."""

    def __init__(self, dsn: str, recorder: PartitionRecorder, options: PostgresOptions) -> None:
        self._dsn = dsn
        self.recorder = recorder
        self._names = recorder.names
        self.options = options
        self._session: WriterSession | None = None
        self._backend: Backend | None = None
        self._lost: Backend | None = None
        self._moved = False
        self.owner_epoch = 0

    @property
    def connection(self) -> WriterSession | None:
        """The connection, for tests that break it."""
        return self._session

    @property
    def backend(self) -> Backend | None:
        """The server process that serves, or last served, this ownership."""
        return self._backend

    def acquire(self) -> None:
        """Own the partition. Raises PartitionHeld, StoreDown."""
        try:
            session = self._connect()
            if not self._lock_partition(session):
                raise PartitionHeld(
                    "another process owns the partition; stop it first",
                    partition=self._names.partition,
                )
            with session.transaction():
                session.execute(self._names.lock_events())
                self.owner_epoch = self._raise_epoch(session)
        except psycopg.Error as error:
            raise _store_down(error) from error

    def append(self, events: Sequence[NewEvent]) -> tuple[int, ...]:
        """See `OwnedLog.append`."""
        if self._moved:
            raise self._partition_moved()
        session = self._session
        if session is None or session.closed:
            # Not StoreDown: what comes next must be a settlement, which connects again.
            raise AppendUnknown("the writer has no connection")
        stored = [
            LibraryEvent(event.stream, event.version, event.type, event.stored_bytes)
            for event in events
        ]
        try:
            return tuple(
                self.recorder.insert_events(stored, session=session, owner_epoch=self.owner_epoch)
            )
        except psycopg.Error as error:
            raise self._refusal(error, session) from error

    def settle(self, events: Sequence[NewEvent]) -> Settlement:
        """See `OwnedLog.settle`."""
        try:
            return self._settle(events)
        except psycopg.Error as error:
            raise _store_down(error) from error

    def probe(self) -> None:
        """See `OwnedLog.probe`."""
        if self._moved:
            raise self._partition_moved()
        if self._session is None or self._session.closed:
            raise StoreDown("the writer has no connection")
        try:
            row = self._session.execute(
                OWNER_EPOCH_OF, (self._names.partition,), prepare=True
            ).fetchone()
        except psycopg.Error as error:
            raise _store_down(error) from error
        if row is None or row[0] != self.owner_epoch:
            raise self._partition_moved()

    def close(self) -> None:
        """Close the connection, which frees the session's lock. Idempotent."""
        self._moved = True
        if self._session is not None:
            self._session.close()

    def break_connection(self) -> None:
        """From any thread: let a call that waits for the server's answer fail at once."""
        session = self._session
        if session is not None and not session.closed:
            with suppress(OSError), socket.socket(fileno=os.dup(session.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)

    def _settle(self, events: Sequence[NewEvent]) -> Settlement:
        # Remembered until this settlement is through: a try that fails must end it again.
        self._lost = self._lost or self._backend
        session = self._connect()
        if self._lost is not None:
            self._end_backend(session, self._lost)
        held = self._lock_partition(session)
        with session.transaction():
            session.execute(self._names.lock_events())
            positions = self._positions_of(session, events)
            row = session.execute(OWNER_EPOCH_OF, (self._names.partition,)).fetchone()
            still_owner = row is not None and row[0] == self.owner_epoch
            epoch = self._raise_epoch(session) if still_owner and not self._moved else 0
        self._lost = None
        # Only now, after the commit: had it been lost, the next try compares the same epoch.
        if epoch and held:
            self.owner_epoch = epoch
        else:
            self._moved = True
        if len(positions) == len(events):
            return Settlement(SettledAs.COMMITTED, positions)
        return Settlement(SettledAs.MIXED if positions else SettledAs.NOT_COMMITTED)

    def _connect(self) -> WriterSession:
        if self._session is not None:
            self._session.close()
        self._session, self._backend = open_session(self._dsn, self.options)
        self.recorder.prepare_appends(self._session)
        return self._session

    def _end_backend(self, session: WriterSession, lost: Backend) -> None:
        row = session.execute(
            END_BACKEND, (self.options.backend_end_wait_ms, lost.pid, lost.started)
        ).fetchone()
        if row is not None and not row[0]:
            raise StoreDown("the lost append's server process has not ended yet")

    def _lock_partition(self, session: WriterSession) -> bool:
        """Wait a moment for a dead owner's session to end; return whether the lock is ours."""
        try:
            with session.transaction():
                session.execute(f"SET LOCAL lock_timeout = '{self.options.acquire_wait_ms}ms'")
                session.execute(LOCK_PARTITION, (self._names.partition,))
        except errors.LockNotAvailable:
            return False
        return True

    def _raise_epoch(self, session: WriterSession) -> int:
        row = session.execute(RAISE_OWNER_EPOCH, (self._names.partition,)).fetchone()
        assert row is not None, "the partition was recorded when its schema was made"
        epoch: int = row[0]
        return epoch

    def _positions_of(self, session: WriterSession, events: Sequence[NewEvent]) -> tuple[int, ...]:
        row = session.execute(
            self._names.positions_of(),
            (
                [event.stream for event in events],
                [event.version for event in events],
                [event.stored_bytes for event in events],
            ),
            binary=True,
        ).fetchone()
        return tuple(row[0]) if row is not None and row[0] is not None else ()

    def _refusal(self, error: psycopg.Error, session: WriterSession) -> Exception:
        """Return what a failed append means: a plain refusal only if the server said so."""
        if not session.closed:
            if error.sqlstate == OWNER_EPOCH_MISMATCH:
                self._moved = True
                return self._partition_moved()
            if isinstance(error, errors.UniqueViolation):
                return VersionConflict(
                    "a version of the group exists", partition=self._names.partition
                )
            if isinstance(error, errors.LockNotAvailable):
                return StoreDown("the events table's lock was not free in time")
        return AppendUnknown("the append has no clear answer", sqlstate=error.sqlstate or "")

    def _partition_moved(self) -> PartitionMoved:
        return PartitionMoved("another owner has the partition", partition=self._names.partition)


def _store_down(error: psycopg.Error) -> StoreDown:
    return StoreDown("the store does not answer", sqlstate=error.sqlstate or "")
