"""Who follows the log in the trap, each counting what it is given and checking its order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.relayed_events_pb2 import RelayedEvents
from stretto_core.bus import BUFFER_COUNT_DEFAULT, Bus, Hint, SubscriberTooSlow, Subscription
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_kernel.app.feed_index import Wanted
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.log_feed import LogFeed


@dataclass
class Tally:
    """What one subscriber was given, and the first thing wrong with it; "" = nothing."""

    name: str
    count: int = 0
    position: int = 0
    wrong: str = ""
    _versions: dict[str, int] = field(default_factory=dict)

    def take(self, position: int, stream: str, version: int) -> None:
        """Count an event; what is missing or out of order in its stream is noted."""
        self.count += 1
        before = self._versions.get(stream, 0)
        if version != before + 1 and not self.wrong:
            self.wrong = f"{stream} version {version} after {before}"
        if position <= self.position and not self.wrong:
            self.wrong = f"position {position} after {self.position}"
        self._versions[stream] = version
        self.position = max(self.position, position)

    def fault(self, expected: int) -> str:
        """Return what is wrong after all of `expected` events; "" = nothing."""
        if self.wrong or self.count != expected:
            return f"{self.name}: {self.count:,} of {expected:,} events; {self.wrong}"
        return ""


async def follow_tail(log: EventLog, tally: Tally) -> None:
    """Follow the log itself, without end."""
    async with aclosing(log.subscribe()) as batches:
        async for batch in batches:
            _take(tally, batch)


async def follow_feed(log: EventLog, tally: Tally) -> None:
    """Follow as EventLogService.Subscribe does, without end; cut off, it goes on where it was."""
    feed = LogFeed(log, FollowLimits())
    while True:
        with suppress(SubscriberTooSlow):
            async with aclosing(feed.follow(Wanted(), after_position=tally.position)) as parts:
                async for part in parts:
                    _take(tally, part.events)
                    await asyncio.sleep(0)


async def follow_skipping(log: EventLog, tally: Tally) -> None:
    """Follow with a bug: the first event of a batch is passed over, now and then."""
    async with aclosing(log.subscribe()) as batches:
        number = 0
        async for batch in batches:
            number += 1
            _take(tally, batch[1:] if number % 7 == 3 else batch)


async def follow_by_position(log: EventLog, tally: Tally, again: asyncio.Event) -> None:
    """Follow by polling for positions above the last: what a log must make safe."""
    position = 0
    while True:
        again.clear()  # Before the look: what comes in between is looked for again.
        page = await log.read_all(after_position=position)
        _take(tally, page.events)
        if page.events:
            position = page.events[-1].position
        else:
            await again.wait()


class CountingBus:
    """Hands over to a bus, and tallies what it has taken; what it is given again counts once."""

    def __init__(self, bus: Bus, tally: Tally) -> None:
        self._bus = bus
        self._tally = tally
        self._seen: dict[str, int] = {}

    async def publish(self, hints: Sequence[Hint]) -> None:
        """See `Bus`."""
        await self._bus.publish(hints)
        for hint in hints:
            for event in RelayedEvents.FromString(hint.body).events:
                stream = RecordedEvent.FromString(event.stored_bytes).stream
                seen = self._seen.get(stream, 0)
                if event.version > seen:
                    self._seen[stream] = event.version
                    # Messages of a window are of different streams: order is within a stream.
                    self._tally.take(self._tally.count + 1, stream, event.version)

    async def subscribe(
        self, pattern: str, *, buffer_count_max: int = BUFFER_COUNT_DEFAULT
    ) -> Subscription:
        """See `Bus`."""
        return await self._bus.subscribe(pattern, buffer_count_max=buffer_count_max)

    async def close(self) -> None:
        """See `Bus`."""
        await self._bus.close()


def _take(tally: Tally, events: Iterable[StoredEvent]) -> None:
    for event in events:
        tally.take(event.position, event.stream, event.version)
