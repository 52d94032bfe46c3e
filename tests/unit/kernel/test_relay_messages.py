"""What a batch of events becomes on the bus: messages, waves, subjects."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.relayed_events_pb2 import RelayedEvents
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Partition, StreamId
from stretto_kernel.relay.messages import (
    MESSAGE_BYTES_MAX,
    MESSAGE_EVENTS_MAX,
    subject_of,
    waves_of,
)

P0 = Partition("p0")


def event(
    stream: str, version: int, position: int, *, body: bytes = b"", noun: str = "run"
) -> StoredEvent:
    kind = f"stretto.{noun}.v1.Happened"
    recorded = RecordedEvent(stream=stream, version=version, namespace="acme", type=kind, body=body)
    return StoredEvent(position, StreamId(stream), version, kind, recorded.SerializeToString())


def batch_of(streams: list[str]) -> list[StoredEvent]:
    versions: Counter[str] = Counter()
    batch = []
    for position, stream in enumerate(streams, start=1):
        versions[stream] += 1
        batch.append(event(stream, versions[stream], position))
    return batch


@given(st.lists(st.sampled_from("abc"), max_size=400))
def test_every_event_travels_once_in_the_order_of_its_stream(streams: list[str]) -> None:
    batch = batch_of(streams)
    waves = waves_of(P0, batch)
    travelled: dict[str, list[int]] = {}
    for wave in waves:
        assert len({hint.subject for hint in wave}) == len(wave)
        for hint in wave:
            relayed = RelayedEvents.FromString(hint.body)
            assert 1 <= len(relayed.events) <= MESSAGE_EVENTS_MAX
            assert hint.position == relayed.events[-1].position
            travelled.setdefault(hint.subject, []).extend(each.version for each in relayed.events)
    expected = {
        f"acme.run.{name}": list(range(1, count + 1)) for name, count in Counter(streams).items()
    }
    assert travelled == expected


def test_the_stored_bytes_travel_untouched() -> None:
    batch = batch_of(["a", "a"])
    [[hint]] = waves_of(P0, batch)
    relayed = RelayedEvents.FromString(hint.body)
    assert [each.stored_bytes for each in relayed.events] == [each.stored_bytes for each in batch]
    assert (relayed.partition, hint.message_id) == ("p0", "p0:2")


def test_a_message_stays_within_what_a_server_takes() -> None:
    big = b"x" * (MESSAGE_BYTES_MAX - 1_000)
    batch = [event("a", version, version, body=big) for version in (1, 2, 3)]
    waves = waves_of(P0, batch)
    assert [len(wave) for wave in waves] == [1, 1, 1]
    assert all(len(wave[0].body) <= 1 << 20 for wave in waves)


def test_an_event_larger_than_a_message_is_named_and_left_to_the_log() -> None:
    [[hint]] = waves_of(P0, [event("a", 7, 9, body=b"x" * MESSAGE_BYTES_MAX)])
    [relayed] = RelayedEvents.FromString(hint.body).events
    assert (relayed.position, relayed.version, relayed.stored_bytes) == (9, 7, b"")


def test_a_subject_is_made_of_words_whatever_the_stream_is_called() -> None:
    named = event("queue.gpu/large *>", 1, 1, noun="queue")
    assert subject_of(named) == "acme.queue.queue_gpu_large___"
