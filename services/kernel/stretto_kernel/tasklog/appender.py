"""Stores what lease holders write, in batches, beside the kernel's own work.

One batch is under way at a time and whatever comes meanwhile makes the next, so batches grow with
load by themselves. Nothing here is waited for by a lease, a renewal or an outcome. What waits is
bounded: beyond it callers are told to come again, and a store that is down is said at once, so that
a worker may drop what it cannot keep and say so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from stretto_core.clock import Clock
from stretto_core.errors import Refusal, Unavailable
from stretto_core.eventlog.port import StoreDown

from stretto_kernel.tasklog.book import Book, LeaseLimits
from stretto_kernel.tasklog.entries import (
    Entry,
    LeaseId,
    PositionTaken,
    TaskLogsOverloaded,
    TaskLogStore,
    Written,
)

PENDING_BYTES_MAX = 32 * 1024 * 1024
BATCH_BYTES_MAX = 4 * 1024 * 1024
LOOK_AGAIN_MAX = 3
CLOSE_S = 2.0


@dataclass(slots=True, eq=False)
class _Waiting:
    written: Sequence[Written]
    bytes_count: int
    stored: asyncio.Future[list[bool]]


class Appender:
    """Stores the logs of one kernel process. `published` hears of entries once they are stored."""

    def __init__(
        self,
        store: TaskLogStore,
        clock: Clock,
        limits: LeaseLimits,
        published: Callable[[Sequence[Entry]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._book = Book(limits)
        self._published = published
        self._waiting: deque[_Waiting] = deque()
        self._storing: asyncio.Task[None] | None = None
        self._newest: asyncio.Future[list[bool]] | None = None
        self._is_down = False
        self.pending_bytes = 0
        self.stored_bytes = 0
        self.refused_bytes = 0
        self._log = structlog.get_logger("stretto.kernel.tasklog")

    async def append(self, written: Sequence[Written]) -> list[bool]:
        """Return once all of it is stored: for each whether its lease's log is at its limit.

        Raises TaskLogsOverloaded, StoreDown: nothing of it is stored for sure; it may be repeated.
        """
        bytes_count = sum(len(chunk.content) for each in written for chunk in each.chunks)
        if self.pending_bytes and self.pending_bytes + bytes_count > PENDING_BYTES_MAX:
            self.refused_bytes += bytes_count
            raise TaskLogsOverloaded("too much of task logs waits to be stored")
        stored: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(written, bytes_count, stored))
        self.pending_bytes += bytes_count
        self._newest = stored
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_all(), name="task-logs")
        return await stored

    async def settled(self) -> None:
        """Return when all that came before is stored or refused."""
        if self._newest is not None and not self._newest.done():
            await asyncio.wait([self._newest])

    async def close(self) -> None:
        """Let what waits be stored, or refuse it when the store does not answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.settled()
        if self._storing is not None:
            self._storing.cancel()
        for waiting in self._waiting:
            _fail(waiting, Unavailable("the kernel is ending"))
        self._waiting.clear()

    async def _store_all(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                try:
                    await self._store_batch(batch)
                except Refusal as refusal:
                    self._refuse(batch, refusal)
                except Exception:
                    # Telemetry: a bug of ours here costs these lines, never the ones that follow.
                    self._log.error("task_log.failed", exc_info=True)
                    self._refuse(batch, StoreDown("the task log could not be stored"))
                finally:
                    self.pending_bytes -= sum(waiting.bytes_count for waiting in batch)
        finally:
            self._storing = None

    def _next_batch(self) -> list[_Waiting]:
        batch, bytes_count = [self._waiting.popleft()], 0
        bytes_count = batch[0].bytes_count
        while self._waiting and bytes_count + self._waiting[0].bytes_count <= BATCH_BYTES_MAX:
            bytes_count += self._waiting[0].bytes_count
            batch.append(self._waiting.popleft())
        return batch

    async def _store_batch(self, batch: Sequence[_Waiting]) -> None:
        for _ in range(LOOK_AGAIN_MAX):
            entries = await self._enter(batch)
            try:
                if entries:
                    await self._store.append(entries, self._clock.now_ns())
            except PositionTaken:
                self._book.forget(_leases(batch))
                continue
            break
        else:
            raise StoreDown("another process stores task logs of the same runs")
        if self._is_down:
            self._is_down = False
            self._log.info("task_log.stored_again")
        self.stored_bytes += sum(len(entry.content) for entry in entries)
        self._published(entries)
        for waiting in batch:
            if not waiting.stored.done():
                waiting.stored.set_result(
                    [self._book.is_truncated(each.lease) for each in waiting.written]
                )
        self._book.shrink()

    async def _enter(self, batch: Sequence[_Waiting]) -> list[Entry]:
        unknown = self._book.unknown(_leases(batch))
        if unknown:
            self._book.learn(unknown, await self._store.heads(unknown))
        entries: list[Entry] = []
        for waiting in batch:
            for written in waiting.written:
                entries += self._book.enter(written)
        return entries

    def _refuse(self, batch: Sequence[_Waiting], refusal: Refusal) -> None:
        # Whether it was stored after all shows when the store is asked again.
        self._book.forget(_leases(batch))
        self.refused_bytes += sum(waiting.bytes_count for waiting in batch)
        if not self._is_down:
            self._is_down = True
            self._log.warning(
                "task_log.not_stored", reason=refusal.reason_word, detail=refusal.message
            )
        for waiting in batch:
            _fail(waiting, refusal)


def _leases(batch: Sequence[_Waiting]) -> list[LeaseId]:
    return [written.lease for waiting in batch for written in waiting.written]


def _fail(waiting: _Waiting, refusal: Refusal) -> None:
    if not waiting.stored.done():
        waiting.stored.set_exception(refusal)
        waiting.stored.exception()
