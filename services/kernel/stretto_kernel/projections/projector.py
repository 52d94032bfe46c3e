"""The projector: keeps every view of a partition in step with the log, and makes views again.

Views that are at the same position are folded together. One that is behind (it is new, or stood
still) catches up beside the others and joins them between two batches; so does a fresh copy. Each
batch's rows and positions are stored in one transaction onto the position they follow: a crash
repeats nothing and loses nothing, and a second projector, or one whose newest batches went with a
crash of the server, reads on from where the views are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import structlog
from stretto_core.errors import Unavailable
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.port import EventLog

from stretto_kernel.app.snapshots import Snapshots
from stretto_kernel.projections.cohort import Cohort
from stretto_kernel.projections.fold_keeper import FoldKeeper
from stretto_kernel.projections.fresh_folds import FreshFoldStore
from stretto_kernel.projections.lead import Lead
from stretto_kernel.projections.run_folds import TASKS_MAX, RunFolds
from stretto_kernel.projections.store import PositionMoved, Target, ViewStore
from stretto_kernel.projections.view import View

AGAIN_S = 0.2


class Projector:
    """Keeps the views of one partition.

    fresh: where fresh folds are asked for; None = none are. rebuilt: told the names of views that
    a fresh fold has replaced. tasks_max: see `RunFolds`. snapshots: of large runs; None = none are
    made. Only what follows the end of the log uses them: a fresh fold is one from the first event.
    """

    def __init__(
        self,
        log: EventLog,
        store: ViewStore,
        views: Sequence[View],
        codec: Codec,
        *,
        fresh: FreshFoldStore | None = None,
        rebuilt: Callable[[Collection[str]], None] = lambda _: None,
        tasks_max: int = TASKS_MAX,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._log = log
        self._snapshots = snapshots
        self._store = store
        self._targets = [Target(view) for view in views]
        self._codec = codec
        self._fresh = fresh
        self._rebuilt = rebuilt
        self._tasks_max = tasks_max
        self._logger = structlog.get_logger("stretto.kernel.projector")

    async def run(self) -> None:
        """Follow the log until cancelled; a store that is down is tried again."""
        while True:
            try:
                await self._keep()
            except* (Unavailable, PositionMoved) as causes:
                kinds = sorted({type(cause).__name__ for cause in causes.exceptions})
                self._logger.info("projector.again", causes=kinds)
            await asyncio.sleep(AGAIN_S)

    async def _keep(self) -> None:
        positions = await self._positions()
        furthest = max(positions.values(), default=0)
        by_position: dict[int, list[Target]] = {furthest: []}
        for target, position in positions.items():
            by_position.setdefault(position, []).append(target)
        first = self._cohort(by_position.pop(furthest), furthest, self._snapshots)
        lead = Lead(self._log, first)
        async with asyncio.TaskGroup() as group:
            group.create_task(lead.follow(), name="follow-log")
            for position, targets in by_position.items():
                group.create_task(lead.join(self._cohort(targets, position)), name="catch-up")
            if self._fresh is not None:
                keeper = FoldKeeper(self._store, self._fresh, lead, self._targets, self._cohort)
                keeper.rebuilt = self._rebuilt
                group.create_task(keeper.run(), name="fresh-folds")

    async def _positions(self) -> Mapping[Target, int]:
        last = await self._log.position()
        positions = await self._store.prepare(self._targets)
        # A view of a future that the record, restored, does not have.
        beyond = [target for target, position in positions.items() if position > last]
        if beyond:
            await self._store.empty(beyond)
            positions = await self._store.prepare(self._targets)
        return positions

    def _cohort(
        self, targets: Iterable[Target], position: int, snapshots: Snapshots | None = None
    ) -> Cohort:
        folds = RunFolds(self._codec, tasks_max=self._tasks_max)
        return Cohort(self._log, self._store, folds, targets, position, snapshots=snapshots)
