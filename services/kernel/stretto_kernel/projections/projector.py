"""The batch projector: follows the log and keeps a view, in batches.

Each batch's rows and the follower's position are stored in one transaction, so that a crash
between two batches repeats nothing and loses nothing. A batch is stored only onto the position it
follows: a second projector of the same view, or one whose newest batches went with a crash of the
server, is refused and reads on from where the view is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

import structlog
from stretto_core.errors import Unavailable
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent

Row = TypeVar("Row")
RowIn_contra = TypeVar("RowIn_contra", contravariant=True)
RowOut_co = TypeVar("RowOut_co", covariant=True)
FOLD_PAGE_EVENTS = 1_000
FOLD_SLICE_EVENTS = 200
AGAIN_S = 0.2
PACE_S = 0.05
"""Between the beginnings of two batches, unless the first was full: what comes in between is one
batch, and a run that began and ended in it is one row. The first event after a rest waits for none.
"""
FULL_BATCH_EVENTS = 500


class PositionMoved(Exception):
    """The view is not where this projector left it: another one is at work, or rows were lost."""


class ViewFold(Protocol[RowOut_co]):
    """What events mean for a view: pure."""

    def forget_all(self) -> None:
        """Forget everything folded: what was changed may not have been stored."""
        ...

    def missing_after(self, stored: StoredEvent) -> int | None:
        """After which version of its stream the events before this one are needed; None: none."""
        ...

    def apply(self, stored: StoredEvent) -> None:
        """Fold the event; one that is folded already changes nothing."""
        ...

    def take_rows(self) -> Sequence[RowOut_co]:
        """Return the rows changed since the last call."""
        ...


class ViewStore(Protocol[RowIn_contra]):
    """Where the rows of a view and the follower's position are kept."""

    async def prepare(self) -> None:
        """Make the table if it is missing. Raises Unavailable."""
        ...

    async def position(self) -> int:
        """Up to which position the view is done. Raises Unavailable."""
        ...

    async def save(self, rows: Sequence[RowIn_contra], *, after: int, position: int) -> None:
        """Store rows and position in one transaction onto a view that is at `after`.

        Raises PositionMoved, Unavailable.
        """
        ...


class Projector(Generic[Row]):
    """Keeps one view of one partition."""

    def __init__(self, log: EventLog, store: ViewStore[Row], fold: ViewFold[Row]) -> None:
        self._log = log
        self._store = store
        self._fold = fold
        self._logger = structlog.get_logger("stretto.kernel.projector")

    async def run(self) -> None:
        """Follow the log until cancelled; a store that is down is tried again."""
        while True:
            try:
                await self._store.prepare()
                await self._follow()
            except (Unavailable, PositionMoved) as cause:
                self._logger.info("projector.again", cause=type(cause).__name__)
                await asyncio.sleep(AGAIN_S)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        self._fold.forget_all()
        position = await self._store.position()
        async with aclosing(self._log.subscribe(after_position=position)) as batches:
            async for batch in batches:
                next_s = loop.time() + PACE_S
                await self._project(batch, after=position)
                position = batch[-1].position
                if len(batch) < FULL_BATCH_EVENTS:
                    await asyncio.sleep(next_s - loop.time())

    async def _project(self, batch: Sequence[StoredEvent], *, after: int) -> None:
        for index, stored in enumerate(batch, start=1):
            await self._catch_up(stored)
            self._fold.apply(stored)
            if index % FOLD_SLICE_EVENTS == 0:
                await asyncio.sleep(0)
        rows = self._fold.take_rows()
        await self._store.save(rows, after=after, position=batch[-1].position)

    async def _catch_up(self, stored: StoredEvent) -> None:
        """Fold what comes before the event, when its run is not in the cache."""
        while (version := self._fold.missing_after(stored)) is not None:
            limit = min(stored.version - 1 - version, FOLD_PAGE_EVENTS)
            page = await self._log.read_stream(stored.stream, after_version=version, limit=limit)
            for event in page.events:
                self._fold.apply(event)
