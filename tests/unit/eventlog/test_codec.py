"""Envelope, upcasters, chain and digests: bytes that must mean the same for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_USER, Principal
from stretto.eventlog.v1 import recorded_event_pb2 as pb
from stretto_core.eventlog.chain import (
    EMPTY_HEAD,
    GENESIS,
    ChainVerifier,
    UnreadableEvent,
    chain_hash,
    head_of,
)
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.digests import FieldValue, fields_digest
from stretto_core.eventlog.recorded import NewEvent, Recorded, StoredEvent
from stretto_core.ids import EventId, Namespace, StreamId

GOLDEN = Path(__file__).parent / "golden"
TIME_NS = 1_750_000_000_123_456_789
CAUSE = Cause(
    namespace=Namespace("default"),
    principal=Principal(kind=PRINCIPAL_KIND_USER, name="ada"),
    request_id="01977420-dc00-7000-8000-000000000001",
    request_digest=bytes(range(32)),
    causation_id="cause",
    correlation_id="correlation",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def encode(codec: Codec, body: Message, stream: str = "s", count: int = 1) -> list[NewEvent]:
    head, events = EMPTY_HEAD, []
    for index in range(count):
        events.append(
            codec.encode(
                body,
                stream=StreamId(stream),
                head=head,
                event_id=EventId(f"event-{index}"),
                time_ns=TIME_NS + index,
                cause=CAUSE,
            )
        )
        head = next_head(events[-1], TIME_NS + index)
    return events


def stored(events: list[NewEvent]) -> list[StoredEvent]:
    return [
        StoredEvent(position, event.stream, event.version, event.type, event.stored_bytes)
        for position, event in enumerate(events, start=1)
    ]


def test_the_envelope_carries_what_no_body_repeats() -> None:
    codec = Codec([StringValue])
    (event,) = encode(codec, StringValue(value="hello"))
    decoded = codec.decode(event.stored_bytes)
    assert decoded.recorded == Recorded(
        event=StringValue(value="hello"),
        version=1,
        time_ns=TIME_NS,
        request_id=CAUSE.request_id,
        request_digest=CAUSE.request_digest,
    )
    envelope = decoded.envelope
    assert (envelope.stream, envelope.version, envelope.event_id) == ("s", 1, "event-0")
    assert envelope.type == "google.protobuf.StringValue"
    assert (envelope.namespace, envelope.principal) == ("default", CAUSE.principal)
    assert (envelope.causation_id, envelope.correlation_id) == ("cause", "correlation")
    assert envelope.traceparent == CAUSE.traceparent
    assert envelope.digest_alg == pb.DIGEST_ALG_SHA256
    assert (envelope.key_id, envelope.previous_hash) == (0, GENESIS)


def test_stored_bytes_are_as_they_ever_were() -> None:
    (event,) = encode(Codec([StringValue]), StringValue(value="hello"))
    assert event.stored_bytes.hex() == (GOLDEN / "recorded_event_v1.hex").read_text().strip()
    assert event.chain_hash == chain_hash(GENESIS, event.stored_bytes)


def test_equal_messages_have_equal_bytes_whatever_their_history() -> None:
    one, two = Struct(), Struct()
    one.fields["a"].CopyFrom(Value(bool_value=True))
    one.fields["b"].CopyFrom(Value(bool_value=True))
    two.fields["b"].CopyFrom(Value(bool_value=True))
    two.fields["a"].CopyFrom(Value(bool_value=True))
    codec = Codec([Struct])
    assert encode(codec, one) == encode(codec, two)


def test_an_old_event_is_read_as_its_successor_and_its_bytes_stay() -> None:
    def to_number(old: Message) -> Message:
        assert isinstance(old, StringValue)
        return Int64Value(value=len(old.value))

    old_bytes = bytes.fromhex((GOLDEN / "recorded_event_v1.hex").read_text())
    codec = Codec([StringValue, Int64Value], {"google.protobuf.StringValue": to_number})
    decoded = codec.decode(old_bytes)
    assert decoded.recorded.event == Int64Value(value=5)
    assert decoded.envelope.SerializeToString(deterministic=True) == old_bytes
    assert decoded.envelope.type == "google.protobuf.StringValue"
    with pytest.raises(AssertionError, match="is not written"):
        encode(codec, StringValue(value="old types are read, never written"))


def test_unreadable_bytes_are_refused_by_name() -> None:
    (event,) = encode(Codec([StringValue]), StringValue(value="x"))
    with pytest.raises(UnreadableEvent) as unknown:
        Codec([Int64Value]).decode(event.stored_bytes)
    assert unknown.value.metadata == {
        "type": "google.protobuf.StringValue",
        "stream": "s",
        "version": "1",
    }
    with pytest.raises(UnreadableEvent):
        Codec([StringValue]).decode(b"\xff\xff\xff")


def test_a_whole_chain_has_no_broken_link() -> None:
    events = encode(Codec([StringValue]), StringValue(value="x"), count=4)
    verifier = ChainVerifier()
    assert [verifier.check(event) for event in stored(events)] == [None] * 4
    assert verifier.head(StreamId("s")) == head_of(events[-1].stored_bytes)
    assert verifier.head(StreamId("s")).chain_hash == events[-1].chain_hash
    assert (verifier.event_count, verifier.stream_count) == (4, 1)


@pytest.mark.parametrize("damage", ["flip", "drop", "swap", "insert", "retype", "restream"])
def test_the_first_broken_link_is_named(damage: str) -> None:
    events = stored(encode(Codec([StringValue]), StringValue(value="x"), count=4))
    match damage:
        case "flip":
            flipped = bytearray(events[1].stored_bytes)
            flipped[-1] ^= 1
            events[1] = events[1]._replace(stored_bytes=bytes(flipped))
            first_broken = 3  # The flipped event still decodes: its successor does not follow.
        case "drop":
            del events[1]
            first_broken = 3
        case "swap":
            events[1], events[2] = events[2], events[1]
            first_broken = 3
        case "insert":
            events.insert(1, events[1])
            first_broken = 2
        case "retype":
            events[1] = events[1]._replace(type="other")
            first_broken = 2
        case _:
            other = encode(Codec([StringValue]), StringValue(value="x"), stream="t", count=4)
            events[1] = events[1]._replace(stored_bytes=other[1].stored_bytes)
            first_broken = 2
    verifier = ChainVerifier()
    broken = [link for link in map(verifier.check, events) if link is not None]
    assert (broken[0].stream, broken[0].version) == ("s", first_broken)


def test_digests_tell_requests_apart_and_stay() -> None:
    fields: list[tuple[str, FieldValue]] = [
        ("input", "x"),
        ("labels", {"b": "2", "a": "1"}),
        ("limit", 3),
        ("raw", b"x"),
    ]
    digest = fields_digest("StartRun", fields)
    assert digest.hex() == "5aed990f1df03f3f33f9b49ef8cc64a2ad6e4d7a377251e4f3c968c810f8fc4c"
    assert digest == fields_digest(
        "StartRun", [*fields[:1], ("labels", {"a": "1", "b": "2"}), *fields[2:]]
    )
    others = [
        fields_digest("StartRuns", fields),
        fields_digest("StartRun", fields[:-1]),
        fields_digest("StartRun", [*fields[:-1], ("raw", "x")]),
        fields_digest("StartRun", [*fields[:2], ("limit", True), *fields[3:]]),
        fields_digest("StartRun", [("input", ["x"]), *fields[1:]]),
        fields_digest("StartRun", [("input", None), *fields[1:]]),
    ]
    assert len({digest, *others}) == 1 + len(others)
