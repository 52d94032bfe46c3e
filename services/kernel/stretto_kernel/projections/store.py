"""Where views are kept: the port of the projector. Adapters: PostgreSQL, and memory for tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stretto_kernel.projections.view import Row, View

COPY = "_copy"
"""After the name of a view's table: the fresh copy that is built beside it."""


class PositionMoved(Exception):
    """A view is not where this projector left it: another one is at work, or rows were lost."""


class RowsRefused(Exception):
    """A table does not take the rows of a batch, now or ever: they, or what is there, are wrong."""

    def __init__(self, target: Target, message: str) -> None:
        super().__init__(message)
        self.target = target


@dataclass(frozen=True, slots=True)
class Target:
    """A view's table, or the fresh copy that is built beside it."""

    view: View
    is_copy: bool = False

    @property
    def table(self) -> str:
        """The table, and the name of its follower."""
        return f"{self.view.table}{COPY}" if self.is_copy else self.view.table


class Change(NamedTuple):
    """Rows of a table that changed; each key once."""

    target: Target
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a view stands still: before which event, a stable word, and a sentence."""

    position: int
    reason: str
    message: str


class ViewStore(Protocol):
    """Keeps the rows of views and how far each is. Every method raises Unavailable."""

    async def prepare(self, targets: Collection[Target]) -> Mapping[Target, int]:
        """Make the tables that are missing, empty; return how far each is."""
        ...

    async def empty(self, targets: Collection[Target]) -> None:
        """Drop the tables and forget how far they were. Idempotent."""
        ...

    async def save(
        self, changes: Sequence[Change], *, after: int, position: int, event_count: int
    ) -> None:
        """Store rows and position in one transaction onto tables that are all at `after`.

        event_count: of the events that were taken in between. Raises PositionMoved, RowsRefused.
        """
        ...

    async def note_stop(self, target: Target, stop: Stop) -> None:
        """Say that a view stands still."""
        ...

    async def note_following(self, targets: Collection[Target]) -> None:
        """Say that views do not stand still (any more)."""
        ...
