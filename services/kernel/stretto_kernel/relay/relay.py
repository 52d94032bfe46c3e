"""The relay: publishes the committed log on the bus, at least once, in order per stream.

Its place is kept among the log's followers, saved a moment after what it says was taken by the
bus: a crash in between publishes that moment again, and never loses any. Whoever sets that place
elsewhere lets it begin there. No command ever waits for it; a bus that is down is waited for, and
one that lost its data is fed from where the relay is. Before an event that is damaged it stands
still, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Protocol

import structlog
from stretto_core.bus import Bus, Hint
from stretto_core.errors import Unavailable
from stretto_core.eventlog.duty_cycle import DutyCycle
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent

from stretto_kernel.relay.links import DamagedEvent, Links
from stretto_kernel.relay.messages import waves_of
from stretto_kernel.relay.place import RELAY

WINDOW_MESSAGES = 256
WINDOW_BYTES_MAX = 4 * 1024 * 1024
"""So much is under way to the bus at once."""
SAVE_INTERVAL_S = 0.5
DUTY = DutyCycle()
"""What comes while the relay rests is one batch, and what of it is of one stream one message."""
LOOK_S = 2.0
"""So often the relay looks whether its place was set elsewhere."""
AGAIN_S = 0.2
AGAIN_S_MAX = 5.0


class RelayBoard(Protocol):
    """Where it is written that the relay stands still. Methods raise Unavailable."""

    async def note_stop(self, position: int, reason: str, message: str) -> None:
        """It stands before the event at a position."""
        ...

    async def note_following(self) -> None:
        """It does not stand still (any more)."""
        ...


class Mirror(Protocol):
    """What is fed with the same events."""

    async def take(self, batch: Sequence[StoredEvent]) -> None:
        """Mirror the next events; waits for a bus that is down. They may come again."""
        ...


class _Moved(Exception):
    """Somebody set the relay's place elsewhere."""


class Relay:
    """Relays one partition."""

    def __init__(
        self, log: EventLog, bus: Bus, board: RelayBoard, mirror: Mirror | None = None
    ) -> None:
        self._log = log
        self._bus = bus
        self._board = board
        self._mirror = mirror
        self._saved = 0
        self._links = Links(log)
        self._unsaid = True
        self._again = ""
        self.position = 0
        """Up to which position the bus has taken everything."""
        self._logger = structlog.get_logger("stretto.kernel.relay")

    async def run(self) -> None:
        """Follow the log until cancelled; what was published is saved before it ends."""
        moved = False
        while True:
            self._saved = self.position = await self._begin()
            if moved:
                self._logger.info("relay.moved", position=self.position)
                self._links = Links(self._log, passed=self.position)
                # What is published again was asked for: the bus, which still knows the ids of what
                # it took lately, must not drop it, though it may hold none of it any more.
                self._again = str(round(asyncio.get_running_loop().time() * 1_000))
                await self._tell(self._board.note_following)
            saving = asyncio.create_task(self._keep_saving(), name="relay-saver")
            following = asyncio.create_task(self._follow(), name="relay-follower")
            try:
                await asyncio.wait({saving, following}, return_when=asyncio.FIRST_COMPLETED)
                for ended in (saving, following):
                    if ended.done():
                        ended.result()
            except _Moved:
                moved = True
            finally:
                saving.cancel()
                following.cancel()
                await asyncio.wait({saving, following})
                with suppress(Unavailable, _Moved):
                    await self._save()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(self._log.subscribe(after_position=self.position)) as batches:
            async for batch in batches:
                began_s = loop.time()
                sound, damage = await self._sound(batch)
                await self._relay(sound)
                if damage is not None:
                    await self._stand_still(batch[len(sound)], damage)
                elif self._unsaid:
                    await self._tell(self._board.note_following)
                    self._unsaid = False
                await asyncio.sleep(DUTY.rest_s(loop.time() - began_s, len(batch)))

    async def _begin(self) -> int:
        while True:
            try:
                position = await self._log.tracking_position(RELAY)
                if position == 0:
                    await self._log.move_tracking(RELAY, 0, expected=0)  # It is known from now on.
                return position
            except Unavailable:
                await asyncio.sleep(AGAIN_S)

    async def _sound(
        self, batch: Sequence[StoredEvent]
    ) -> tuple[Sequence[StoredEvent], DamagedEvent | None]:
        """Return the events up to the first that is damaged, and what is wrong with that one."""
        for index, event in enumerate(batch):
            while True:
                try:
                    await self._links.check(event)
                    break
                except DamagedEvent as damage:
                    return batch[:index], damage
                except Unavailable:
                    await asyncio.sleep(AGAIN_S)
        return batch, None

    async def _relay(self, batch: Sequence[StoredEvent]) -> None:
        for wave in waves_of(self._log.partition, batch, again=self._again):
            for window in windows_of(wave):
                await self._publish(window)
        if batch:
            if self._mirror is not None:
                await self._mirror.take(batch)
            self.position = batch[-1].position

    async def _publish(self, window: Sequence[Hint]) -> None:
        """Hand the window over, again and again until the bus has taken all of it."""
        again_s = AGAIN_S
        while True:
            try:
                return await self._bus.publish(window)
            except Unavailable as cause:
                if again_s == AGAIN_S:
                    self._logger.warning("relay.bus_down", message=cause.message)
                await asyncio.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_S_MAX)

    async def _stand_still(self, event: StoredEvent, damage: DamagedEvent) -> None:
        """Wait for ever, or until the relay is set elsewhere: nothing is passed over."""
        message = f"{event.stream} version {event.version}: {damage}"
        self._logger.error("relay.stopped", position=event.position, message=message)
        await self._tell(self._board.note_stop, event.position, "UNREADABLE_EVENT", message)
        await asyncio.get_running_loop().create_future()

    async def _tell(self, note: Callable[..., Awaitable[None]], *said: object) -> None:
        while True:
            try:
                return await note(*said)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)

    async def _keep_saving(self) -> None:
        """Save the place while it moves, and look now and then who else moved it."""
        loop = asyncio.get_running_loop()
        look_s = loop.time() + LOOK_S
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            with suppress(Unavailable):
                if self.position > self._saved:
                    await self._save()
                elif loop.time() >= look_s:
                    if await self._log.tracking_position(RELAY) != self._saved:
                        raise _Moved
                else:
                    continue
                look_s = loop.time() + LOOK_S

    async def _save(self) -> None:
        position = self.position
        if position > self._saved:
            if not await self._log.move_tracking(RELAY, position, expected=self._saved):
                raise _Moved
            self._saved = position


def windows_of(wave: Sequence[Hint]) -> Iterator[Sequence[Hint]]:
    """Cut a wave to what may be under way at once."""
    window: list[Hint] = []
    bytes_count = 0
    for hint in wave:
        bytes_count += len(hint.body)
        if window and (len(window) == WINDOW_MESSAGES or bytes_count > WINDOW_BYTES_MAX):
            yield window
            window, bytes_count = [], len(hint.body)
        window.append(hint)
    if window:
        yield window
