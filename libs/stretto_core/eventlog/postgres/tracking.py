"""How far each follower of a partition is: the library's tracking records.

Views update their rows and their tracking records in one transaction: `move_in` takes their own
cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from stretto_core.eventlog.postgres.schema import TRACKING_TABLE


class TrackingRecorder(PostgresTrackingRecorder):
    """Records the positions of one partition's followers."""

    def __init__(self, datastore: PostgresDatastore) -> None:
        super().__init__(datastore, tracking_table_name=TRACKING_TABLE)
        assert datastore.single_row_tracking, "a follower has one row, which is compared and set"
        table = Identifier(datastore.schema, TRACKING_TABLE)
        self._move = SQL(
            "UPDATE {} SET notification_id = %(position)s"
            " WHERE application_name = ANY(%(names)s::text[]) AND notification_id = %(expected)s"
        ).format(table)
        self._make_known = SQL(
            "INSERT INTO {} SELECT name, 0 FROM unnest(%(names)s::text[]) AS name"
            " ON CONFLICT (application_name) DO NOTHING"
        ).format(table)

    def save(self, name: str, position: int) -> None:
        """Record that `name` is done up to `position`; an older position changes nothing."""
        with suppress(IntegrityError):
            self.insert_tracking(Tracking(name, position))

    def move(self, name: str, position: int, *, expected: int) -> bool:
        """Set the place of `name`, also back, if it is at `expected`; return whether it was."""
        with self.datastore.transaction(commit=True) as cursor:
            return self.move_in(cursor, [name], position, expected=expected)

    def move_in(
        self, cursor: Cursor[DictRow], names: Sequence[str], position: int, *, expected: int
    ) -> bool:
        """Set the places of all of `names` in the caller's transaction if they are at `expected`.

        Returns whether all were; if not, another process does the same work: roll back.
        """
        moved = {"names": list(names), "position": position, "expected": expected}
        if expected == 0:
            cursor.execute(self._make_known, moved)
        return cursor.execute(self._move, moved, prepare=True).rowcount == len(names)
