"""Where it is written that chores of the projector fail: beside the views that stand still."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.rows import DictRow

from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.app.chores import FailingChore
from stretto_kernel.projections.store import Stop

PREFIX = "chore:"
"""No view's table has a colon."""


class ChoreBoardTable:
    """Implements ChoreBoard over the tables of the views."""

    def __init__(self, tables: ViewTables) -> None:
        self._tables = tables

    async def note_failing(self, name: str, message: str) -> None:
        """See `ChoreBoard`."""
        await self._tables.note_beside(PREFIX + name, Stop(0, "INTERNAL", message))

    async def note_well(self, name: str) -> None:
        """See `ChoreBoard`."""
        await self._tables.note_beside(PREFIX + name, None)


def failing_chores(stops: Mapping[str, DictRow]) -> tuple[FailingChore, ...]:
    """Return those that are among what stands still, by name."""
    return tuple(
        FailingChore(
            name.removeprefix(PREFIX), row["message"], int(row["stop_time"].timestamp() * 1e9)
        )
        for name, row in sorted(stops.items())
        if name.startswith(PREFIX)
    )
