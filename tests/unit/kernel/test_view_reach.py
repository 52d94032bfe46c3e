"""Waiting for views on virtual time: who waits shares the looks, and nobody waits for what is not
in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import pytest
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import EventId, Partition, StreamId
from stretto_core.testing.seeded import random_for
from stretto_core.testing.virtual_loop import VirtualLoop
from stretto_kernel.app.moments import BeyondTheLog
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.view_reach import LOOK_S, REACH_S, ViewBehind, ViewReach

from tests.waiting import until

HEAD = 10
BOTH = VIEWS[:2]


class Found(NamedTuple):
    """What was read of views that are there."""

    position: int


class Views:
    """Views that follow when they are told to; counts what is asked of them."""

    def __init__(self, reach_of: Callable[[Views], ViewReach]) -> None:
        self.positions = {view.table: 1 for view in BOTH}
        self.look_count = 0
        self.read_count = 0
        self._reach = reach_of(self)

    async def places(self) -> Mapping[str, int]:
        """See `ViewPlaces`."""
        self.look_count += 1
        return dict(self.positions)

    async def _read(self) -> Found:
        self.read_count += 1
        return Found(min(self.positions.values()))

    async def read(self, position: int) -> Found:
        """Read both once they are there."""
        return await self._reach.read(position, BOTH, self._read)


def run(work: Callable[[Views], Awaitable[None]]) -> float:
    """Return how long `work` took, in seconds of virtual time."""
    loop = VirtualLoop(random_for(1, "order"))

    async def main() -> float:
        log = MemoryLog(MemoryStore(Partition("p0")))
        owned = await log.acquire()
        versions = range(1, HEAD + 1)
        await owned.append(
            [NewEvent(StreamId("s"), each, EventId(""), "any", b"", b"") for each in versions]
        )
        views, began_s = Views(lambda views: ViewReach(log, views)), loop.time()
        await work(views)
        return loop.time() - began_s

    took_s: float = loop.run(main())
    return took_s


def test_views_that_are_there_are_read_once_and_never_looked_for() -> None:
    async def work(views: Views) -> None:
        assert await views.read(1) == Found(1)
        assert (views.read_count, views.look_count) == (1, 0)

    assert run(work) == 0


def test_however_many_wait_there_is_one_look_at_a_time_and_a_second_read_each() -> None:
    waiting_count = 200

    async def work(views: Views) -> None:
        waiting = [asyncio.create_task(views.read(HEAD)) for _ in range(waiting_count)]
        await until(lambda: views.look_count == 3)
        views.positions[BOTH[0].table] = HEAD  # One of the two is not enough.
        await until(lambda: views.look_count == 4)
        views.positions[BOTH[1].table] = HEAD
        assert await asyncio.gather(*waiting) == [Found(HEAD)] * waiting_count
        assert views.look_count == 5
        assert views.read_count == 2 * waiting_count

    assert run(work) == pytest.approx(5 * LOOK_S)


def test_views_that_do_not_come_are_said_to_be_behind() -> None:
    async def work(views: Views) -> None:
        with pytest.raises(ViewBehind) as refused:
            await views.read(HEAD)
        assert refused.value.metadata == {"position": "1", "asked": str(HEAD)}
        assert refused.value.retry_delay_ms is not None

    assert run(work) == pytest.approx(REACH_S, abs=LOOK_S)


def test_nobody_waits_for_what_the_log_does_not_have() -> None:
    async def work(views: Views) -> None:
        with pytest.raises(BeyondTheLog):
            await views.read(HEAD + 1)
        assert views.look_count == 0

    assert run(work) == 0


def test_who_gives_up_ends_nobody_elses_wait() -> None:
    async def work(views: Views) -> None:
        first, second = (asyncio.create_task(views.read(HEAD)) for _ in range(2))
        await until(lambda: views.read_count == 2)
        first.cancel()
        views.positions = {view.table: HEAD for view in BOTH}
        assert await second == Found(HEAD)
        assert first.cancelled()

    assert run(work) == pytest.approx(LOOK_S)
