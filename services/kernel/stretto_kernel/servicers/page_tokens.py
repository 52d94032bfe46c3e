"""Opaque page tokens and cursors: what a reader sends back to go on from where it was.

A token names its kind and holds small text fields; one that is not ours is refused, never guessed
at.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from stretto_core.errors import FieldViolation, InvalidArgument
from stretto_core.ids import Partition

NUMBER_MAX = (1 << 63) - 1
NUMBER_DIGITS_MAX = 19


def encode_token(kind: str, *parts: str) -> str:
    """Return a token of `kind` with `parts`, none of which holds a line feed."""
    return base64.urlsafe_b64encode("\n".join((kind, *parts)).encode()).decode().rstrip("=")


def decode_token(field: str, kind: str, token: str, *, part_count: int) -> tuple[str, ...]:
    """Return the parts of a token. Raises InvalidArgument for one that is not of this kind."""
    try:
        padded = token + "=" * (-len(token) % 4)
        found_kind, *parts = base64.urlsafe_b64decode(padded).decode().split("\n")
    except (binascii.Error, ValueError):
        found_kind, parts = "", []
    if found_kind != kind or len(parts) != part_count or any("\0" in part for part in parts):
        raise not_ours(field)
    return tuple(parts)


def token_number(field: str, text: str) -> int:
    """Return a number that a token or cursor holds: 0 to 2^63 - 1. Raises InvalidArgument."""
    if not (text.isascii() and text.isdecimal()) or len(text) > NUMBER_DIGITS_MAX:
        raise not_ours(field)
    number = int(text)
    if number > NUMBER_MAX:
        raise not_ours(field)
    return number


def not_ours(field: str) -> InvalidArgument:
    """What refuses a token or cursor that this service did not give."""
    violation = FieldViolation(field, "is not one that this call gave")
    return InvalidArgument(f"{field} is not ours", violations=[violation])


def encode_cursor(positions: Mapping[Partition, int]) -> str:
    """Return an opaque cursor over some partitions' positions."""
    places = ",".join(f"{partition}={number}" for partition, number in sorted(positions.items()))
    return encode_token("cursor", places)


def decode_cursor(field: str, cursor: str) -> dict[Partition, int]:
    """Return the positions in a cursor; empty for an empty one. Raises InvalidArgument."""
    if not cursor:
        return {}
    (places,) = decode_token(field, "cursor", cursor, part_count=1)
    positions: dict[Partition, int] = {}
    for place in filter(None, places.split(",")):
        partition, _, number = place.partition("=")
        positions[Partition(partition)] = token_number(field, number)
    return positions
