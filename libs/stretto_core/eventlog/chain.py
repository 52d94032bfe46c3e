"""The hash chain of a stream: what makes a changed, lost or added event visible.

hash(version) = SHA-256(0x00 | previous hash | stored bytes); the previous hash of version 1 is 32
zero bytes. The stored bytes name the previous hash themselves, so one event and its neighbour's
hash suffice to check a link. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from stretto.eventlog.v1 import recorded_event_pb2 as pb

from stretto_core.errors import FailedPrecondition
from stretto_core.eventlog.recorded import StoredEvent, StreamHead
from stretto_core.ids import StreamId

HASH_BYTES = 32
GENESIS = bytes(HASH_BYTES)
"""The previous hash of a stream's first event."""
EMPTY_HEAD = StreamHead(version=0, chain_hash=GENESIS, time_ns=0)
"""The head of a stream that has no event yet."""


class UnreadableEvent(FailedPrecondition):
    """Stored bytes that this version cannot decode: a newer writer, or a damaged log."""

    reason = "UNREADABLE_EVENT"


def chain_hash(previous_hash: bytes, stored_bytes: bytes) -> bytes:
    """Return the hash of the event with `stored_bytes` that follows `previous_hash` (32 bytes)."""
    assert len(previous_hash) == HASH_BYTES, "a previous hash has 32 bytes"
    return hashlib.sha256(b"\x00" + previous_hash + stored_bytes).digest()


def head_of(stored_bytes: bytes) -> StreamHead:
    """Return the stream's head if its last event is the one with `stored_bytes`.

    Raises UnreadableEvent.
    """
    try:
        envelope = pb.RecordedEvent.FromString(stored_bytes)
    except DecodeError as error:
        raise UnreadableEvent("the stored bytes are not a recorded event") from error
    if len(envelope.previous_hash) != HASH_BYTES:
        raise UnreadableEvent("the stored bytes bear no previous hash")
    return StreamHead(
        version=envelope.version,
        chain_hash=chain_hash(envelope.previous_hash, stored_bytes),
        time_ns=envelope.time.seconds * 1_000_000_000 + envelope.time.nanos,
    )


def check_envelope(stored: StoredEvent, envelope: pb.RecordedEvent) -> None:
    """Raises UnreadableEvent unless the stored bytes say of their place what the log says."""
    said = (envelope.stream, envelope.version, envelope.type)
    if said != (stored.stream, stored.version, stored.type):
        raise _damaged(f"its envelope says {' '.join(map(str, said))}", stored)


def check_link(stored: StoredEvent, envelope: pb.RecordedEvent, previous_hash: bytes) -> None:
    """Raises UnreadableEvent unless the event follows the one whose chain hash that is."""
    if envelope.previous_hash != previous_hash:
        raise _damaged("its previous hash is not the hash of the event before", stored)


def _damaged(message: str, stored: StoredEvent) -> UnreadableEvent:
    return UnreadableEvent(
        message,
        stream=stored.stream,
        version=str(stored.version),
        position=str(stored.position),
    )


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """The first event of a stream that does not follow from the one before it."""

    stream: StreamId
    version: int
    description: str


class ChainVerifier:
    """Checks the links of any number of streams, event by event, each stream from its version 1.

    Costs one hash and 100 bytes of memory a stream; feed it pages in order.
    """

    def __init__(self) -> None:
        self._heads: dict[StreamId, StreamHead] = {}
        self.event_count = 0

    @property
    def stream_count(self) -> int:
        """How many streams have been seen."""
        return len(self._heads)

    def head(self, stream: StreamId) -> StreamHead:
        """Return the verified head of `stream`; its chain hash commits to all its events."""
        return self._heads.get(stream, EMPTY_HEAD)

    def check(self, event: StoredEvent) -> BrokenLink | None:
        """Return what does not hold of the stream's next event, or None and remember its hash."""
        head = self._heads.get(event.stream, EMPTY_HEAD)
        fault = _fault(event, head)
        if fault is not None:
            return BrokenLink(event.stream, event.version, fault)
        self._heads[event.stream] = head_of(event.stored_bytes)
        self.event_count += 1
        return None


def _fault(event: StoredEvent, head: StreamHead) -> str | None:
    if event.version != head.version + 1:
        return f"version {event.version} follows version {head.version}"
    try:
        envelope = pb.RecordedEvent.FromString(event.stored_bytes)
    except DecodeError:
        return "the stored bytes are not a recorded event"
    if envelope.previous_hash != head.chain_hash:
        return "the previous hash is not the hash of the event before"
    if (envelope.stream, envelope.version) != (event.stream, event.version):
        return f"the envelope says {envelope.stream} version {envelope.version}"
    if envelope.type != event.type:
        return f"the envelope says type {envelope.type}, the log {event.type}"
    if envelope.digest_alg != pb.DIGEST_ALG_SHA256:
        return f"unknown digest algorithm {envelope.digest_alg}"
    if envelope.time.seconds * 1_000_000_000 + envelope.time.nanos < head.time_ns:
        return "its time is before the event before it"
    return None
