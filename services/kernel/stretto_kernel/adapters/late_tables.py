"""Tables that are made at their first use: a kernel's start waits for none of them, and an
installation that needs none has none.
"""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.sql import Composed
from stretto_core.eventlog.postgres.schema import LOCK_INITIALISATION

from stretto_kernel.adapters.database_lane import Connection


class LateTables:
    """Tables that stand together, by the statements `exists` and `create` of their file."""

    def __init__(self, statements: Mapping[str, Composed]) -> None:
        self._exists = statements["exists"]
        self._create = statements["create"]
        self._are_known = False

    def are_there(self, connection: Connection) -> bool:
        """Return whether the tables exist; asks no more once they do."""
        if not self._are_known:
            row = connection.execute(self._exists).fetchone()
            self._are_known = bool(row and row[0])
        return self._are_known

    def make(self, connection: Connection) -> None:
        """Make the tables if they are not there; another process may do so at the same time."""
        if self._are_known:
            return
        with connection.transaction():
            connection.execute(LOCK_INITIALISATION)
            if not self.are_there(connection):
                connection.execute(self._create)
        self._are_known = True
