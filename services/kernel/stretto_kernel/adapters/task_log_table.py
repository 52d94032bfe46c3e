"""Task logs in PostgreSQL, over connections of their own: nothing here waits for the record's.

synchronous_commit is off: what is stored survives a crash of the kernel, and its last moments may
be lost in a crash of the server. The statements are in `sql/task_log.sql`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.sql import Identifier, Literal
from stretto.tasklog.v1.task_log_pb2 import LogStream
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.ids import Partition, RunId, TaskName

from stretto_kernel.adapters.database_lane import QUICK, Connection, DatabaseLane
from stretto_kernel.adapters.late_tables import LateTables
from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.tasklog.entries import (
    Entry,
    Heads,
    LeaseHead,
    LeaseId,
    Page,
    PositionTaken,
    Selection,
    TailStart,
)

READ_LANES = 2
PAGE_ENTRIES_MAX = 500
PAGE_BYTES_MAX = 1024 * 1024
TAIL_ROWS = 1_000
_POSITION_MAX = (1 << 63) - 1
RUNS_TABLE = "task_log_runs_v1"


class TaskLogTable:
    """The task logs of one partition; see `TaskLogStore`. Close it at the end."""

    def __init__(self, dsn: str, partition: Partition) -> None:
        schema = PartitionSchema(partition).name
        self._statements = named_statements(
            "task_log.sql",
            {"schema": Identifier(schema), "runs_table": Literal(f"{schema}.{RUNS_TABLE}")},
        )
        self._writing = DatabaseLane(dsn, "task-log-write", prepare=QUICK)
        self._reading = [DatabaseLane(dsn, f"task-log-read-{n}") for n in range(READ_LANES)]
        self._tables = LateTables(self._statements)

    async def heads(self, leases: Sequence[LeaseId]) -> Heads:
        """See `TaskLogStore`."""

        def read(connection: Connection) -> Heads:
            self._tables.make(connection)
            runs = connection.execute(
                self._statements["heads_of_runs"],
                {"run_id": list({lease.run_id for lease in leases})},
            ).fetchall()
            rows = connection.execute(
                self._statements["heads_of_leases"],
                {
                    "run_id": [lease.run_id for lease in leases],
                    "task": [lease.task for lease in leases],
                    "epoch": [lease.epoch for lease in leases],
                },
            ).fetchall()
            return Heads(
                {RunId(run_id): position for run_id, position in runs},
                {
                    LeaseId(RunId(run_id), TaskName(task), epoch): LeaseHead(*head)
                    for run_id, task, epoch, *head in rows
                },
            )

        return await self._writing.run(read)

    async def append(self, entries: Sequence[Entry], now_ns: int) -> None:
        """See `TaskLogStore`."""

        def store(connection: Connection) -> None:
            columns = {**_columns(entries), "store_ns": now_ns}
            try:
                with connection.transaction():
                    connection.execute(self._statements["append"], columns)
                    connection.execute(self._statements["note_runs"], columns)
            except UniqueViolation as taken:
                raise PositionTaken("another process stored entries of the run") from taken

        await self._writing.run(store)

    async def read(self, selection: Selection, *, after_position: int) -> Page:
        """See `TaskLogStore`."""

        def read(connection: Connection) -> Page:
            if not self._tables.are_there(connection):
                return Page([], after_position)
            named = {
                **_selected(selection),
                "after_position": after_position,
                "count": PAGE_ENTRIES_MAX,
                "bytes_max": PAGE_BYTES_MAX,
            }
            # Before the page: what comes in between is in the page, or is read next.
            newest = connection.execute(self._statements["newest_position"], named).fetchone()
            assert newest is not None, "an aggregate has a row"
            rows = connection.execute(self._statements["read"], named, binary=True).fetchall()
            entries = [_entry(selection.run_id, row) for row in rows]
            if entries:
                return Page(entries, entries[-1].position)
            return Page([], max(after_position, newest[0]))

        return await self._reader().run(read)

    async def tail(self, selection: Selection, *, line_count: int) -> TailStart:
        """See `TaskLogStore`."""

        def find(connection: Connection) -> TailStart:
            if not self._tables.are_there(connection):
                return TailStart(0, 0)
            before, left = _POSITION_MAX, line_count
            while True:
                named = {**_selected(selection), "before_position": before, "count": TAIL_ROWS}
                rows = connection.execute(self._statements["tail"], named).fetchall()
                if rows and before == _POSITION_MAX and self._ends_line(connection, named, rows):
                    left += 1  # The line feed before the last lines is looked for, not theirs.
                for position, count in rows:
                    if count >= left:
                        return TailStart(position - 1, count - left + 1)
                    left -= count
                if len(rows) < TAIL_ROWS:
                    return TailStart(0, 0)
                before = rows[-1][0]

        return await self._reader().run(find)

    async def close(self) -> None:
        """Close the connections."""
        for lane in (self._writing, *self._reading):
            await lane.close()

    def _ends_line(
        self, connection: Connection, named: dict[str, Any], rows: Sequence[tuple[Any, ...]]
    ) -> bool:
        asked = {**named, "position": rows[0][0]}
        row = connection.execute(self._statements["last_content"], asked).fetchone()
        return row is not None and bytes(row[0]).endswith(b"\n")

    def _reader(self) -> DatabaseLane:
        return min(self._reading, key=lambda lane: lane.waiting_count)


def _columns(entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "run_id": [entry.lease.run_id for entry in entries],
        "position": [entry.position for entry in entries],
        "task": [entry.lease.task for entry in entries],
        "epoch": [entry.lease.epoch for entry in entries],
        "activation": [entry.activation for entry in entries],
        "attempt": [entry.attempt for entry in entries],
        "sequence": [entry.head.sequence for entry in entries],
        "stream": [int(entry.stream) for entry in entries],
        "time_ns": [entry.time_ns for entry in entries],
        "dropped_bytes": [entry.dropped_bytes for entry in entries],
        "line_count": [entry.content.count(b"\n") for entry in entries],
        "lease_entry_count": [entry.head.entry_count for entry in entries],
        "lease_bytes": [entry.head.bytes_count for entry in entries],
        "truncated": [entry.truncated for entry in entries],
        "content": [entry.stored_content for entry in entries],
    }


def _selected(selection: Selection) -> dict[str, Any]:
    return {
        "run_id": selection.run_id,
        "task": selection.task,
        "attempt": selection.attempt,
    }


def _entry(run_id: RunId, row: Sequence[Any]) -> Entry:
    position, task, epoch, activation, attempt, sequence, stream, time_ns, dropped, *rest = row
    entry_count, bytes_count, truncated, content = rest
    return Entry(
        position=position,
        lease=LeaseId(run_id, TaskName(task), epoch),
        activation=activation,
        attempt=attempt,
        stream=LogStream.ValueType(stream),
        time_ns=time_ns,
        content=bytes(content),
        dropped_bytes=dropped,
        head=LeaseHead(sequence, entry_count, bytes_count, truncated),
    )
