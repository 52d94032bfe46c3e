"""The library's application recorder with one faster way to insert and to select.

The table, its EXCLUSIVE lock, the order of positions and the notification are the library's; an
insert differs in taking one round trip (a function of ours, arrays in binary; `append_call`), in
comparing the owner epoch under the lock, and in never being sent twice: it has no retry decorator.
Selections differ in reading binary rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import (
    InterfaceError,
    Notification,
    OperationalError,
    StoredEvent,
)
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from eventsourcing.utils import retry
from psycopg.rows import TupleRow, tuple_row
from psycopg.sql import Composed

from stretto_core.eventlog.postgres.append_call import call_append, prepare_append
from stretto_core.eventlog.postgres.connections import WriterSession
from stretto_core.eventlog.postgres.schema import EVENTS_TABLE, PartitionSchema


class PartitionRecorder(PostgresApplicationRecorder):
    """Records one partition's events.

    names: the partition's names and statements; the datastore's schema is theirs.
    """

    def __init__(self, datastore: PostgresDatastore, names: PartitionSchema) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)
        self.names = names
        # The library's own function takes no lock: tailing readers would pass over events.
        self.sql_create_statements[self.create_insert_function_statement_index] = (
            names.create_append_function()
        )
        # The library's channel is the table's name, which is the same in every partition.
        self.channel_name = names.channel
        self._read_stream = names.read_stream()
        self._read_all = names.read_all()
        self._last_position = names.last_position()
        self._last_events = names.last_events()
        self._existing_streams = names.existing_streams()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """Store the events, all or none, in one round trip; return their positions.

        kwargs: `session`, the writer's connection, and `owner_epoch`, compared under the lock.
        Raises psycopg's errors as they are: only their SQLSTATE tells what is stored.
        """
        session: WriterSession = kwargs["session"]
        return call_append(session, kwargs["owner_epoch"], stored_events)

    def prepare_appends(self, session: WriterSession) -> None:
        """Make a new connection ready for `insert_events`. Raises psycopg's errors."""
        prepare_append(session, self.names.append())

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return up to `limit` notifications as the library does; tailing takes binary rows."""
        if stop is not None or topics:
            some: Sequence[Notification] = super().select_notifications(
                start, limit, stop, topics, inclusive_of_start=inclusive_of_start
            )
            return some
        after = (start or 0) - 1 if inclusive_of_start else (start or 0)
        return [
            Notification(stream, version, topic, state, position)
            for position, stream, version, topic, state in self._select(
                self._read_all, (after, limit)
            )
        ]

    def rows_of_stream(self, stream: str, after_version: int, limit: int) -> list[TupleRow]:
        """Return (position, stream, version, type, state) of one stream, oldest first."""
        return self._select(self._read_stream, (stream, after_version, limit))

    def rows_after(self, position: int, limit: int) -> list[TupleRow]:
        """Return (position, stream, version, type, state) of all streams, in order."""
        return self._select(self._read_all, (position, limit))

    def last_position(self) -> int:
        """Return the position of the last event; 0 when there is none."""
        ((position,),) = self._select(self._last_position, ())
        return position or 0

    def last_states(self, streams: Sequence[str]) -> list[TupleRow]:
        """Return (stream, state of its last event) of those streams that have one."""
        return self._select(self._last_events, (list(streams),))

    def streams_with_events(self, streams: Sequence[str]) -> list[TupleRow]:
        """Return (stream,) of those streams that have an event."""
        return self._select(self._existing_streams, (list(streams),))

    def _select(self, statement: Composed, parameters: tuple[Any, ...]) -> list[TupleRow]:
        rows: list[TupleRow] = self._select_again(statement, parameters)
        return rows

    @retry((InterfaceError, OperationalError), max_attempts=3, wait=0.1)
    def _select_again(self, statement: Composed, parameters: tuple[Any, ...]) -> list[TupleRow]:
        # A read may be sent again: after a restart of the server the pool gives dead connections.
        with self.datastore.get_connection() as connection:
            cursor = connection.cursor(binary=True, row_factory=tuple_row)
            return cursor.execute(statement, parameters, prepare=True).fetchall()
