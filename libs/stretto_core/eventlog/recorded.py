"""The values that cross the log port: what a fold sees, what an append stores, what a read gives.

Pure data. Versions are 1, 2, 3 ... in a stream; positions rise in a partition and have holes.
`stored_bytes` are a serialised `stretto.eventlog.v1.RecordedEvent`: exactly what is hashed into
the stream's chain, never re-serialised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from stretto_core.ids import EventId, StreamId

E_co = TypeVar("E_co", covariant=True)


class Recorded(NamedTuple, Generic[E_co]):
    """A fact as `evolve` sees it: the event and what only its envelope says.

    time_ns: UTC nanoseconds; never goes back within a stream.
    request_id: the idempotency key of the call that caused it; "" when none did.
    request_digest: 32 bytes over that call's fields; b"" without request_id.
    key_id: the data key its confidential fields are stored with; 0 = clear.
    """

    event: E_co
    version: int
    time_ns: int
    request_id: str = ""
    request_digest: bytes = b""
    key_id: int = 0


class NewEvent(NamedTuple):
    """Everything needed to store one event; made by `Codec.encode`.

    type: full protobuf name of the body's message.
    chain_hash: the stream's head after this event, 32 bytes.
    """

    stream: StreamId
    version: int
    event_id: EventId
    type: str
    stored_bytes: bytes
    chain_hash: bytes


class StoredEvent(NamedTuple):
    """One committed event and its place."""

    position: int
    stream: StreamId
    version: int
    type: str
    stored_bytes: bytes


class StreamHead(NamedTuple):
    """The end of a stream: last version, chain hash (32 bytes) and the last event's time."""

    version: int
    chain_hash: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, and whether there was more when they were read."""

    events: tuple[StoredEvent, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class LeaseKeys:
    """The keys that sign lease tokens of one partition, 32 bytes each.

    Sign with `current`; accept either, so that leases survive one rotation.
    """

    current: bytes
    previous: bytes | None = None

    def __repr__(self) -> str:
        """Never the keys: this ends in logs."""
        return "LeaseKeys(...)"
