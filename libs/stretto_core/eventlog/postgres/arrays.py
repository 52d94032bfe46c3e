"""Lists as binary arrays of PostgreSQL, packed as a whole instead of element by element.

Owns how lists of integers, booleans, texts and byte strings cross the connection; psycopg decides
their type as always, and packs whatever else there is (nested lists, lists with None). Wire form:
dimensions, flags and element type, then a length and the bytes for each element.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.types.array import ListBinaryDumper

_INTEGER_FORMATS = {"int2": (2, "ih"), "int4": (4, "ii"), "int8": (8, "iq"), "bool": (1, "i?")}
_pack_length = struct.Struct("!i").pack
_pack_head = struct.Struct("!5i").pack  # Dimensions, nulls or not, type, count, first index.
_Pack = Callable[[list[Any]], bytes]


class WholeListDumper(ListBinaryDumper):
    """Packs flat lists without None in a few calls, whatever their length."""

    def dump(self, obj: list[Any]) -> Any:
        """Return the array's wire form."""
        element = self.sub_dumper
        is_packed = element is not None and element.oid in _PACKED
        if element is None or not is_packed or not obj or None in obj or list in map(type, obj):
            return super().dump(obj)
        return binary_array(element.oid, obj)


def binary_array(element_oid: int, elements: list[Any]) -> bytes:
    """Return the wire form of a flat list without None, of one of the types packed here."""
    return _pack_head(1, 0, element_oid, len(elements), 1) + _PACKED[element_oid](elements)


def _integers(size_bytes: int, form: str) -> _Pack:
    def pack(elements: list[Any]) -> bytes:
        parts = [size_bytes] * (2 * len(elements))
        parts[1::2] = elements
        return struct.pack("!" + form * len(elements), *parts)

    return pack


def _byte_strings(elements: list[Any]) -> bytes:
    parts = [b""] * (2 * len(elements))
    parts[::2] = map(_pack_length, map(len, elements))
    parts[1::2] = elements
    return b"".join(parts)


def _texts(elements: list[Any]) -> bytes:
    return _byte_strings(list(map(str.encode, elements)))


def _by_element_type() -> dict[int, _Pack]:
    types = psycopg.adapters.types
    packed = {types[name].oid: _integers(*form) for name, form in _INTEGER_FORMATS.items()}
    return {**packed, types["bytea"].oid: _byte_strings, types["text"].oid: _texts}


_PACKED = _by_element_type()
ADAPTERS = AdaptersMap(psycopg.adapters)
"""What a connection is opened with: `context` of psycopg's connect."""
ADAPTERS.register_dumper(list, WholeListDumper)
