"""Following the log: what is recorded, then what comes, for many subscribers over one look at it.

Owns the buffers of live subscribers, and an index of who wants what: a commit costs those who get
something of it, however many others there are, and the store is asked by one follower for all. Who
is behind reads the log by itself until it meets the feed. Who is live and does not take what comes
is cut off with the position up to which it has everything; nothing is buffered without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from stretto_core.bus import SubscriberTooSlow
from stretto_core.errors import Exhausted, Refusal, Unavailable
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import Page, StoredEvent

from stretto_kernel.app.feed_index import FeedIndex, Wanted
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.moments import BeyondTheLog, require_within

CATCH_UP_EVENTS = 1_000
CATCH_UP_BYTES_MAX = 3 * 1024 * 1024
CURSOR_MOVES_AFTER = 10_000
"""A subscriber with a filter hears that the log has moved on after so many positions."""


class TooManySubscribers(Exhausted):
    """The kernel serves its most subscribers."""

    reason = "OVERLOADED"


class Part(NamedTuple):
    """Some events, in order, and the position up to which nothing is missing after them."""

    events: Sequence[StoredEvent]
    reached: int


class _Subscriber:
    """What waits for one subscriber."""

    def __init__(self, wanted: Wanted, reached: int) -> None:
        self.wanted = wanted
        self.reached = reached
        self.parts: list[Part] = []
        self.event_count = 0
        self.bytes_count = 0
        self.ended: Refusal | None = None
        self._arrived = asyncio.Event()

    def put(self, part: Part, bytes_count: int) -> None:
        self.parts.append(part)
        self.event_count += len(part.events)
        self.bytes_count += bytes_count
        self.reached = part.reached
        self._arrived.set()

    def end(self, cause: Refusal) -> None:
        self.ended = cause
        self.drop()
        self._arrived.set()

    def drop(self) -> int:
        """Forget what waits; return its bytes."""
        bytes_count, self.bytes_count, self.event_count = self.bytes_count, 0, 0
        self.parts.clear()
        self._arrived.clear()
        return bytes_count

    async def arrived(self) -> None:
        """Return once something waits. Raises what ended it."""
        await self._arrived.wait()
        if self.ended is not None:
            raise self.ended

    def all_after(self, position: int) -> Part:
        """Return everything that waits, as one part."""
        events = [each for part in self.parts for each in part.events if each.position > position]
        return Part(events, self.reached)


class LogFeed:
    """The subscribers of one partition's log."""

    def __init__(self, log: EventLog, limits: FollowLimits) -> None:
        self._log = log
        self._limits = limits
        self._index: FeedIndex[_Subscriber] = FeedIndex()
        self._following: asyncio.Task[None] | None = None
        self._position: int | None = None  # Up to where live subscribers have everything.
        self._swept = 0
        self._moved = asyncio.Event()
        self._failure: Refusal | None = None
        self.buffered_bytes = 0
        """What waits for all of them."""
        self.subscriber_count = 0
        self.cut_count = 0
        """Subscribers cut off since the start."""

    async def follow(
        self, wanted: Wanted, *, after_position: int, after_version: int = 0
    ) -> AsyncGenerator[Part]:
        """Yield what is wanted after a position (and version, of one stream), without end.

        Raises TooManySubscribers, BeyondTheLog, SubscriberTooSlow, Unavailable.
        """
        if self.subscriber_count >= self._limits.subscribers_max:
            raise TooManySubscribers(
                "too many subscribers", subscribers_max=str(self._limits.subscribers_max)
            )
        self.subscriber_count += 1
        subscriber: _Subscriber | None = None
        try:
            await self._require_within(wanted, after_position, after_version)
            past = self._past(wanted, after_position, after_version)
            async with aclosing(past):
                async for part in past:
                    after_position = part.reached
                    yield part
                    if wanted.stream and part.events:
                        after_version = part.events[-1].version
            subscriber = await self._begin(wanted, after_position)
            # What was recorded between the last page and now.
            async with aclosing(
                self._past(wanted, after_position, after_version, until=subscriber.reached)
            ) as seam:
                async for part in seam:
                    after_position = part.reached
                    yield part
            while True:
                await subscriber.arrived()
                part = subscriber.all_after(after_position)
                self.buffered_bytes -= subscriber.drop()
                if part.reached > after_position:
                    after_position = part.reached
                    yield part
        finally:
            if subscriber is None or subscriber.ended is None:
                self._leave(subscriber)

    async def _past(
        self, wanted: Wanted, after: int, after_version: int, *, until: int | None = None
    ) -> AsyncGenerator[Part]:
        """Yield what is recorded after a position, up to `until` or to about the end of the log."""
        reached, more = after, until is None or after < until
        while more:
            page = await self._read(wanted, reached, after_version)
            found = [event for event in page.events if until is None or event.position <= until]
            more = page.more and len(found) == len(page.events)
            if found:
                after_version = found[-1].version
                if found[-1].position > reached:
                    reached = found[-1].position
                    new = (each for each in found if each.position > after)
                    yield Part([each for each in new if wanted.takes(each)], reached)

    async def _read(self, wanted: Wanted, after: int, after_version: int) -> Page:
        if not wanted.stream:
            return await self._log.read_all(
                after_position=after, limit=CATCH_UP_EVENTS, bytes_max=CATCH_UP_BYTES_MAX
            )
        return await self._log.read_stream(
            wanted.stream,
            after_version=after_version,
            limit=CATCH_UP_EVENTS,
            bytes_max=CATCH_UP_BYTES_MAX,
        )

    async def _require_within(self, wanted: Wanted, position: int, version: int) -> None:
        if wanted.stream and version:
            page = await self._log.read_stream(wanted.stream, after_version=version - 1, limit=1)
            if not page.events:
                raise BeyondTheLog(f"the stream has no version {version}", version=str(version))
        if position and (self._position is None or position > self._position):
            await require_within(self._log, position)

    async def _begin(self, wanted: Wanted, after: int) -> _Subscriber:
        """Make a live subscriber; it gets everything after its `reached`."""
        if self._following is None:
            self._failure = None
            self._following = asyncio.create_task(self._run(), name="log-feed")
        while self._position is None and self._failure is None:
            await self._moved.wait()
        if self._failure is not None:
            raise self._failure
        assert self._position is not None, "the feed knows where it is"
        subscriber = _Subscriber(wanted, self._position)
        self._index.add(subscriber, wanted)
        return subscriber

    def _leave(self, subscriber: _Subscriber | None) -> None:
        self.subscriber_count -= 1
        if subscriber is not None:
            self._index.remove(subscriber, subscriber.wanted)
            self.buffered_bytes -= subscriber.drop()
        if self.subscriber_count == 0 and self._following is not None:
            self._following.cancel()
            self._end(None)

    def _end(self, failure: Refusal | None) -> None:
        self._following, self._position, self._failure = None, None, failure
        self._wake()

    async def _run(self) -> None:
        try:
            position = await self._log.position()
            self._move(position)
            self._swept = position
            async with aclosing(self._log.subscribe(after_position=position)) as batches:
                async for batch in batches:
                    self._route(batch)
            self._fail(Unavailable("the log was closed", reason="DRAINING"))
        except Refusal as refusal:
            self._fail(refusal)
        except Exception:
            # A bug of ours: nobody is to wait for what does not come.
            self._fail(Unavailable("the log is not followed any more: come again"))
            raise

    def _fail(self, cause: Refusal) -> None:
        self._end(cause)
        for subscriber in self._index.everybody():
            self._leave(subscriber)
            subscriber.end(cause)

    def _move(self, position: int) -> None:
        self._position = position
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _route(self, batch: Sequence[StoredEvent]) -> None:
        reached = batch[-1].position
        for events, subscribers in self._index.takers(batch):
            part, bytes_count = Part(events, reached), _bytes_of(events)
            for subscriber in subscribers:
                self._put(subscriber, part, bytes_count)
        if reached - self._swept >= CURSOR_MOVES_AFTER:
            self._swept = reached
            for subscriber in self._index.everybody():
                if subscriber.reached < reached:
                    subscriber.put(Part((), reached), 0)
        if self._following is not None:  # Else nobody is left: the next one begins anew.
            self._move(reached)

    def _put(self, subscriber: _Subscriber, part: Part, bytes_count: int) -> None:
        limits = self._limits
        if subscriber.event_count and (
            subscriber.event_count + len(part.events) > limits.buffer_events_max
            or subscriber.bytes_count + bytes_count > limits.buffer_bytes_max
            or self.buffered_bytes + bytes_count > limits.all_buffers_bytes_max
        ):
            self._cut(subscriber)
            return
        self.buffered_bytes += bytes_count
        subscriber.put(part, bytes_count)

    def _cut(self, subscriber: _Subscriber) -> None:
        self.cut_count += 1
        self._leave(subscriber)
        subscriber.end(SubscriberTooSlow("more came than is kept for a subscriber"))


def _bytes_of(events: Sequence[StoredEvent]) -> int:
    return sum(len(event.stored_bytes) for event in events)
