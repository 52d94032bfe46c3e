"""Where a task's inputs and the run's output come from, resolved from the state as it is.

Only inline JSON is read into; a value that is taken whole may be anything. What leads into a blob
is handed on as a composed value, for its reader to put together: no rule reads a blob (ADR-0017).
Limits are bytes of what is handed on, not of the blobs it names. Pointers are RFC 6901.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import ComposedValue, Payload, ValuePart
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.blackboard_state import BoardEntry
from stretto_kernel.domain.run.canonical import digest_of
from stretto_kernel.domain.run.findings import parse_json
from stretto_kernel.domain.run.joins import subtree
from stretto_kernel.domain.run.plan import (
    Binding,
    BoardValue,
    Literal,
    RunInput,
    SubtreeOutputs,
    TaskOutput,
)
from stretto_kernel.domain.run.state import RunState
from stretto_kernel.domain.run.task import Failed, Succeeded, TaskRecord

MANIFEST_BYTES_MAX = 1024 * 1024
OUTPUT_BYTES_MAX = 256 * 1024
"""Of a run's output: it stands in the run, and in every list of ended ones."""
JSON = "application/json"
NULL = Payload(json="null")
_INDEX = re.compile(r"0\Z|[1-9][0-9]*\Z")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an attempt is given: resolved inputs by name.

    revisions: of the blackboard's entries that inputs were taken from; 0 = it was not there.
    """

    inputs: Mapping[str, Payload]
    revisions: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the inputs, 32 bytes; made when it is asked for."""
        if not self.revisions:  # Then it is what it always was.
            return digest_of(self.inputs) if self.inputs else _EMPTY_DIGEST
        return digest_of(self.inputs, self.revisions)


_EMPTY = Manifest({})
_EMPTY_DIGEST = digest_of({})


class Unresolved(Exception):
    """A binding leads nowhere. Never leaves the domain: it becomes a Failure."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, retryable=False)


def resolve_manifest(state: RunState, record: TaskRecord) -> Manifest:
    """Return the task's inputs as of this state. Raises Unresolved."""
    if not record.spec.inputs:
        return _EMPTY
    inputs = {}
    revisions = {}
    size_bytes = 0
    for key, binding in record.spec.inputs:
        try:
            value = _resolve(state, binding)
        except Unresolved as unresolved:
            message = f"input {key!r}: {unresolved.failure.message}"
            raise Unresolved("INPUT_UNRESOLVED", message) from unresolved
        size_bytes += _size_bytes(value)
        if size_bytes > MANIFEST_BYTES_MAX:
            raise Unresolved(
                "INPUT_TOO_LARGE", f"inputs come to more than {MANIFEST_BYTES_MAX} bytes"
            )
        inputs[key] = value
        if isinstance(binding, BoardValue):
            entry = _board_entry(state, binding.key)
            revisions[key] = 0 if entry is None else entry.revision
    return Manifest(inputs, revisions)


def resolve_output(state: RunState) -> Payload | None:
    """Return what the run yields; None when its plan says nothing about it. Raises Unresolved."""
    binding = state.policies.output
    if binding is None:
        return None
    try:
        value = _resolve(state, binding)
    except Unresolved as unresolved:
        raise Unresolved("OUTPUT_UNRESOLVED", unresolved.failure.message) from unresolved
    if _size_bytes(value) > OUTPUT_BYTES_MAX:
        raise Unresolved("OUTPUT_TOO_LARGE", f"it is larger than {OUTPUT_BYTES_MAX} bytes")
    return value


def _resolve(state: RunState, binding: Binding) -> Payload:
    match binding:
        case Literal(payload):
            return payload if payload.WhichOneof("value") else NULL
        case RunInput(pointer):
            assert state.start is not None
            return _point(state.start.input or NULL, pointer, "the run's input")
        case TaskOutput(task, pointer):
            return _task_value(_known(state, task), pointer)
        case SubtreeOutputs(task, pointer):
            return _subtree_values(state, _known(state, task), pointer)
        case BoardValue():
            return _board_value(state, binding)


def _board_entry(state: RunState, key: str) -> BoardEntry | None:
    return None if state.board is None else state.board.entries.get(key)


def _board_value(state: RunState, binding: BoardValue) -> Payload:
    entry = _board_entry(state, binding.key)
    if entry is None:
        if binding.may_be_missing:
            return NULL
        raise Unresolved("INPUT_UNRESOLVED", f"the blackboard has no {binding.key!r}")
    assert entry.value is not None, "the table holds what is there"
    return _point(entry.value, binding.pointer, f"the blackboard's {binding.key!r}")


def _known(state: RunState, name: TaskName) -> TaskRecord:
    if name not in state.tasks:
        raise Unresolved("INPUT_UNRESOLVED", f"the run has no task {name!r}")
    return state.tasks[name]


def _task_value(record: TaskRecord, pointer: str) -> Payload:
    """A tolerated failure binds as itself, a task without a result as null: both whole."""
    match record.phase:
        case Succeeded(result=result):
            return _point(result, pointer, f"the output of {record.name!r}")
        case Failed():
            assert record.failure is not None
            return Payload(json=_failure_json(record.failure))
        case _:
            return NULL


def _subtree_values(state: RunState, root: TaskRecord, pointer: str) -> Payload:
    parts = []
    size_bytes = 0
    for record in subtree(state, root.name):
        if record is root:
            continue
        value = _task_value(record, pointer)
        if not _is_json(value):
            raise Unresolved("INPUT_UNRESOLVED", f"the output of {record.name!r} is not JSON")
        parts.append(value)
        size_bytes += _size_bytes(value)
        if size_bytes > MANIFEST_BYTES_MAX:
            raise Unresolved("INPUT_TOO_LARGE", f"outputs below {root.name!r} are too large")
    if all(part.WhichOneof("value") == "json" for part in parts):
        return Payload(json=f"[{','.join(part.json for part in parts)}]")
    composed = ComposedValue(parts=map(_part, parts), list=True)
    return Payload(composed=composed)


def _point(payload: Payload, pointer: str, what: str) -> Payload:
    if not pointer:
        return payload if payload.WhichOneof("value") else NULL
    if not _is_json(payload):
        raise Unresolved("INPUT_UNRESOLVED", f"{what} is not JSON, so {pointer!r} leads nowhere")
    if payload.HasField("blob"):
        return Payload(composed=ComposedValue(parts=[ValuePart(value=payload, pointer=pointer)]))
    try:
        value = parse_json(payload.json)
        for token in pointer[1:].split("/"):
            value = _step(value, token.replace("~1", "/").replace("~0", "~"))
        return Payload(json=json.dumps(value, separators=(",", ":"), allow_nan=False))
    except (LookupError, ValueError, RecursionError) as error:
        raise Unresolved("INPUT_UNRESOLVED", f"{what} has nothing at {pointer!r}") from error


def _part(value: Payload) -> ValuePart:
    """Return a value as a part; one that leads into a blob is such a part already."""
    return value.composed.parts[0] if value.HasField("composed") else ValuePart(value=value)


def _is_json(value: Payload) -> bool:
    kind = value.WhichOneof("value")
    return kind in ("json", "composed") or (kind == "blob" and value.content_type == JSON)


def _size_bytes(value: Payload) -> int:
    if value.WhichOneof("value") in ("blob", "composed"):
        return value.ByteSize()
    return len(value.json.encode()) + len(value.data)


def _step(value: object, token: str) -> object:
    if isinstance(value, dict):
        return value[token]
    if isinstance(value, list) and _INDEX.match(token):
        return value[int(token)]
    raise LookupError(token)


def _failure_json(failure: Failure) -> str:
    value = {
        "reason": failure.reason,
        "message": failure.message,
        "retryable": failure.retryable,
        "task": failure.task,
    }
    return json.dumps(value, separators=(",", ":"))
