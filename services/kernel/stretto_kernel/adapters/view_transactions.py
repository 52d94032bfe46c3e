"""Transactions over the connections that views, their positions and snapshots share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from eventsourcing.persistence import PersistenceError
from psycopg import Cursor, Error
from psycopg.rows import DictRow
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.tracking import TrackingRecorder

R = TypeVar("R")


async def transact(
    tracking: TrackingRecorder, work: Callable[[Cursor[DictRow]], R], *, commit: bool
) -> R:
    """Return what `work` returns, in a transaction of its own and in a thread. Raises StoreDown."""

    def do() -> R:
        try:
            with tracking.datastore.transaction(commit=commit) as cursor:
                return work(cursor)
        except (PersistenceError, Error) as error:
            raise StoreDown(f"the views cannot be reached: {error}") from error

    return await asyncio.to_thread(do)
