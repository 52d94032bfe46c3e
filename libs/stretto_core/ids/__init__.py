"""Identifiers: their types, how they are minted, and how a run's id follows from its request.

Time-ordered ids (UUIDv7, RFC 9562) keep index pages hot: random keys cost full-page writes.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType, Protocol
from uuid import UUID

RunId = NewType("RunId", str)
TaskName = NewType("TaskName", str)
WorkerId = NewType("WorkerId", str)
SessionId = NewType("SessionId", str)
"""One per worker process, a UUIDv7: a later process of the same worker sorts after it."""
RequestId = NewType("RequestId", str)
EventId = NewType("EventId", str)
Namespace = NewType("Namespace", str)
Partition = NewType("Partition", str)
StreamId = NewType("StreamId", str)
"""The name of one aggregate's events; a run's stream id is its run id."""

RUN_ID_PATTERN = re.compile(r"^(p[0-9]{1,4})-([0-9a-f]{12})([0-9a-f]{20})$")

UUID7_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_UUID7_FORM = "%08x-%04x-7%03x-%04x-%012x"


class IdSource(Protocol):
    """Where the shell mints ids; rules receive them inside commands."""

    def uuid7(self) -> str:
        """A new time-ordered UUID in canonical text form; never the same twice."""
        ...


def uuid7_text(unix_ms: int, random_74_bits: int) -> str:
    """Return the UUIDv7 of a millisecond and 74 random bits (RFC 9562, section 5.7)."""
    return _UUID7_FORM % (
        unix_ms >> 16 & 0xFFFF_FFFF,
        unix_ms & 0xFFFF,
        random_74_bits >> 62 & 0xFFF,
        0x8000 | random_74_bits >> 48 & 0x3FFF,
        random_74_bits & 0xFFFF_FFFF_FFFF,
    )


def uuid7_unix_ms(text: str) -> int | None:
    """Return the millisecond inside a UUIDv7's text, or None when it is not one."""
    if UUID7_PATTERN.match(text):
        return int(text[:8] + text[9:13], 16)
    try:
        parsed = UUID(text)  # Written in another way: without hyphens, in capitals, as a URN.
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == 7 else None


def derive_run_id(partition: Partition, namespace: Namespace, request_id: RequestId) -> RunId:
    """Return the id of the run that (namespace, request_id) starts, the same for ever.

    `p<partition>-<48-bit time><80 bits of SHA-256>`: the time is the request_id's when that is a
    UUIDv7, else zero. A retried start therefore finds its run whatever was lost in between.
    """
    unix_ms = uuid7_unix_ms(request_id) or 0
    digest = hashlib.sha256(f"{namespace}\0{request_id}".encode()).hexdigest()
    return RunId(f"{partition}-{unix_ms:012x}{digest[:20]}")


def run_id_time_ms(run_id: RunId) -> int:
    """Return the millisecond a run id bears, 0 when its request id bore none."""
    match = RUN_ID_PATTERN.match(run_id)
    return int(match.group(2), 16) if match else 0


def partition_of(stream_id: str) -> Partition | None:
    """Return the partition a run id names, or None when the text is not a run id."""
    match = RUN_ID_PATTERN.match(stream_id)
    return Partition(match.group(1)) if match else None
