"""Where it is written that the relay stands still: beside the views that do."""

from __future__ import annotations

from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.projections.store import Stop
from stretto_kernel.relay.place import RELAY


class RelayBoardTable:
    """Implements RelayBoard over the tables of the views."""

    def __init__(self, tables: ViewTables) -> None:
        self._tables = tables

    async def note_stop(self, position: int, reason: str, message: str) -> None:
        """See `RelayBoard`."""
        await self._tables.note_beside(RELAY, Stop(position, reason, message))

    async def note_following(self) -> None:
        """See `RelayBoard`."""
        await self._tables.note_beside(RELAY, None)
