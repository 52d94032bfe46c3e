"""Views trail the log: how one that has not reached a position is waited for, and what is said of
one that does not come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, TypeVar

from stretto_core.errors import Unavailable
from stretto_core.eventlog.port import EventLog

from stretto_kernel.app.moments import require_within
from stretto_kernel.projections.view import View

REACH_S = 1.0
"""So long a view is waited for; a projector that is well needs a tenth of it."""
LOOK_S = 0.02


class ViewBehind(Unavailable):
    """The view has not reached the position asked for: try again."""

    reason = "VIEW_BEHIND"


class ViewPlaces(Protocol):
    """How far views have followed the log."""

    async def places(self) -> Mapping[str, int]:
        """Return the position of each view by its table. Raises Unavailable."""
        ...


class OfView(Protocol):
    """What was read of views."""

    @property
    def position(self) -> int:
        """How far the views were at least; 0 = there are none."""
        ...


Read = TypeVar("Read", bound=OfView)


class ViewReach:
    """Reads views of one partition once they have reached a position.

    However many wait, one of them looks where the views are.
    """

    def __init__(self, log: EventLog, views: ViewPlaces) -> None:
        self._log = log
        self._views = views
        self._looking: asyncio.Task[Mapping[str, int]] | None = None

    async def read(
        self, position: int, views: Collection[View], read: Callable[[], Awaitable[Read]]
    ) -> Read:
        """Return what `read` returns of these views once they have reached a position.

        `read` is called at most twice. Raises BeyondTheLog, ViewBehind, StoreDown.
        """
        found = await read()
        if found.position >= position:
            return found
        await require_within(self._log, position)
        await self._wait(position, views)
        found = await read()
        if found.position < position:
            at = str(found.position)
            raise ViewBehind("the view is behind", position=at, asked=str(position))
        return found

    async def _wait(self, position: int, views: Collection[View]) -> None:
        """Return once the views are there, or the time is over."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + REACH_S
        while loop.time() < give_up_s:
            places = await self._next_look()
            if all(places.get(view.table, 0) >= position for view in views):
                return

    async def _next_look(self) -> Mapping[str, int]:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="view-reach")
        return await asyncio.shield(self._looking)

    async def _look(self) -> Mapping[str, int]:
        try:
            await asyncio.sleep(LOOK_S)
            return await self._views.places()
        finally:
            self._looking = None  # Who comes now wants a later look.
