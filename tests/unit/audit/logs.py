"""Sealed logs made of bytes: what the tests of seals, exports and the verifier share."""

from __future__ import annotations

from dataclasses import dataclass, field

from stretto.common.v1.principal_pb2 import Principal
from stretto.eventlog.v1 import recorded_event_pb2
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto.run.v1 import events_pb2
from stretto_core.eventlog.chain import EMPTY_HEAD, chain_hash
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.export import ExportWriter
from stretto_core.eventlog.merkle import leaf_hash, root_of
from stretto_core.eventlog.recorded import StoredEvent, StreamHead
from stretto_core.eventlog.seals import (
    AUDIT_NAMESPACE,
    Covered,
    SealKey,
    new_seal,
    seals_stream,
)
from stretto_core.ids import EventId, Namespace, Partition, StreamId

P0 = Partition("p0")
CODEC = Codec([events_pb2.RunCancelRequested, LogSealed])
KEY = SealKey(bytes(range(32)))
FOREIGN_KEY = SealKey(bytes(range(1, 33)))


@dataclass
class SealedLog:
    """A log in memory with positions that have holes, sealed by `key`."""

    key: SealKey = KEY
    events: list[StoredEvent] = field(default_factory=list)
    seals: list[LogSealed] = field(default_factory=list)
    _heads: dict[StreamId, StreamHead] = field(default_factory=dict)

    def record(self, stream: str, *, namespace: str = "default", reason: str = "") -> StoredEvent:
        return self._append(
            StreamId(stream), Namespace(namespace), events_pb2.RunCancelRequested(reason=reason)
        )

    def seal(self) -> LogSealed:
        previous = self.seals[-1] if self.seals else None
        after = previous.position if previous else 0
        unsealed = [event for event in self.events if event.position > after]
        root = root_of([leaf_hash(event.position, _hash(event)) for event in unsealed])
        covered = Covered(after, unsealed[-1].position, len(unsealed), root)
        seal = new_seal(self.key, P0, previous, covered)
        self.seals.append(seal)
        self._append(seals_stream(P0), AUDIT_NAMESPACE, seal)
        return seal

    def export(
        self, *, start: LogSealed | None = None, end: LogSealed | None = None, namespace: str = ""
    ) -> bytes:
        end = end or self.seals[-1]
        writer = ExportWriter(self.key, start=start, end_seal=end, namespace=namespace)
        after = start.position if start else 0
        events = [event for event in self.events if after < event.position <= end.position]
        parts = [writer.begin(1_700_000_000 * 10**9)]
        parts += [writer.add(events[at : at + 20]) for at in range(0, len(events), 20)]
        return b"".join([*parts, writer.end()])

    def _append(
        self,
        stream: StreamId,
        namespace: Namespace,
        event: events_pb2.RunCancelRequested | LogSealed,
    ) -> StoredEvent:
        head = self._heads.get(stream, EMPTY_HEAD)
        time_ns = 10**18 + len(self.events)
        new = CODEC.encode(
            event,
            stream=stream,
            head=head,
            event_id=EventId(f"event-{len(self.events)}"),
            time_ns=time_ns,
            cause=Cause(namespace=namespace, principal=Principal(name="test")),
        )
        self._heads[stream] = next_head(new, time_ns)
        position = (self.events[-1].position if self.events else 0) + 1 + len(self.events) % 3
        self.events.append(StoredEvent(position, stream, new.version, new.type, new.stored_bytes))
        return self.events[-1]


def sealed_log(*, key: SealKey = KEY, salt: str = "", rounds: int = 6) -> SealedLog:
    """Return a log of several streams and two namespaces, `rounds` times sealed."""
    log = SealedLog(key)
    for round_number in range(rounds):
        for number in range(23):
            namespace = "acme" if number % 4 == 0 else "default"
            log.record(f"{namespace}-{number % 7}", namespace=namespace, reason=f"{salt}{number}")
        if round_number % 2:
            log.record("late")
        log.seal()
    return log


def _hash(event: StoredEvent) -> bytes:
    previous = recorded_event_pb2.RecordedEvent.FromString(event.stored_bytes).previous_hash
    return chain_hash(previous, event.stored_bytes)
