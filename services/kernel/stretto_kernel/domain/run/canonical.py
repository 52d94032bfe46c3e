"""Bytes that stand for a value, the same on every machine and in every version of the libraries.

Protobuf bytes are not canonical across versions, so digests that must agree with an old one are
taken over an encoding of our own: each value is a tag, a length and its bytes, fields in the order
written here. Digests are SHA-256, 32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from typing import Any

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, Payload
from stretto.run.v1 import plan_pb2

from stretto_kernel.domain.run.parts import Work, parts_of, whole
from stretto_kernel.domain.run.plan import (
    PLANS_REMEMBERED_MAX,
    Dependency,
    Join,
    Retry,
    TaskSpec,
    Timeouts,
    duration_ns,
    read_policies,
    read_tasks,
    remembered_bytes,
)


def digest_of(*values: object) -> bytes:
    """Return the SHA-256 of scalars, messages and dataclasses, and sequences and maps of them."""
    return hashlib.sha256(_encode_all(values)).digest()


class Encoded(bytes):
    """Values that are encoded already, as `digest_of` would."""


def graph_encoding(graph: plan_pb2.TaskGraph) -> Encoded:
    """Return a plan's policies and tasks, encoded."""
    serialized = remembered_bytes(graph)
    if serialized is not None:
        return _encode_remembered_graph(serialized)
    return whole(encoding_graph(graph))


def encoding_graph(graph: plan_pb2.TaskGraph) -> Work[Encoded]:
    """Do what `graph_encoding` does of a large plan, in parts."""
    tasks = yield from encoding_tasks(graph.tasks)
    return Encoded(_encode_all((read_policies(graph),)) + tasks)


def encoding_tasks(tasks: Sequence[plan_pb2.TaskSpec]) -> Work[Encoded]:
    """Encode the list of the tasks as read, in parts."""
    content: list[bytes] = []
    for part in parts_of(tasks):
        if content:
            yield
        content.append(_encode_all(read_tasks(part)))
    return Encoded(_tagged(b"t", b"".join(content)))


@lru_cache(maxsize=PLANS_REMEMBERED_MAX)
def _encode_remembered_graph(serialized: bytes) -> Encoded:
    return whole(encoding_graph(plan_pb2.TaskGraph.FromString(serialized)))


def success_digest(
    result: Payload, spawned: Iterable[TaskSpec], artifacts: Sequence[Artifact] = ()
) -> bytes:
    """Return the digest of a successful outcome."""
    left = (tuple(artifacts),) if artifacts else ()  # Without any it has the digest it always had.
    return digest_of("succeeded", result, tuple(spawned), *left)


def failure_digest(failure: Failure) -> bytes:
    """Return the digest of a failed outcome."""
    return digest_of("failed", failure)


def _encode_all(values: Iterable[object]) -> bytes:
    encoder_of = _ENCODERS.get
    return b"".join([encoder_of(type(value), _encode_dataclass)(value) for value in values])


def _text(value: str) -> bytes:
    content = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(content), content)


def _payload(value: Payload) -> bytes:
    kind = value.WhichOneof("value")
    if kind == "json":  # Nearly every value: the same bytes as below, in fewer steps.
        content = b"s4:json%bb0:%b" % (_text(value.json), _text(value.content_type))
        return _tagged(b"p", content)
    said: tuple[object, ...] = (kind, value.json, value.data, value.content_type)
    # Only when it is one: an inline value has the bytes it always had.
    if kind == "blob":
        said += (value.blob,)
    elif kind == "encrypted":
        said += (value.encrypted,)
    elif kind == "composed":
        parts = tuple((part.value, part.pointer) for part in value.composed.parts)
        said += (value.composed.list, parts)
    return _sequence(b"p", said)


def _blob(value: BlobRef) -> bytes:
    return _sequence(b"r", (value.digest, value.size_bytes))


def _artifact(value: Artifact) -> bytes:
    return _sequence(b"a", (value.name, value.blob, value.content_type))


def _failure(value: Failure) -> bytes:
    details = value.details if value.HasField("details") else None
    said: tuple[object, ...] = (value.reason, value.message, value.retryable, details)
    # Only when it is set: a failure without it has the bytes it always had.
    if value.HasField("retry_after"):
        said += (duration_ns(value.retry_after),)
    return _sequence(b"f", said)


def _encode_dataclass(value: object) -> bytes:
    kind = type(value)
    names = _FIELD_NAMES.get(kind)
    if names is None:
        names = _FIELD_NAMES[kind] = _field_names(kind)
    return _sequence(b"d", (kind.__name__, *(getattr(value, name) for name in names)))


def _field_names(kind: type) -> tuple[str, ...]:
    named: tuple[str, ...] | None = getattr(kind, "_fields", None)
    if named is not None:
        return named
    assert is_dataclass(kind), kind
    return tuple(each.name for each in fields(kind))


# Policies and edges repeat from task to task. They are read from typed fields, so that equal ones
# have equal bytes: never an int where the other has a float.
_encode_repeated = lru_cache(maxsize=1_024)(_encode_dataclass)


def _sequence(tag: bytes, values: Iterable[object]) -> bytes:
    return _tagged(tag, _encode_all(values))


def _tagged(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _scalar(value: object) -> bytes:
    # repr of a float is its shortest exact form; 1, 1.0 and True must differ.
    content = repr(value).encode()
    return b"v%d:%b" % (len(content), content)


_FIELD_NAMES: dict[type, tuple[str, ...]] = {}
_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    Encoded: bytes,
    str: _text,
    bytes: partial(_tagged, b"b"),
    type(None): lambda value: b"n",
    bool: _scalar,
    int: _scalar,
    float: _scalar,
    Payload: _payload,
    BlobRef: _blob,
    Artifact: _artifact,
    Failure: _failure,
    tuple: partial(_sequence, b"t"),
    list: partial(_sequence, b"t"),
    dict: lambda value: _sequence(b"m", sorted(value.items())),
    Dependency: _encode_repeated,
    Join: _encode_repeated,
    Retry: _encode_repeated,
    Timeouts: _encode_repeated,
}
WITHDRAWN_DIGEST = digest_of("withdrawn")
"""The digest of an attempt its holder gave back or stopped: it has no content to differ in."""
