"""What every log adapter promises, case by case."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from stretto_core.eventlog.chain import ChainVerifier
from stretto_core.eventlog.port import (
    EventLog,
    PartitionHeld,
    PartitionMoved,
    SettledAs,
    VersionConflict,
)
from stretto_core.eventlog.recorded import NewEvent, StoredEvent
from stretto_core.eventlog.seals import fingerprint
from stretto_core.ids import StreamId

from tests.contract.eventlog.conftest import OpenLog
from tests.contract.eventlog.events import StreamWriter

DEADLINE_S = 60


async def everything(log: EventLog) -> list[StoredEvent]:
    return list((await log.read_all()).events)


async def followed(log: EventLog, count: int, *, after_position: int = 0) -> list[StoredEvent]:
    seen: list[StoredEvent] = []
    async with (
        asyncio.timeout(DEADLINE_S),
        aclosing(log.subscribe(after_position=after_position)) as batches,
    ):
        async for batch in batches:
            seen.extend(batch)
            if len(seen) >= count:
                break
    return seen


def places(events: list[NewEvent] | list[StoredEvent]) -> list[tuple[str, int]]:
    return [(event.stream, event.version) for event in events]


async def test_an_empty_log_has_nothing(open_log: OpenLog) -> None:
    log = await open_log()
    assert await log.position() == 0
    assert (await log.read_all()).events == ()
    page = await log.read_stream(StreamId("nowhere"))
    assert (page.events, page.more) == ((), False)


async def test_a_group_of_several_streams_is_stored_in_its_order(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    one, two = StreamWriter("one"), StreamWriter("two")
    group = [one.next("first"), two.next(), one.next(), two.next()]
    positions = await writer.append(group)
    stored = await everything(log)
    assert places(stored) == places(group)
    assert tuple(event.position for event in stored) == positions == tuple(sorted(positions))
    assert [event.stored_bytes for event in stored] == [event.stored_bytes for event in group]
    assert [event.type for event in stored] == ["google.protobuf.StringValue"] * 4
    assert await log.position() == positions[-1]
    await writer.release()


async def test_a_group_with_a_taken_version_stores_nothing(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    await writer.append(StreamWriter("taken").take(2))
    fresh, late = StreamWriter("fresh"), StreamWriter("taken", seed=2)
    with pytest.raises(VersionConflict):
        await writer.append([fresh.next(), late.next()])
    assert places(await everything(log)) == [("taken", 1), ("taken", 2)]
    # The refused group left a hole in the positions; nobody waits for it.
    await writer.append([StreamWriter("fresh").next()])
    assert places(await followed(log, 3)) == [("taken", 1), ("taken", 2), ("fresh", 1)]
    await writer.release()


async def test_pages_end_at_their_limits(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    events = StreamWriter("paged").take(5, text="y" * 1_000)
    await writer.append(events)
    stream = StreamId("paged")
    page = await log.read_stream(stream, after_version=1, limit=2)
    assert ([event.version for event in page.events], page.more) == ([2, 3], True)
    page = await log.read_stream(stream, after_version=3, limit=2)
    assert ([event.version for event in page.events], page.more) == ([4, 5], False)
    page = await log.read_stream(stream, bytes_max=3_000)
    assert ([event.version for event in page.events], page.more) == ([1, 2], True)
    page = await log.read_stream(stream, bytes_max=1)
    assert ([event.version for event in page.events], page.more) == ([1], True)
    page = await log.read_all(after_position=page.events[0].position, limit=1)
    assert ([event.version for event in page.events], page.more) == ([2], True)
    await writer.release()


async def test_heads_and_existence_of_many_streams(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    one, two = StreamWriter("one"), StreamWriter("two")
    await writer.append([*one.take(3), two.next()])
    asked = [StreamId("one"), StreamId("two"), StreamId("three")]
    assert await log.stream_heads(asked) == {"one": one.head, "two": two.head}
    assert await log.existing_streams(asked) == {"one", "two"}
    assert await log.existing_streams([]) == frozenset()
    # A stream goes on from its head, and the chain holds across it.
    again = StreamWriter("one", head=(await log.stream_heads(asked))[StreamId("one")])
    await writer.append([again.next()])
    verifier = ChainVerifier()
    assert [verifier.check(event) for event in await everything(log)] == [None] * 5
    assert verifier.stream_count == 2
    await writer.release()


async def test_a_held_partition_is_refused_until_it_is_released(open_log: OpenLog) -> None:
    first, second = await open_log(), await open_log()
    writer = await first.acquire()
    with pytest.raises(PartitionHeld):
        await second.acquire()
    await writer.append([StreamWriter("one").next()])
    await writer.release()
    await writer.release()
    successor = await second.acquire()
    assert successor.owner_epoch > writer.owner_epoch
    with pytest.raises(PartitionMoved):
        await writer.append([StreamWriter("two").next()])
    await successor.append([StreamWriter("two").next()])
    await successor.release()


async def test_settling_tells_what_is_stored(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    stream = StreamWriter("one")
    group = stream.take(2)
    positions = await writer.append(group)
    settlement = await writer.settle(group)
    assert (settlement.outcome, settlement.positions) == (SettledAs.COMMITTED, positions)
    settlement = await writer.settle([stream.next(), stream.next()])
    assert (settlement.outcome, settlement.positions) == (SettledAs.NOT_COMMITTED, ())
    # The same versions with other event ids are somebody else's events.
    others = StreamWriter("one", seed=2).take(2)
    assert (await writer.settle(others)).outcome is SettledAs.NOT_COMMITTED
    assert (await writer.settle([*group, others[0]])).outcome is SettledAs.MIXED
    await writer.release()


async def test_settling_fences_the_lost_append_and_keeps_the_ownership(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    epoch = writer.owner_epoch
    await writer.settle(())
    assert writer.owner_epoch > epoch
    await writer.probe()
    await writer.append([StreamWriter("one").next()])
    await writer.release()
    with pytest.raises(PartitionMoved):
        await writer.probe()


async def test_a_follower_gets_what_is_recorded_and_what_comes(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    stream = StreamWriter("one")
    first = (await writer.append(stream.take(3)))[0]
    seen: list[StoredEvent] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(log.subscribe(after_position=first)) as live:
        async for batch in live:
            assert batch
            seen.extend(batch)
            if len(seen) < 40:
                await writer.append(stream.take(2))
            else:
                break
    assert [event.version for event in seen] == list(range(2, 2 + len(seen)))
    # One more follower, from the middle, sees exactly what comes after its cursor.
    assert await followed(log, 5, after_position=seen[-6].position) == seen[-5:]
    await writer.release()


async def test_followers_of_a_busy_log_lose_nothing(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    stream = StreamWriter("one")

    async def write() -> None:
        for _ in range(60):
            await writer.append(stream.take(5))

    async with asyncio.TaskGroup() as tasks:
        followers = [tasks.create_task(followed(log, 300)) for _ in range(3)]
        tasks.create_task(write())
    for follower in followers:
        assert [event.version for event in follower.result()] == list(range(1, 301))
    await writer.release()


async def test_closing_the_log_ends_its_followers(open_log: OpenLog) -> None:
    log = await open_log()
    writer = await log.acquire()
    await writer.append([StreamWriter("one").next()])
    seen = 0
    async with asyncio.timeout(DEADLINE_S), aclosing(log.subscribe()) as live:
        async for batch in live:
            seen += len(batch)
            await writer.release()
            await log.close()
    assert seen == 1


async def test_tracking_never_goes_back(open_log: OpenLog) -> None:
    log, other = await open_log(), await open_log()
    assert await log.tracking_position("views") == 0
    await log.save_tracking("views", 7)
    await log.save_tracking("views", 5)
    await log.save_tracking("relay", 3)
    await log.save_tracking("relay", 3)
    assert await other.tracking_position("views") == 7
    assert await other.tracking_position("relay") == 3


async def test_a_place_is_moved_only_by_who_knows_where_it_is(open_log: OpenLog) -> None:
    log = await open_log()
    assert not await log.move_tracking("relay", 5, expected=3)
    assert await log.move_tracking("relay", 0, expected=0)
    assert await log.move_tracking("relay", 7, expected=0)
    assert not await log.move_tracking("relay", 9, expected=0)
    assert await log.move_tracking("relay", 2, expected=7), "also back"
    assert await log.tracking_position("relay") == 2
    await log.save_tracking("relay", 4)
    assert await log.tracking_position("relay") == 4


async def test_lease_keys_outlive_handles_and_rotate_with_one_predecessor(
    open_log: OpenLog,
) -> None:
    log, other = await open_log(), await open_log()
    first = await log.lease_keys()
    assert len(first.current) == 32
    assert first.previous is None
    assert await other.lease_keys() == first
    second = await other.rotate_lease_keys()
    assert second.previous == first.current != second.current
    third = await log.rotate_lease_keys()
    assert third.previous == second.current
    assert await other.lease_keys() == third
    assert "lease" not in repr(third.current.hex()) and third.current.hex() not in repr(third)


async def test_the_seal_key_outlives_handles_and_rotations_and_shows_nothing_secret(
    open_log: OpenLog,
) -> None:
    log, other = await open_log(), await open_log()
    key = await log.seal_key()
    await log.rotate_lease_keys()
    again = await other.seal_key()
    assert len(key.public_bytes) == 32
    assert again.public_bytes == key.public_bytes
    assert again.sign(b"message") == key.sign(b"message")
    assert repr(key) == f"SealKey({fingerprint(key.public_bytes)})"
    lease_keys = await log.lease_keys()
    assert lease_keys.previous is not None, "one purpose's keys are not the other's"
