"""The views that follow the end of the log, and how others come into step with them.

Whatever needs views to stay where they are, for a moment, holds `between`: the views stand at the
end of a batch while it is held, and nothing else waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing

from stretto_core.eventlog.duty_cycle import DutyCycle
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import Page

from stretto_kernel.projections.cohort import Cohort
from stretto_kernel.projections.store import Target

DUTY = DutyCycle(rest_per_work=5.0)
"""What comes while the views rest is one batch, and a run that began and ended in it is one row.

They rest less than others: after a batch of a few events for some 40 ms, which is what somebody who
writes and at once reads the views, again and again, waits for.
"""

Told = Callable[[int, int], Awaitable[None]]
"""Is told how many events were folded, and up to which position."""


class Lead:
    """Follows the log with the cohort that is furthest."""

    def __init__(self, log: EventLog, cohort: Cohort) -> None:
        self._log = log
        self.cohort = cohort
        self.between = asyncio.Lock()
        self._moved = asyncio.Event()

    async def follow(self) -> None:
        """Follow the log until cancelled. Raises Unavailable, PositionMoved."""
        loop = asyncio.get_running_loop()
        async with aclosing(self._log.subscribe(after_position=self.cohort.position)) as batches:
            async for batch in batches:
                began_s = loop.time()
                async with self.between:
                    await self.cohort.project(batch)
                    if not DUTY.is_full(len(batch)):
                        await self.cohort.settle()
                self._moved.set()
                await asyncio.sleep(DUTY.rest_s(loop.time() - began_s, len(batch)))

    async def join(self, cohort: Cohort, told: Told | None = None) -> None:
        """Let a cohort that is behind catch up; returns when it is one with this, or stopped.

        One that is ahead, since these were lost or a crash kept its newest batch only, waits until
        they have come up. Raises Unavailable, PositionMoved.
        """
        while cohort.position > self.cohort.position:
            self._moved.clear()
            await self._moved.wait()
        reading = self._read_after(cohort)
        try:
            while cohort.targets:
                page = await reading
                within = [each for each in page.events if each.position <= self.cohort.position]
                is_near = not page.more or len(within) < len(page.events)
                if not is_near:
                    reading = self._read_after(cohort, page)  # While this one is folded.
                await cohort.project(within)
                if told is not None:
                    await told(len(within), cohort.position)
                if is_near:
                    await self._meet(cohort)
                    return
        finally:
            reading.cancel()
            cohort.close()

    def leave(self, targets: Collection[Target]) -> None:
        """Follow with these no longer."""
        self.cohort.targets = [each for each in self.cohort.targets if each not in targets]

    def resume(self, targets: Collection[Target]) -> None:
        """Follow with these too, if they stood still: their tables are now where the others are."""
        for target in targets:
            self.cohort.stops.pop(target, None)
            if target not in self.cohort.targets:
                self.cohort.targets.append(target)

    def _read_after(self, cohort: Cohort, page: Page | None = None) -> asyncio.Task[Page]:
        after = page.events[-1].position if page is not None else cohort.position
        return asyncio.create_task(self._log.read_all(after_position=after), name="read-log")

    async def _meet(self, cohort: Cohort) -> None:
        async with self.between:
            await self.cohort.settle()
            while cohort.targets and cohort.position < self.cohort.position:
                page = await self._log.read_all(after_position=cohort.position)
                await cohort.project(
                    [each for each in page.events if each.position <= self.cohort.position]
                )
            await cohort.settle()
            # One may be here by now: its copy took its place while it waited to come in.
            self.cohort.targets += [
                each for each in cohort.targets if each not in self.cohort.targets
            ]
