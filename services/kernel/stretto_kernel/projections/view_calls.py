"""What callers can ask of views: how they stand, and a fresh fold of them.

The projector does the folding, in another process: here is only written down what is asked, and
read how far it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from stretto_core.errors import Exhausted, FailedPrecondition, NotFound, Unavailable
from stretto_core.ids import IdSource

from stretto_kernel.app.chores import FailingChore
from stretto_kernel.app.moments import refuse_beyond
from stretto_kernel.projections.fresh_folds import FreshFold
from stretto_kernel.projections.registry import BY_NAME, VIEWS
from stretto_kernel.projections.store import Stop
from stretto_kernel.projections.view import View

LOOK_S = 0.25
CALLERS_MAX = 16


class UnknownView(NotFound):
    """This version has no view of that name."""


class NoRelay(NotFound):
    """Nothing has ever been relayed: the suite has no bus."""


class RebuildRuns(FailedPrecondition):
    """Another fresh fold is at work."""

    reason = "REBUILD_RUNS"


class TooManyCallers(Exhausted):
    """As many callers as are served wait for fresh folds."""

    reason = "OVERLOADED"


@dataclass(frozen=True, slots=True)
class ViewStanding:
    """How one view stands.

    row_count: about. event_count: of what it was given; None = it was made before these were
    counted. log_event_count: of the log up to its position.
    """

    view: View
    exists: bool
    position: int
    row_count: int
    stop: Stop | None
    stop_time_ns: int
    event_count: int | None = None
    log_event_count: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether it was given as many events as the log has."""
        return self.event_count is None or self.event_count == self.log_event_count


@dataclass(frozen=True, slots=True)
class RelayStanding:
    """How the relay stands: up to where the bus has everything."""

    position: int
    stop: Stop | None = None
    stop_time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How the views and the relay of a partition stand, and where its log ends.

    relay: None = none has ever run. snapshot_count, snapshot_bytes: of the folds of large runs.
    failing_chores: of the projector.
    """

    log_position: int
    views: tuple[ViewStanding, ...]
    relay: RelayStanding | None = None
    snapshot_count: int = 0
    snapshot_bytes: int = 0
    failing_chores: tuple[FailingChore, ...] = ()

    @property
    def all_follow(self) -> bool:
        """Whether nothing stands still."""
        return not any(view.stop for view in self.views) and not (self.relay and self.relay.stop)


class ViewBoard(Protocol):
    """Where it is written how views stand and what is asked of them. Methods raise Unavailable."""

    async def standing(self, views: Sequence[View]) -> Standing:
        """Return how views stand."""
        ...

    async def move_relay(self, position: int) -> None:
        """Set the relay's place."""
        ...

    async def ask(self, fold: FreshFold) -> FreshFold | None:
        """Write down what is asked unless one is open; return the open one."""
        ...

    async def read_fold(self, fold_id: str) -> FreshFold | None:
        """Return how far one is; None: nothing is known of it."""
        ...


class ViewCalls:
    """Answers for the views of one partition."""

    def __init__(self, board: ViewBoard, ids: IdSource) -> None:
        self._board = board
        self._ids = ids
        self._caller_count = 0

    async def standing(self) -> Standing:
        """Return how every view stands, by name. Raises Unavailable."""
        return await self._board.standing(sorted(VIEWS, key=lambda view: view.name))

    async def move_relay(self, after_position: int) -> RelayStanding:
        """Let the relay begin after a position. Raises NoRelay, BeyondTheLog, Unavailable."""
        standing = await self.standing()
        if standing.relay is None:
            raise NoRelay("no relay has ever run here")
        refuse_beyond(after_position, standing.log_position)
        await self._board.move_relay(after_position)
        return RelayStanding(after_position)

    async def fold(self, names: Sequence[str], *, swaps: bool) -> AsyncIterator[FreshFold]:
        """Ask for a fresh fold, and yield how far it is until it is done.

        Raises UnknownView, RebuildRuns, TooManyCallers, Unavailable.
        """
        for name in names:
            _require_known(name)
        views = tuple(view.name for view in VIEWS if view.name in names or not names)
        if self._caller_count >= CALLERS_MAX:
            raise TooManyCallers("too many callers wait for views", callers_max=str(CALLERS_MAX))
        self._caller_count += 1
        try:
            told = fold = await self._ask(views, swaps=swaps)
            yield fold
            while not fold.is_done:
                await asyncio.sleep(LOOK_S)
                found = await self._board.read_fold(fold.fold_id)
                if found is None:
                    raise Unavailable("what was asked is gone with the views: ask again")
                fold = found
                if fold != told:
                    told = fold
                    yield fold
        finally:
            self._caller_count -= 1

    async def _ask(self, views: tuple[str, ...], *, swaps: bool) -> FreshFold:
        asked = FreshFold(fold_id=self._ids.uuid7(), views=views, swaps=swaps)
        found = await self._board.ask(asked)
        while found is None:  # The one in the way has ended in between.
            found = await self._board.ask(asked)
        if (found.views, found.swaps) != (views, swaps):
            raise RebuildRuns(
                f"another {'rebuild' if found.swaps else 'comparison'} of "
                f"{', '.join(found.views)} is at work",
                views=",".join(found.views),
                fold_id=found.fold_id,
            )
        return found


def _require_known(name: str) -> None:
    if name in BY_NAME:
        return
    near = get_close_matches(name, BY_NAME, n=1)
    if near:
        raise UnknownView(f"no view {name!r}; did you mean {near[0]}?", view=name, nearest=near[0])
    raise UnknownView(f"no view {name!r}; there are {', '.join(sorted(BY_NAME))}", view=name)
