"""Which messages a batch of events becomes. Pure.

A wave holds at most one message of a stream: a wave that had to be sent again repeats events, and
never puts an older one after a newer one of the same stream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.relayed_events_pb2 import RelayedEvent, RelayedEvents
from stretto_core.bus import Hint
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Partition, StreamId

MESSAGE_EVENTS_MAX = 100
MESSAGE_BYTES_MAX = 512 * 1024
"""Well below the 1 MiB that a NATS server takes unless it is told otherwise."""
_NOT_IN_A_WORD = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(slots=True)
class _Message:
    events: list[StoredEvent] = field(default_factory=list)
    size_bytes: int = 0

    def has_room(self, event: StoredEvent) -> bool:
        size_bytes = self.size_bytes + len(event.stored_bytes)
        return len(self.events) < MESSAGE_EVENTS_MAX and size_bytes <= MESSAGE_BYTES_MAX

    def add(self, event: StoredEvent) -> None:
        self.events.append(event)
        self.size_bytes += len(event.stored_bytes)


def waves_of(
    partition: Partition, batch: Sequence[StoredEvent], *, again: str = ""
) -> list[list[Hint]]:
    """Return the messages of a batch, wave after wave, each of distinct subjects.

    again: see `Hint`.
    """
    by_stream: dict[StreamId, list[_Message]] = {}
    for event in batch:
        messages = by_stream.setdefault(event.stream, [])
        if not messages or not messages[-1].has_room(event):
            messages.append(_Message())
        messages[-1].add(event)
    waves: list[list[Hint]] = []
    for messages in by_stream.values():
        for depth, message in enumerate(messages):
            if depth == len(waves):
                waves.append([])
            waves[depth].append(_hint(partition, message.events, again))
    return waves


def subject_of(event: StoredEvent) -> str:
    """Return <namespace>.<noun>.<id> of an event's stream."""
    # Packages are named stretto.<noun>.v1.
    noun = event.type.split(".")[1]
    namespace = RecordedEvent.FromString(event.stored_bytes).namespace
    return ".".join(_NOT_IN_A_WORD.sub("_", word) for word in (namespace, noun, event.stream))


def _hint(partition: Partition, events: Sequence[StoredEvent], again: str) -> Hint:
    body = RelayedEvents(
        partition=partition,
        events=[
            RelayedEvent(
                position=event.position,
                version=event.version,
                stored_bytes=(
                    event.stored_bytes if len(event.stored_bytes) <= MESSAGE_BYTES_MAX else b""
                ),
            )
            for event in events
        ],
    )
    last = events[-1].position
    return Hint(subject_of(events[0]), partition, last, body.SerializeToString(), again)
