"""The append function called in libpq's own words: a prepared statement, parameters in binary.

An append is the one statement that every commit waits for, and psycopg's cursor costs it three
times as much of the processor's time as this. Blocking, for the writer's thread; sends nothing
twice.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from eventsourcing.persistence import StoredEvent
from psycopg import postgres, pq
from psycopg.errors import error_from_result
from psycopg.sql import Composed

from stretto_core.eventlog.postgres.arrays import binary_array
from stretto_core.eventlog.postgres.connections import WriterSession

_STATEMENT = b"stretto_append"
_BINARY = pq.Format.BINARY
_TEXT, _BIGINT, _BYTES = (postgres.types[name].oid for name in ("text", "int8", "bytea"))
_NUMBER = struct.Struct("!q")
_ARRAY_HEAD_BYTES = 20
_ELEMENT = struct.Struct("!iq")
"""A bigint in an array: its size, and itself."""


def prepare_append(session: WriterSession, statement: Composed) -> None:
    """Prepare the append on a new connection; its parameters are $1 to $5. Raises psycopg.Error."""
    _check(session.pgconn.prepare(_STATEMENT, statement.as_bytes(session)))


def call_append(
    session: WriterSession, owner_epoch: int, events: Sequence[StoredEvent]
) -> list[int]:
    """Store the events and return their positions. Raises psycopg.Error."""
    parameters = [
        _NUMBER.pack(owner_epoch),
        binary_array(_TEXT, [str(event.originator_id) for event in events]),
        binary_array(_BIGINT, [event.originator_version for event in events]),
        binary_array(_TEXT, [event.topic for event in events]),
        binary_array(_BYTES, [event.state for event in events]),
    ]
    result = session.pgconn.exec_prepared(
        _STATEMENT, parameters, [_BINARY] * len(parameters), _BINARY
    )
    _check(result)
    stored = result.get_value(0, 0)
    assert stored is not None, "the append function returns one array"
    return [position for _, position in _ELEMENT.iter_unpack(stored[_ARRAY_HEAD_BYTES:])]


def _check(result: pq.abc.PGresult) -> None:
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise error_from_result(result)
