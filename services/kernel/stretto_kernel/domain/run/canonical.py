"""Bytes that stand for a value, the same on every machine and in every version of the libraries.

Protobuf bytes are not canonical across versions, so digests that must agree with an old one are
taken over an encoding of our own: each value is a tag, a length and its bytes, fields in the order
written here. Digests are SHA-256, 32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload

from stretto_kernel.domain.run.plan import TaskSpec


def digest_of(*values: object) -> bytes:
    """Return the SHA-256 of scalars, messages and dataclasses, and sequences and maps of them."""
    return hashlib.sha256(b"".join(map(_encode, values))).digest()


def success_digest(result: Payload, spawned: Iterable[TaskSpec]) -> bytes:
    """Return the digest of a successful outcome."""
    return digest_of("succeeded", result, tuple(spawned))


def failure_digest(failure: Failure) -> bytes:
    """Return the digest of a failed outcome."""
    return digest_of("failed", failure)


def _encode(value: object) -> bytes:
    match value:
        case str():
            return _tagged(b"s", value.encode("utf-8", "surrogatepass"))
        case bytes():
            return _tagged(b"b", value)
        case None:
            return b"n"
        case bool() | int() | float():
            # repr of a float is its shortest exact form; 1, 1.0 and True must differ.
            return _tagged(b"v", repr(value).encode())
        case Payload():
            return _sequence(
                b"p", (value.WhichOneof("value"), value.json, value.data, value.content_type)
            )
        case Failure():
            details = value.details if value.HasField("details") else None
            return _sequence(b"f", (value.reason, value.message, value.retryable, details))
        case tuple() | list():
            return _sequence(b"t", value)
        case Mapping():
            return _sequence(b"m", sorted(value.items()))
        case _:
            assert is_dataclass(value) and not isinstance(value, type), type(value)
            name = type(value).__name__
            return _sequence(b"d", (name, *(getattr(value, each.name) for each in fields(value))))


def _sequence(tag: bytes, values: Iterable[object]) -> bytes:
    return _tagged(tag, b"".join(map(_encode, values)))


def _tagged(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


WITHDRAWN_DIGEST = digest_of("withdrawn")
"""The digest of an attempt its holder gave back or stopped: it has no content to differ in."""
