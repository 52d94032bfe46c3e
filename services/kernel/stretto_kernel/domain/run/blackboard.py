"""Deciding who may write what on a run's blackboard, and what a write changes.

A worker writes in the scope of the task it holds, fenced by the epoch of its lease; a verifier in
its namespace; people and the kernel anywhere. A write is one fact: all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from stretto.blackboard.v1 import blackboard_pb2 as pb
from stretto.run.v1 import events_pb2 as ev
from stretto_core.errors import Exhausted, PermissionDenied

from stretto_kernel.domain.revisions import RevisionMismatch
from stretto_kernel.domain.run.blackboard_keys import RESULT, VERIFIER, BoardKey, check_key
from stretto_kernel.domain.run.blackboard_state import Board, entry_bytes
from stretto_kernel.domain.run.commands import (
    DeleteEntries,
    EntryChange,
    EntryWrite,
    LeaseHolder,
    PutEntries,
)
from stretto_kernel.domain.run.control import refuse_ended
from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.domain.run.holders import fence, find
from stretto_kernel.domain.run.state import RunEvent, RunState

CHANGES_MAX = 100
ENTRIES_MAX = 10_000
BOARD_BYTES_MAX = 16 * 1024 * 1024


class ForeignScope(PermissionDenied):
    """This writer may not write that key (metadata `key`)."""

    reason = "FOREIGN_SCOPE"


class BoardLimit(Exhausted):
    """The blackboard holds its most entries or bytes: delete some."""

    reason = "BOARD_LIMIT"
    default_retry_delay_ms: ClassVar[int | None] = None


def put_entries(state: RunState, command: PutEntries) -> tuple[RunEvent, ...]:
    """Write every entry, or refuse all of them."""
    findings = Findings()
    keys = _check_changes(findings, "writes", command.writes)
    for index, write in enumerate(command.writes):
        findings.check_payload(f"writes[{index}].value", write.value)
    findings.refuse("the write")
    writer = _writer(state, command.writer, keys)
    _compare(state, command.writes)
    _check_room(state, command.writes)
    entries = [pb.WrittenEntry(key=write.key, value=write.value) for write in command.writes]
    return (ev.BoardEntriesWritten(entries=entries, writer=writer),)


def delete_entries(state: RunState, command: DeleteEntries) -> tuple[RunEvent, ...]:
    """Delete every entry that is there, or refuse all of it."""
    findings = Findings()
    keys = _check_changes(findings, "deletions", command.deletions)
    findings.refuse("the deletion")
    writer = _writer(state, command.writer, keys)
    _compare(state, command.deletions)
    entries = {} if state.board is None else state.board.entries
    there = [deletion.key for deletion in command.deletions if deletion.key in entries]
    return (ev.BoardEntriesDeleted(keys=there, writer=writer),) if there else ()


def _check_changes(
    findings: Findings, field: str, changes: Sequence[EntryChange]
) -> list[BoardKey]:
    if not 1 <= len(changes) <= CHANGES_MAX:
        findings.wrong(field, f"must have 1-{CHANGES_MAX} entries")
        return []
    keys: list[BoardKey] = []
    seen = set()
    for index, change in enumerate(changes):
        at = f"{field}[{index}]"
        key = check_key(findings, f"{at}.key", change.key)
        if change.key in seen:
            findings.wrong(f"{at}.key", f"{change.key!r} is there twice")
        seen.add(change.key)
        expected = change.expected_revision
        if expected is not None and expected < 0:
            findings.wrong(f"{at}.expected_revision", "must not be negative")
        if expected is None and key is not None and key.namespace == RESULT:
            findings.wrong(
                f"{at}.expected_revision", "must be given in the namespace result: compare and set"
            )
        if key is not None:
            keys.append(key)
    return keys


def _writer(state: RunState, asked: LeaseHolder | pb.Writer, keys: Iterable[BoardKey]) -> pb.Writer:
    """Return who writes, if they may write all of that. Raises LeaseLost, RunClosed, ForeignScope.

    A task that a scope names must be there. Raises TaskNotFound.
    """
    if isinstance(asked, LeaseHolder):
        record = find(state, asked.task)
        held = fence(state, record, asked)
        writer = pb.Writer(
            kind=pb.WRITER_KIND_WORKER,
            name=held.worker_id,
            task=asked.task,
            activation=record.activation,
            attempt=held.attempt,
            epoch=asked.epoch,
        )
    else:
        refuse_ended(state)
        writer = asked
    for key in keys:
        if not _may_write(writer, key):
            raise ForeignScope(
                f"{writer.name!r} may not write {key.text!r}: a worker writes in the scope of its "
                "own task and not in verifier, a verifier in verifier only",
                key=key.text,
            )
        if key.task is not None:
            find(state, key.task)
    return writer


def _may_write(writer: pb.Writer, key: BoardKey) -> bool:
    match writer.kind:
        case pb.WRITER_KIND_WORKER:
            return key.task == writer.task != "" and key.namespace != VERIFIER
        case pb.WRITER_KIND_VERIFIER:
            return key.namespace == VERIFIER
        case _:
            return True


def _compare(state: RunState, changes: Iterable[EntryChange]) -> None:
    entries = {} if state.board is None else state.board.entries
    for change in changes:
        expected = change.expected_revision
        if expected is None:
            continue
        entry = entries.get(change.key)
        current = 0 if entry is None else entry.revision
        if expected != current:
            raise RevisionMismatch(
                f"{change.key!r} has revision {current}, not {expected}: read it and decide again",
                key=change.key,
                expected_revision=str(expected),
                current_revision=str(current),
            )


def _check_room(state: RunState, writes: Iterable[EntryWrite]) -> None:
    board = state.board or Board(None)
    count, size_bytes = len(board.entries), board.size_bytes
    for write in writes:
        before = board.entries.get(write.key)
        count += before is None
        size_bytes += entry_bytes(write.key, write.value)
        size_bytes -= 0 if before is None else before.size_bytes
    if count > ENTRIES_MAX or size_bytes > BOARD_BYTES_MAX:
        raise BoardLimit(
            f"the blackboard would hold {count} entries and {size_bytes} bytes; at most "
            f"{ENTRIES_MAX} and {BOARD_BYTES_MAX}: delete some, or put large values as blobs",
            entries_max=str(ENTRIES_MAX),
            bytes_max=str(BOARD_BYTES_MAX),
        )
