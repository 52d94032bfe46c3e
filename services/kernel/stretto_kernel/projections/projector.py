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
from typing import Protocol

import structlog
from stretto_core.errors import Unavailable
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import RunId

from stretto_kernel.projections.run_index import RunIndexFold, RunRow

FOLD_PAGE_EVENTS = 1_000
FOLD_SLICE_EVENTS = 200
AGAIN_S = 0.2


class PositionMoved(Exception):
    """The view is not where this projector left it: another one is at work, or rows were lost."""


class RunIndexStore(Protocol):
    """Where the rows of the view and the follower's position are kept."""

    async def prepare(self) -> None:
        """Make the table if it is missing. Raises Unavailable."""
        ...

    async def position(self) -> int:
        """Up to which position the view is done. Raises Unavailable."""
        ...

    async def save(self, rows: Sequence[RunRow], *, after: int, position: int) -> None:
        """Store rows and position in one transaction onto a view that is at `after`.

        Raises PositionMoved, Unavailable.
        """
        ...


class Projector:
    """Keeps the view `run_index` of one partition."""

    def __init__(self, log: EventLog, store: RunIndexStore, fold: RunIndexFold) -> None:
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
        self._fold.forget_all()
        position = await self._store.position()
        async with aclosing(self._log.subscribe(after_position=position)) as batches:
            async for batch in batches:
                await self._project(batch, after=position)
                position = batch[-1].position

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
        run_id = RunId(stored.stream)
        while (version := self._fold.version_of(run_id)) + 1 < stored.version:
            limit = min(stored.version - 1 - version, FOLD_PAGE_EVENTS)
            page = await self._log.read_stream(stored.stream, after_version=version, limit=limit)
            for event in page.events:
                self._fold.apply(event)
