"""The view `run_index` in memory: what the database keeps for the projector and the recovery.

Rows and position are stored together and outlive the processes, like a table. A reader may find the
view at any earlier moment: it trails the log as far as the projector does.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.ids import RunId
from stretto_core.testing.process import Process
from stretto_kernel.app.background_folds import NO_DEADLINE_NS
from stretto_kernel.app.recovery import ActiveRun, ActiveRuns
from stretto_kernel.app.run_listing import ListedRun, RunFilter, RunListPage
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import PositionMoved, Projector
from stretto_kernel.projections.run_index import RunIndexFold, RunRow


class MemoryRunIndex:
    """Implements ViewStore, RunIndex and RunList."""

    def __init__(self) -> None:
        self.rows: dict[RunId, RunRow] = {}
        self._position = 0

    async def prepare(self) -> None:
        """See `ViewStore`."""

    async def position(self) -> int:
        """See `ViewStore`."""
        return self._position

    async def save(self, rows: Sequence[RunRow], *, after: int, position: int) -> None:
        """See `ViewStore`."""
        if after != self._position:
            raise PositionMoved
        self._position = position
        self.rows.update((row.run_id, row) for row in rows)

    async def active_runs(self) -> ActiveRuns:
        """See `RunIndex`."""
        runs = tuple(
            ActiveRun(
                row.run_id,
                NO_DEADLINE_NS if row.next_due_ns is None else row.next_due_ns,
                row.queues,
            )
            for row in self.rows.values()
            if not row.ended
        )
        return ActiveRuns(self._position, runs)

    async def list_runs(self, found: RunFilter, *, count_max: int) -> RunListPage:
        """See `RunList`: the newest runs, whatever else is asked."""
        rows = sorted(self.rows.values(), key=lambda row: (-row.create_ns, row.run_id))
        listed = [ListedRun(row.run_id, row.create_ns, row.shown) for row in rows[:count_max]]
        return RunListPage(self._position, listed, more=len(rows) > count_max)


def start_projector(process: Process, store: MemoryStore, index: MemoryRunIndex) -> None:
    """Let `process` keep the view."""
    # Few runs are kept folded, so that they are folded again from the log now and then.
    projector = Projector(MemoryLog(store), index, RunIndexFold(RUN_CODEC, runs_max=2))
    process.spawn(projector.run())


async def rebuilt(store: MemoryStore) -> dict[RunId, RunRow]:
    """Return the rows as one pass over the whole log makes them."""
    fold = RunIndexFold(RUN_CODEC)
    for event in store.events:
        fold.apply(event)
    return {row.run_id: row for row in fold.take_rows()}
