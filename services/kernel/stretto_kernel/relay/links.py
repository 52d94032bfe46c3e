"""What is checked of an event before it is published: that it is what its stream goes on with.

The bus says what the log says; what was damaged in the log is not handed on as if it were recorded.
Keeps the newest hash of the streams at work; one that is not known is asked of the log.
"""

from __future__ import annotations

from collections import OrderedDict

from google.protobuf.message import DecodeError
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.eventlog.chain import GENESIS, chain_hash, head_of
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import StreamId

STREAMS_MAX = 10_000
OUR_TYPES = "stretto."


class DamagedEvent(Exception):
    """It is not what was recorded."""


class Links:
    """The newest hash of each stream that is relayed.

    passed: who set the relay here has passed over what is before; no event is judged by that.
    """

    def __init__(self, log: EventLog, *, passed: int = 0) -> None:
        self._log = log
        self._passed = passed
        self._hashes: OrderedDict[StreamId, tuple[int, bytes]] = OrderedDict()

    async def check(self, event: StoredEvent) -> None:
        """Raise DamagedEvent when the event is none, or does not follow by its hash."""
        try:
            envelope = RecordedEvent.FromString(event.stored_bytes)
        except DecodeError:
            raise DamagedEvent("the stored bytes are not a recorded event") from None
        said = (envelope.stream, envelope.version, envelope.type)
        if said != (event.stream, event.version, event.type):
            raise DamagedEvent(f"its envelope says {' '.join(map(str, said))}")
        if not event.type.startswith(OUR_TYPES):
            raise DamagedEvent(f"its type {event.type} is none of ours")
        version, before = self._hashes.get(event.stream, (0, GENESIS))
        if version != event.version - 1:
            before = await self._hash_before(event, envelope.previous_hash)
        if envelope.previous_hash != before:
            raise DamagedEvent("its previous hash is not the hash of the event before")
        self._hashes[event.stream] = (event.version, chain_hash(before, event.stored_bytes))
        self._hashes.move_to_end(event.stream)
        if len(self._hashes) > STREAMS_MAX:
            self._hashes.popitem(last=False)

    async def _hash_before(self, event: StoredEvent, said: bytes) -> bytes:
        if event.version == 1:
            return GENESIS
        page = await self._log.read_stream(event.stream, after_version=event.version - 2, limit=1)
        if not page.events or page.events[0].version != event.version - 1:
            raise DamagedEvent(f"its stream has no version {event.version - 1}")
        if page.events[0].position <= self._passed:
            return said
        try:
            return head_of(page.events[0].stored_bytes).chain_hash
        except (DecodeError, AssertionError):
            raise DamagedEvent(f"version {event.version - 1} cannot be read") from None
