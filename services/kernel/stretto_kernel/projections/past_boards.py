"""Blackboards as of a moment, from the view: what one version shows never changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from stretto_core.clock import Clock
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, RunId

from stretto_kernel.app.board_calls import EntryPage, EntryQuery
from stretto_kernel.app.moments import Moment, Then, find_moment
from stretto_kernel.projections.blackboard import BLACKBOARD, BoardRow, entry_of
from stretto_kernel.projections.view_reach import ViewReach


class BoardRows(NamedTuple):
    """Some entries as of a version, and whether there are more. position: of the view, at least."""

    position: int
    rows: Sequence[BoardRow] = ()
    more: bool = False


class PastBoardView(Protocol):
    """The view `blackboard`. Every method raises Unavailable; rows are in the order of keys."""

    async def keys_as_of(self, run_id: RunId, version: int, keys: Collection[str]) -> BoardRows:
        """Return those of some entries that were there."""
        ...

    async def entries_as_of(
        self, run_id: RunId, version: int, query: EntryQuery, count_max: int
    ) -> BoardRows:
        """Return entries that were there."""
        ...


class PastBoards:
    """Reads blackboards of one partition as they were."""

    def __init__(self, log: EventLog, view: PastBoardView, reach: ViewReach, clock: Clock) -> None:
        self._log = log
        self._view = view
        self._reach = reach
        self._clock = clock

    async def get(
        self, namespace: Namespace, run_id: RunId, moment: Moment, keys: Sequence[str]
    ) -> EntryPage:
        """Return those of some entries that were there.

        Raises RunNotFound, OutOfRange, ViewBehind, StoreDown.
        """
        then = await self._find(namespace, run_id, moment)
        found = await self._reach.read(
            then.position,
            [BLACKBOARD],
            lambda: self._view.keys_as_of(run_id, then.version, keys),
        )
        entries = {row.key: entry_of(row) for row in found.rows}
        there = [entries[key] for key in keys if key in entries]
        return EntryPage(then.version, there, more=False)

    async def list_entries(
        self,
        namespace: Namespace,
        run_id: RunId,
        moment: Moment,
        query: EntryQuery,
        *,
        count_max: int,
    ) -> EntryPage:
        """Return a page of entries. Raises what `get` does."""
        then = await self._find(namespace, run_id, moment)
        found = await self._reach.read(
            then.position,
            [BLACKBOARD],
            lambda: self._view.entries_as_of(run_id, then.version, query, count_max),
        )
        return EntryPage(then.version, [entry_of(row) for row in found.rows], found.more)

    async def _find(self, namespace: Namespace, run_id: RunId, moment: Moment) -> Then:
        return await find_moment(self._log, namespace, run_id, moment, self._clock.now_ns())
