"""Digests over values in an order of ours: what tells the same request from another one.

Protobuf bytes are not canonical across versions, so a digest is taken over the parsed fields, in
the order the caller names them. Pure. The encoding is injective: every value bears its type and
its length, so no two different field lists have the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

DIGEST_BYTES = 32

FieldValue = None | bool | int | str | bytes | Sequence["FieldValue"] | Mapping[str, "FieldValue"]


def fields_digest(kind: str, fields: Sequence[tuple[str, FieldValue]]) -> bytes:
    """Return the SHA-256 of a request of `kind` with `fields`, in this order; the same for ever.

    A mapping counts by its sorted keys. A field that is added later must be left out while it has
    its default, or old requests get new digests.
    """
    hasher = hashlib.sha256(_encoded(kind))
    for name, value in fields:
        hasher.update(_encoded(name))
        hasher.update(_encoded(value))
    return hasher.digest()


def _encoded(value: FieldValue) -> bytes:
    match value:
        case None:
            return _framed(b"n", b"")
        case bool():
            return _framed(b"b", b"1" if value else b"0")
        case int():
            return _framed(b"i", str(value).encode())
        case str():
            return _framed(b"s", value.encode())
        case bytes():
            return _framed(b"y", value)
        case Mapping():
            pairs = (_encoded(key) + _encoded(value[key]) for key in sorted(value))
            return _framed(b"m", b"".join(pairs))
        case _:
            return _framed(b"l", b"".join(_encoded(one) for one in value))


def _framed(tag: bytes, content: bytes) -> bytes:
    return tag + len(content).to_bytes(8, "big") + content
