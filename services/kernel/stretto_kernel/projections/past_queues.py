"""Queues as the record knows them: read from the view `queues`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from stretto_kernel.projections.queues import QUEUES, QueueRow
from stretto_kernel.projections.view_reach import ViewReach


class QueuesSeen(NamedTuple):
    """Some queues by name, as of a position at least."""

    position: int
    rows: Mapping[str, QueueRow]


class QueueRows(Protocol):
    """The view. Methods return nothing at position 0 while there is none, and raise Unavailable."""

    async def queues_named(self, queues: Sequence[str]) -> QueuesSeen:
        """Return those of these queues that the view knows."""
        ...

    async def queues_after(self, queue: str, *, count_max: int) -> QueuesSeen:
        """Return the first queues whose names follow one, in their order."""
        ...


class PastQueues:
    """Reads the view of one partition once it has reached a position.

    Methods raise BeyondTheLog, ViewBehind, StoreDown.
    """

    def __init__(self, view: QueueRows, reach: ViewReach) -> None:
        self._view = view
        self._reach = reach

    async def named(self, queues: Sequence[str], least: int) -> QueuesSeen:
        """Return those of these queues that the view knows."""
        return await self._reach.read(least, [QUEUES], lambda: self._view.queues_named(queues))

    async def page(self, *, after: str, count_max: int, least: int) -> QueuesSeen:
        """Return the first queues whose names follow `after`, in their order."""
        return await self._reach.read(
            least, [QUEUES], lambda: self._view.queues_after(after, count_max=count_max)
        )
