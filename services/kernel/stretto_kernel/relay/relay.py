"""The relay: publishes the committed log on the bus, at least once, in order per stream.

Its place is kept among the log's followers, saved a moment after what it says was taken by the
bus: a crash in between publishes that moment again, and never loses any. No command ever waits for
it; a bus that is down is waited for, and one that lost its data is fed from where the relay is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress

import structlog
from stretto_core.bus import Bus, Hint
from stretto_core.errors import Unavailable
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent

from stretto_kernel.relay.messages import waves_of

RELAY = "relay_v1"
"""The follower's name in the tracking table."""
WINDOW_MESSAGES = 256
SAVE_INTERVAL_S = 0.5
AGAIN_S = 0.2
AGAIN_S_MAX = 5.0


class Relay:
    """Relays one partition."""

    def __init__(self, log: EventLog, bus: Bus) -> None:
        self._log = log
        self._bus = bus
        self._saved = 0
        self._moved = asyncio.Event()
        self.position = 0
        """Up to which position the bus has taken everything."""
        self._logger = structlog.get_logger("stretto.kernel.relay")

    async def run(self) -> None:
        """Follow the log until cancelled; what was published is saved before it ends."""
        saver: asyncio.Task[None] | None = None
        try:
            self._saved = self.position = await self._begin()
            saver = asyncio.create_task(self._keep_saving(), name="relay-saver")
            async with aclosing(self._log.subscribe(after_position=self.position)) as batches:
                async for batch in batches:
                    await self._relay(batch)
        finally:
            if saver is not None:
                saver.cancel()
                with suppress(Unavailable):
                    await self._save()

    async def _begin(self) -> int:
        while True:
            try:
                return await self._log.tracking_position(RELAY)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)

    async def _relay(self, batch: Sequence[StoredEvent]) -> None:
        for wave in waves_of(self._log.partition, batch):
            for start in range(0, len(wave), WINDOW_MESSAGES):
                await self._publish(wave[start : start + WINDOW_MESSAGES])
        self.position = batch[-1].position
        self._moved.set()

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

    async def _keep_saving(self) -> None:
        while True:
            await self._moved.wait()
            await asyncio.sleep(SAVE_INTERVAL_S)
            self._moved.clear()
            with suppress(Unavailable):
                await self._save()

    async def _save(self) -> None:
        position = self.position
        if position > self._saved:
            await self._log.save_tracking(RELAY, position)
            self._saved = position
