"""The append function called in libpq's own words: a prepared statement, arrays in binary.

An append is the one statement that every commit waits for, and a cursor with its general dumpers
costs it three times as much of the processor's time as this. Blocking, for the writer's thread;
sends nothing twice. The format of arrays is PostgreSQL's `array_send`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from eventsourcing.persistence import StoredEvent
from psycopg import postgres, pq
from psycopg.errors import error_from_result
from psycopg.sql import Composed

from stretto_core.eventlog.postgres.connections import WriterSession

_STATEMENT = b"stretto_append"
_BINARY = pq.Format.BINARY
_TEXT, _BIGINT, _BYTES = (postgres.types[name].oid for name in ("text", "int8", "bytea"))
_ARRAY_HEAD = struct.Struct("!iiIii")
"""Dimensions, whether there are nulls, the type of elements, how many, the first one's index."""
_NUMBER = struct.Struct("!q")
_SIZED_NUMBER = struct.Struct("!iq")
_SIZE = struct.Struct("!i")


def prepare_append(session: WriterSession, statement: Composed) -> None:
    """Prepare the append on a new connection; its parameters are $1 to $5. Raises psycopg.Error."""
    _check(session.pgconn.prepare(_STATEMENT, statement.as_bytes(session)))


def call_append(
    session: WriterSession, owner_epoch: int, events: Sequence[StoredEvent]
) -> list[int]:
    """Store the events and return their positions. Raises psycopg.Error."""
    versions = (_SIZED_NUMBER.pack(8, event.originator_version) for event in events)
    parameters = [
        _NUMBER.pack(owner_epoch),
        _array(_TEXT, (str(event.originator_id).encode() for event in events)),
        b"".join((_ARRAY_HEAD.pack(1, 0, _BIGINT, len(events), 1), *versions)),
        _array(_TEXT, (event.topic.encode() for event in events)),
        _array(_BYTES, (event.state for event in events)),
    ]
    result = session.pgconn.exec_prepared(
        _STATEMENT, parameters, [_BINARY] * len(parameters), _BINARY
    )
    _check(result)
    stored = result.get_value(0, 0)
    assert stored is not None, "the append function returns one array"
    return [position for _, position in _SIZED_NUMBER.iter_unpack(stored[_ARRAY_HEAD.size :])]


def _array(element: int, values: Iterable[bytes]) -> bytes:
    parts = [b""]
    for value in values:
        parts += (_SIZE.pack(len(value)), value)
    parts[0] = _ARRAY_HEAD.pack(1, 0, element, len(parts) // 2, 1)
    return b"".join(parts)


def _check(result: pq.abc.PGresult) -> None:
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise error_from_result(result)
