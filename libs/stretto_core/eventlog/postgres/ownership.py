"""The right to append to one partition in PostgreSQL, for the loop: one thread runs the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from stretto_core.eventlog.port import PartitionMoved, Settlement
from stretto_core.eventlog.postgres.one_thread import OneThread
from stretto_core.eventlog.postgres.owner_session import OwnerSession
from stretto_core.eventlog.recorded import NewEvent

R = TypeVar("R")


class PostgresOwnedLog:
    """One ownership of one partition; made by `acquire`. See `OwnedLog` for every method."""

    def __init__(self, session: OwnerSession) -> None:
        self._session = session
        self._thread = OneThread("log-writer")
        self._released = False

    @classmethod
    async def acquire(cls, session: OwnerSession) -> PostgresOwnedLog:
        """Own the partition through `session`. Raises PartitionHeld, StoreDown."""
        owned = cls(session)
        try:
            await owned._in_thread(session.acquire)
        except BaseException:
            await owned.release()
            raise
        return owned

    @property
    def owner_epoch(self) -> int:
        """The epoch the next append presents."""
        return self._session.owner_epoch

    @property
    def session(self) -> OwnerSession:
        """What the thread runs; a test looks up its server process there."""
        return self._session

    async def append(self, events: Sequence[NewEvent]) -> tuple[int, ...]:
        """See `OwnedLog.append`."""
        return await self._in_thread(lambda: self._session.append(events))

    async def settle(self, events: Sequence[NewEvent]) -> Settlement:
        """See `OwnedLog.settle`."""
        return await self._in_thread(lambda: self._session.settle(events))

    async def probe(self) -> None:
        """See `OwnedLog.probe`."""
        await self._in_thread(self._session.probe)

    async def release(self) -> None:
        """See `OwnedLog.release`; a call under way gets a moment, then fails as unknown."""
        if self._released:
            return
        self._released = True
        closing = self._thread.run(self._session.close)
        done, _ = await asyncio.wait([closing], timeout=self._session.options.release_wait_s)
        if not done:
            # A server that has stopped answering must not keep this process from ending.
            self._session.break_connection()
        await closing
        self._thread.close()

    async def _in_thread(self, call: Callable[[], R]) -> R:
        if self._released:
            raise PartitionMoved("the partition was released")
        return await self._thread.run(call)
