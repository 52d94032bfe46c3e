"""Many subscribers of one log on virtual time: seams, filters, the index, and who is too slow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from stretto_core.bus import SubscriberTooSlow
from stretto_core.errors import Unavailable
from stretto_core.eventlog.memory import MemoryLog, MemoryOwnedLog, MemoryStore
from stretto_core.eventlog.recorded import NewEvent, StoredEvent
from stretto_core.ids import EventId, Namespace, Partition, StreamId
from stretto_kernel.app.feed_index import FeedIndex, Wanted
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.log_feed import LogFeed, Part, TooManySubscribers
from stretto_kernel.app.moments import BeyondTheLog

from tests.waiting import until

TYPES = (
    "stretto.run.v1.RunStarted",
    "stretto.run.v1.AttemptLeased",
    "stretto.queue.v1.QueuePaused",
)


class Writer:
    """Appends events of some streams in turn; sees nothing else."""

    def __init__(self, owned: MemoryOwnedLog) -> None:
        self._owned = owned
        self._versions: dict[StreamId, int] = {}
        self.count = 0

    async def append(self, count: int, *, stream_count: int = 3, size_bytes: int = 10) -> None:
        group = []
        for _ in range(count):
            stream = StreamId(f"s{self.count % stream_count}")
            version = self._versions[stream] = self._versions.get(stream, 0) + 1
            kind = TYPES[self.count % len(TYPES)]
            group.append(NewEvent(stream, version, EventId(""), kind, b"\xff" * size_bytes, b""))
            self.count += 1
        await self._owned.append(group)


async def new_feed(**limits: int) -> tuple[MemoryLog, Writer, LogFeed]:
    log = MemoryLog(MemoryStore(Partition("p0")))
    return log, Writer(await log.acquire()), LogFeed(log, FollowLimits(**limits))


class Reader:
    """Follows and keeps what it was given."""

    def __init__(self, feed: LogFeed, wanted: Wanted, after: int = 0) -> None:
        self._feed, self._wanted, self._after = feed, wanted, after
        self.events: list[StoredEvent] = []
        self.reached = 0
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        parts = self._feed.follow(self._wanted, after_position=self._after)
        async with aclosing(parts):
            async for part in parts:
                self.events += part.events
                assert part.reached > self.reached
                self.reached = part.reached

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def positions(events: Sequence[StoredEvent]) -> list[int]:
    return [event.position for event in events]


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_left_out_or_given_twice_wherever_one_begins(seed: int) -> None:
    log, writer, feed = await new_feed()
    chance = random.Random(seed)
    wishes = [
        Wanted(),
        Wanted(stream=StreamId("s1")),
        Wanted(types=frozenset({"attemptleased"})),
        Wanted(types=frozenset({"stretto.run.v1.runstarted", "runstarted", "queuepaused"})),
        Wanted(stream=StreamId("s0"), types=frozenset({"runstarted"})),
    ]
    readers: list[tuple[Reader, Wanted, int]] = []
    for _ in range(30):
        await writer.append(chance.randrange(1, 800))
        wanted, after = chance.choice(wishes), chance.randrange(await log.position())
        readers.append((Reader(feed, wanted, after), wanted, after))
        for _ in range(chance.randrange(20)):
            await asyncio.sleep(0)
    # A reader with a filter hears of what it wants only: everybody gets something at the end.
    await writer.append(9)
    everything = [e for page in [await log.read_all(limit=100_000)] for e in page.events]
    for reader, wanted, after in readers:
        expected = [e for e in everything if e.position > after and wanted.takes(e)]
        await until(lambda: len(reader.events) >= len(expected))  # noqa: B023
        assert reader.events == expected
        await reader.end()
    assert feed.subscriber_count == 0 and feed.buffered_bytes == 0


async def test_who_does_not_take_what_comes_is_cut_off_and_goes_on_where_it_was() -> None:
    _, writer, feed = await new_feed(buffer_events_max=10)
    await writer.append(1)
    slow = feed.follow(Wanted(), after_position=0)
    seen: list[StoredEvent] = list((await anext(slow)).events)
    await writer.append(1)
    first: Part = await anext(slow)
    seen += first.events
    quick = Reader(feed, Wanted(), after=0)
    for _ in range(6):
        await writer.append(3)
        await until(lambda: len(quick.events) == writer.count)
    assert feed.cut_count == 1, "the quick one was not"
    assert feed.subscriber_count == 1 and feed.buffered_bytes == 0, "it costs nothing any more"
    with pytest.raises(SubscriberTooSlow):
        await anext(slow)
    again = Reader(feed, Wanted(), after=first.reached)
    await until(lambda: again.reached == quick.reached)
    assert positions(seen + again.events) == list(range(1, writer.count + 1))
    await quick.end()
    await again.end()


async def test_all_that_waits_is_bounded_together() -> None:
    _, writer, feed = await new_feed(all_buffers_bytes_max=1_000)
    await writer.append(1)
    readers = [feed.follow(Wanted(), after_position=0) for _ in range(20)]
    for reader in readers:
        await anext(reader)
    waiting = [asyncio.ensure_future(anext(reader)) for reader in readers]
    await until(lambda: feed.subscriber_count == 20)
    await writer.append(1)
    await asyncio.gather(*waiting)
    for _ in range(10):
        await writer.append(1, size_bytes=100)
        for _ in range(10):
            await asyncio.sleep(0)
        assert feed.buffered_bytes <= 20 * 100 + 1_000, "each may have one part"
    assert feed.cut_count >= 19
    for reader in readers:
        await reader.aclose()


async def test_a_cursor_beyond_the_end_and_one_too_many_are_refused() -> None:
    _, writer, feed = await new_feed(subscribers_max=1)
    await writer.append(3)
    with pytest.raises(BeyondTheLog) as refused:
        await anext(feed.follow(Wanted(), after_position=4))
    assert refused.value.metadata == {"position": "4", "newest_position": "3"}
    for stream in (StreamId("s0"), StreamId("none")):
        with pytest.raises(BeyondTheLog) as refused:
            await anext(feed.follow(Wanted(stream=stream), after_position=0, after_version=2))
        assert refused.value.metadata == {"version": "2"}
    reader = Reader(feed, Wanted(), after=3)
    await until(lambda: feed.subscriber_count == 1)
    with pytest.raises(TooManySubscribers):
        await anext(feed.follow(Wanted(), after_position=0))
    await reader.end()
    assert (await anext(feed.follow(Wanted(), after_position=2))).reached == 3


async def test_a_filter_that_finds_nothing_still_moves_on() -> None:
    _, writer, feed = await new_feed()
    await writer.append(1)
    reader = Reader(feed, Wanted(types=frozenset({"nothing"})))
    await until(lambda: reader.reached == 1)
    for _ in range(25):
        await writer.append(1_000)
    await until(lambda: reader.reached > 20_000)
    assert reader.events == []
    await reader.end()


async def test_the_end_of_the_log_ends_who_follows_and_a_new_one_begins_anew() -> None:
    log, writer, feed = await new_feed()
    await writer.append(2)
    reader = Reader(feed, Wanted())
    await until(lambda: reader.reached == 2)
    await until(lambda: feed.subscriber_count == 1)
    for _ in range(10):
        await asyncio.sleep(0)
    await log.close()
    await asyncio.wait([reader.task])
    assert isinstance(reader.task.exception(), Unavailable)
    assert feed.subscriber_count == 0


async def test_nobody_waits_for_a_feed_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, batch: object) -> None:
        raise ValueError("planned")

    _, writer, feed = await new_feed()
    await writer.append(1)
    reader = Reader(feed, Wanted())
    await until(lambda: reader.reached == 1)
    monkeypatch.setattr(FeedIndex, "takers", fail)
    await writer.append(1)
    await until(reader.task.done)
    assert isinstance(reader.task.exception(), Unavailable)


def test_a_commit_asks_only_those_who_want_it() -> None:
    class Counting(Wanted):
        asked = 0

        def takes(self, event: StoredEvent) -> bool:
            Counting.asked += 1
            return super().takes(event)

    index: FeedIndex[int] = FeedIndex()
    for number in range(1_000):
        index.add(number, Counting(stream=StreamId(f"run-{number}")))
    batch = [StoredEvent(1, StreamId("run-7"), 1, TYPES[0], b"")]
    assert index.takers(batch) == [(batch, [7])]
    assert Counting.asked == 1
    for number in range(1_000):
        index.remove(number, Counting(stream=StreamId(f"run-{number}")))
    assert index.takers(batch) == [] and index.everybody() == []
    for number in range(1_000):
        index.add(number, Counting(types=frozenset({TYPES[0].lower()})))
    assert index.takers(batch) == [(batch, list(range(1_000)))]
    assert Counting.asked == 2, "of those who want the same one is asked"


def test_an_event_whose_tenant_cannot_be_read_is_everybodys() -> None:
    index: FeedIndex[str] = FeedIndex()
    index.add("acme", Wanted(namespace=Namespace("acme")))
    damaged = StoredEvent(1, StreamId("s"), 1, TYPES[0], b"\xff")
    assert index.takers([damaged]) == [([damaged], ["acme"])]


def test_who_left_leaves_nothing_behind() -> None:
    """Else every event would be looked at for a namespace or type that nobody wants any more."""
    index: FeedIndex[int] = FeedIndex()
    wants = [
        Wanted(),
        Wanted(stream=StreamId("s1")),
        Wanted(types=frozenset({"attemptleased", "queuepaused"})),
        Wanted(namespace=Namespace("acme")),
    ]
    for number, wanted in enumerate([*wants, *wants]):
        index.add(number, wanted)
    for number, wanted in enumerate([*wants, *wants]):
        index.remove(number, wanted)
        index.remove(number, wanted)
    assert not index.everybody()
    assert not any(vars(index).values())
