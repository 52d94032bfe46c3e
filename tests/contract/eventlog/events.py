"""Streams of simple events for the log's suites: what the codec makes of string bodies."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import StringValue
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_KERNEL, Principal
from stretto_core.clock.manual import ManualClock
from stretto_core.eventlog.chain import EMPTY_HEAD
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.recorded import NewEvent, StreamHead
from stretto_core.ids import EventId, Namespace, StreamId
from stretto_core.ids.seeded import SeededIds

CODEC = Codec([StringValue])
CAUSE = Cause(
    namespace=Namespace("default"), principal=Principal(kind=PRINCIPAL_KIND_KERNEL, name="test")
)


class StreamWriter:
    """Encodes the next events of one stream, as if each were stored; `branch` tries another way."""

    def __init__(self, stream: str, *, seed: int = 1, head: StreamHead = EMPTY_HEAD) -> None:
        self.stream = StreamId(stream)
        self.head = head
        self._clock = ManualClock()
        self._ids = SeededIds(seed, self._clock)

    def next(self, text: str = "x") -> NewEvent:
        self._clock.advance(1)
        time_ns = max(self._clock.now_ns(), self.head.time_ns)
        event = CODEC.encode(
            StringValue(value=text),
            stream=self.stream,
            head=self.head,
            event_id=EventId(self._ids.uuid7()),
            time_ns=time_ns,
            cause=CAUSE,
        )
        self.head = next_head(event, time_ns)
        return event

    def take(self, count: int, text: str = "x") -> list[NewEvent]:
        return [self.next(text) for _ in range(count)]
