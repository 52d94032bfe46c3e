"""Knows how the views stand, a few seconds late at most: for metrics and health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from stretto_core.errors import Unavailable

from stretto_kernel.projections.view_calls import Standing, ViewCalls

LOOK_S = 10.0


class ViewWatch:
    """Looks at the views every few seconds. changed: is told whether all of them follow."""

    def __init__(self, calls: ViewCalls, changed: Callable[[bool], Awaitable[None]]) -> None:
        self._calls = calls
        self._changed = changed
        self._log = structlog.get_logger("stretto.kernel.views")
        self.standing = Standing(0, ())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                self.standing = await self._calls.standing()
            except Unavailable as cause:
                self._log.info("views.not_known", cause=cause.reason_word)
            else:
                await self._changed(not any(view.stop for view in self.standing.views))
            await asyncio.sleep(LOOK_S)

    def position(self, name: str) -> float:
        """How far a view has followed the log."""
        return next((view.position for view in self.standing.views if view.view.name == name), 0)

    def is_stopped(self, name: str) -> bool:
        """Whether a view stands still before an event that it cannot take."""
        return any(view.stop for view in self.standing.views if view.view.name == name)
