"""The live checker of the log: each invariant it holds, broken on purpose."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1.events_pb2 import HoldLifted, HoldPlaced
from stretto_core.eventlog.chain import EMPTY_HEAD
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.eventlog.recorded import NewEvent, StoredEvent
from stretto_core.ids import EventId, Namespace, Partition, StreamId
from stretto_core.testing.log_watch import InvariantBroken, LogWatch

STREAM = StreamId("p0-stream")
CODEC = Codec([HoldPlaced, HoldLifted])


def chained(*events: Message) -> list[NewEvent]:
    head, made = EMPTY_HEAD, []
    for number, event in enumerate(events, 1):
        new = CODEC.encode(
            event,
            stream=STREAM,
            head=head,
            event_id=EventId(str(number)),
            time_ns=number,
            cause=Cause(namespace=Namespace("default"), principal=Principal(name="test")),
        )
        head = next_head(new, number)
        made.append(new)
    return made


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore(Partition("p0"))


async def test_what_follows_passes_and_every_check_sees_it(store: MemoryStore) -> None:
    seen: list[StoredEvent] = []
    watch = LogWatch(store, checks=[seen.append])
    store.append(0, chained(HoldPlaced(hold_id="a"), HoldLifted(hold_id="a")))
    assert watch.version(STREAM) == 2
    assert watch.event_count == 2
    assert seen == store.events


async def test_a_gap_is_told(store: MemoryStore) -> None:
    watch = LogWatch(store)
    store.append(0, chained(HoldPlaced(hold_id="a"), HoldLifted(hold_id="a"))[1:])
    with pytest.raises(InvariantBroken, match="version 2 follows version 0"):
        watch.catch_up()


async def test_a_broken_chain_is_told(store: MemoryStore) -> None:
    watch = LogWatch(store)
    first = chained(HoldPlaced(hold_id="a"))[0]
    second = chained(HoldPlaced(hold_id="another"), HoldLifted(hold_id="a"))[1]
    store.append(0, [first, second])
    with pytest.raises(InvariantBroken, match="previous hash"):
        watch.catch_up()


async def test_a_repeated_position_is_told(store: MemoryStore) -> None:
    watch = LogWatch(store)
    store.append(0, chained(HoldPlaced(hold_id="a")))
    watch.catch_up()
    store.events.append(store.events[0]._replace(version=2))
    with pytest.raises(InvariantBroken, match="position 1 after 1"):
        watch.catch_up()


async def test_a_stored_secret_is_told(store: MemoryStore) -> None:
    watch = LogWatch(store, secrets=[b"hunter2"])
    store.append(0, chained(HoldPlaced(hold_id="hunter2")))
    with pytest.raises(InvariantBroken, match="secret"):
        watch.catch_up()


async def test_equal_logs_have_equal_digests_and_others_have_not(store: MemoryStore) -> None:
    other = MemoryStore(Partition("p0"))
    store.append(0, chained(HoldPlaced(hold_id="a")))
    other.append(0, chained(HoldPlaced(hold_id="a")))
    watch, other_watch = LogWatch(store), LogWatch(other)
    assert watch.digest() == other_watch.digest()
    other.append(0, chained(HoldPlaced(hold_id="a"), HoldLifted(hold_id="a"))[1:])
    assert watch.digest() != other_watch.digest()
