"""The view `blackboard`: how each entry of a run's blackboard is, from which version of its run on.

Rows are never changed but for their end, so that a blackboard can be read as of any version without
a fold. A deletion is a row as well: it says that nothing is there, and who saw to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stretto.blackboard.v1.blackboard_pb2 import Writer
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev

from stretto_kernel.domain.run.blackboard_keys import parse_key
from stretto_kernel.domain.run.blackboard_state import BoardEntry, changes_of
from stretto_kernel.projections.view import Step, View, names_of


class BoardRow(NamedTuple):
    """An entry from a version on, until its next row.

    task: of its scope, "" = of the run. writer, value: serialised; value is empty when deleted.
    """

    run_id: str
    key: str
    from_version: int
    namespace: str
    task: str
    board_namespace: str
    deleted: bool
    writer_kind: int
    writer: bytes
    value: bytes
    written_ns: int


def entries_changed(step: Step) -> Iterator[BoardRow]:
    """Yield the rows of the entries that the event changed."""
    event, envelope = step.recorded.event, step.envelope
    assert isinstance(event, ev.BoardEntriesWritten | ev.BoardEntriesDeleted)
    for entry in changes_of(event, step.recorded.version, step.recorded.time_ns):
        key = parse_key(entry.key)
        assert key is not None, "wrong keys are refused"
        value = entry.value
        yield BoardRow(
            run_id=envelope.stream,
            key=entry.key,
            from_version=entry.revision,
            namespace=envelope.namespace,
            task=key.task or "",
            board_namespace=key.namespace,
            deleted=value is None,
            writer_kind=entry.writer.kind,
            writer=entry.writer.SerializeToString(deterministic=True),
            value=b"" if value is None else value.SerializeToString(deterministic=True),
            written_ns=entry.written_ns,
        )


def entry_of(row: BoardRow) -> BoardEntry:
    """Return the entry that a row shows."""
    return BoardEntry(
        key=row.key,
        revision=row.from_version,
        value=None if row.deleted else Payload.FromString(row.value),
        writer=Writer.FromString(row.writer),
        written_ns=row.written_ns,
    )


BLACKBOARD = View(
    name="blackboard",
    version=1,
    row=BoardRow,
    key_count=3,
    of_event=entries_changed,
    reads=names_of(ev.BoardEntriesWritten, ev.BoardEntriesDeleted),
)
