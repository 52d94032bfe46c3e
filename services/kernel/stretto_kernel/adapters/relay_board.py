"""Where it is written that the relay stands still: beside the views that do."""

from __future__ import annotations

from stretto_kernel.adapters.view_tables import ViewTables, common_statements
from stretto_kernel.relay.place import RELAY


class RelayBoardTable:
    """Implements RelayBoard over the tables of the views."""

    def __init__(self, tables: ViewTables) -> None:
        self._tables = tables
        self._common = common_statements(tables.schema)

    async def note_stop(self, position: int, reason: str, message: str) -> None:
        """See `RelayBoard`."""
        noted = {"view": RELAY, "position": position, "reason": reason, "message": message}

        await self._tables.transact(
            lambda cursor: (
                cursor.execute(self._common["create"]),
                cursor.execute(self._common["stop"], noted),
            )
        )

    async def note_following(self) -> None:
        """See `RelayBoard`."""
        await self._tables.transact(
            lambda cursor: (
                cursor.execute(self._common["create"]),
                cursor.execute(self._common["follow"], {"views": [RELAY]}),
            )
        )
