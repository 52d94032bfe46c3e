"""Writes export files: events of the log between two seals, checkable by `stretto-verify` alone.

Pure: events in, bytes out, a chunk at a time; nothing is kept but a running digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from stretto.eventlog.v1 import recorded_event_pb2
from stretto.eventlog.v1.export_pb2 import (
    ExportedEvent,
    ExportedEvents,
    ExportFrame,
    ExportHeader,
    ExportTrailer,
)
from stretto.eventlog.v1.seal_pb2 import LogSealed

from stretto_core.eventlog.chain import GENESIS, HASH_BYTES, chain_hash
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.eventlog.seals import AUDIT_NAMESPACE, SealKey

MAGIC = b"STRETTO-EXPORT\x00\x01"
_PURPOSE = b"stretto.export.v1\x00"


class ExportWriter:
    """Makes one file: `begin`, then `add` in order of position, then `end`.

    start: the seal after which the file begins; None = from the first event. end_seal: the one it
    ends with. seals_beyond: those before it whose own events lie beyond its position. namespace:
    whose events are given whole; "" = all. Seals always are.
    """

    def __init__(
        self,
        key: SealKey,
        *,
        start: LogSealed | None,
        end_seal: LogSealed,
        seals_beyond: Sequence[LogSealed] = (),
        namespace: str = "",
    ) -> None:
        self._key = key
        self._start = start
        self._end_seal = end_seal
        self._seals_beyond = seals_beyond
        self._namespace = namespace
        self._digest = hashlib.sha256()
        self._event_count = 0
        self.given_count = 0
        """Events that stand in the file whole, the seals among others left out."""

    def begin(self, now_ns: int) -> bytes:
        """Return the first bytes of the file."""
        header = ExportHeader(
            partition=self._end_seal.partition,
            export_time=Timestamp(seconds=now_ns // 10**9, nanos=now_ns % 10**9),
            namespace=self._namespace,
            start_seal=self._start,
            end_seal=self._end_seal,
            public_key=self._key.public_bytes,
            seals_beyond=self._seals_beyond,
        )
        return self._count(MAGIC + _framed(ExportFrame(header=header)))

    def add(self, events: Iterable[StoredEvent]) -> bytes:
        """Return the bytes of the next events; none may lie beyond the end seal's position."""
        exported = [self._exported(event) for event in events]
        self._event_count += len(exported)
        return self._count(_framed(ExportFrame(events=ExportedEvents(events=exported))))

    def end(self) -> bytes:
        """Return the last bytes of the file."""
        signature = self._key.sign(_PURPOSE + self._digest.digest())
        trailer = ExportTrailer(event_count=self._event_count, signature=signature)
        return _framed(ExportFrame(trailer=trailer))

    def _exported(self, event: StoredEvent) -> ExportedEvent:
        assert event.position <= self._end_seal.position, "a file ends with its seal"
        if self._namespace:
            namespace = _envelope(event.stored_bytes).namespace
            if namespace not in (self._namespace, AUDIT_NAMESPACE):
                event_hash = claimed_hash(event.stored_bytes)
                return ExportedEvent(position=event.position, event_hash=event_hash)
            self.given_count += namespace == self._namespace
        return ExportedEvent(position=event.position, stored_bytes=event.stored_bytes)

    def _count(self, written: bytes) -> bytes:
        self._digest.update(written)
        return written


def claimed_hash(stored_bytes: bytes) -> bytes:
    """Return the chain hash of an event by what it says itself of the one before it.

    Of bytes that are no event it is the hash they would have as a first one: under a seal nothing
    has that, so that whoever checks the seal finds them.
    """
    previous_hash = _envelope(stored_bytes).previous_hash
    return chain_hash(previous_hash if len(previous_hash) == HASH_BYTES else GENESIS, stored_bytes)


def _envelope(stored_bytes: bytes) -> recorded_event_pb2.RecordedEvent:
    try:
        return recorded_event_pb2.RecordedEvent.FromString(stored_bytes)
    except DecodeError:
        return recorded_event_pb2.RecordedEvent()


def _framed(frame: ExportFrame) -> bytes:
    content = frame.SerializeToString()
    return len(content).to_bytes(4, "big") + content
