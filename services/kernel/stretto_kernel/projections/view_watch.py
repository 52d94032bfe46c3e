"""Knows how the views stand, a few seconds late at most: for metrics and health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from stretto_core.errors import Unavailable

from stretto_kernel.projections.view_calls import Standing, ViewCalls

LOOK_S = 10.0


class ViewWatch:
    """Looks at the views and the relay every few seconds. changed: is told whether all follow."""

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
                await self._changed(self.standing.all_follow)
            await asyncio.sleep(LOOK_S)

    def position(self, name: str) -> float:
        """How far a view has followed the log."""
        return next((view.position for view in self.standing.views if view.view.name == name), 0)

    def events_missing(self, name: str) -> float:
        """How many events of the log up to its position a view was not given."""
        for view in self.standing.views:
            if view.view.name == name and view.event_count is not None:
                return view.log_event_count - view.event_count
        return 0

    @property
    def relay_position(self) -> float:
        """Up to where the bus has everything."""
        return self.standing.relay.position if self.standing.relay else 0

    @property
    def relay_behind(self) -> float:
        """How far the relay is behind the log, in positions."""
        if self.standing.relay is None:
            return 0
        return max(0, self.standing.log_position - self.standing.relay.position)

    @property
    def is_relay_stopped(self) -> bool:
        """Whether the relay stands still before an event that is damaged."""
        return bool(self.standing.relay and self.standing.relay.stop)

    def is_stopped(self, name: str) -> bool:
        """Whether a view stands still before an event that it cannot take."""
        return any(view.stop for view in self.standing.views if view.view.name == name)
