"""The task logs of one kernel process: taken from lease holders, read and followed by clients.

Lives beside the kernel and outlasts its ownerships; what it knows of runs it asks of the ownership
at hand. Telemetry: what is stored here is no part of the record, may lack what came in the last
moments before the database crashed, and ends by itself with the retention.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from stretto_core.clock import Clock
from stretto_core.ids import Namespace

from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.owned_partition import OwnedPartition
from stretto_kernel.tasklog.appender import Appender
from stretto_kernel.tasklog.book import LeaseLimits
from stretto_kernel.tasklog.entries import (
    Entry,
    Page,
    Selection,
    TaskLogsOverloaded,
    TaskLogStore,
    Written,
)
from stretto_kernel.tasklog.run_end import find_selected, is_over, wake_at_changes
from stretto_kernel.tasklog.tails import Tail, Tails

READERS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read: from after a position, or from the last lines (tail_line_count > 0) on."""

    namespace: Namespace
    selection: Selection
    after_position: int = 0
    tail_line_count: int = 0
    follow: bool = False


class Part(NamedTuple):
    """Some entries, and where to go on after them; the last part of a reading has `ended`."""

    entries: Sequence[Entry]
    reached: int
    ended: bool
    missing_count: int


class TaskLogs:
    """Appends and reads; `close` at the end of the process."""

    def __init__(
        self, store: TaskLogStore, clock: Clock, limits: LeaseLimits | None = None
    ) -> None:
        self._store = store
        self._tails = Tails()
        self._reader_count = 0
        self.appender = Appender(store, clock, limits or LeaseLimits(), self._tails.publish)

    @property
    def reader_count(self) -> int:
        """How many read now."""
        return self._reader_count

    async def append(self, written: Sequence[Written]) -> list[bool]:
        """See `Appender.append`."""
        return await self.appender.append(written)

    async def close(self) -> None:
        """Store or refuse what waits."""
        await self.appender.close()

    async def read(self, partition: OwnedPartition, reading: Reading) -> AsyncGenerator[Part]:
        """Yield what is kept, and with `follow` what comes until all of it has ended.

        Raises RunNotFound, TaskNotFound, StoreDown, TaskLogsOverloaded, and the ownership's end.
        """
        if self._reader_count >= READERS_MAX:
            raise TaskLogsOverloaded("too many readers", readers_max=str(READERS_MAX))
        self._reader_count += 1
        try:
            run = await find_selected(partition, reading.namespace, reading.selection)
            with self._tails.following(run.run_id) as tail:
                async for part in self._read(partition, run, reading, tail):
                    yield part
        finally:
            self._reader_count -= 1

    async def _read(
        self, partition: OwnedPartition, run: HostedRun, reading: Reading, tail: Tail
    ) -> AsyncGenerator[Part]:
        selection, position, skip_line_count = reading.selection, reading.after_position, 0
        if reading.tail_line_count:
            position, skip_line_count = await self._store.tail(
                selection, line_count=reading.tail_line_count
            )
        while True:
            changed = tail.changed  # Before looking: nothing may come unseen in between.
            over = True
            if reading.follow:
                run, over = await self._look(partition, run, selection, tail)
            if run.state.key_id:
                await partition.facts.writer.barrier()  # Another owner may have shredded it since.
            page = await self._next(selection, tail, position, run)
            if page.entries:
                missing_count = 0 if selection.task else page.entries[0].position - position - 1
                if skip_line_count:
                    page.entries[0] = _without_lines(page.entries[0], skip_line_count)
                    missing_count = skip_line_count = 0
                yield Part(page.entries, page.reached, ended=False, missing_count=missing_count)
            elif over:
                yield Part((), page.reached, ended=True, missing_count=0)
                return
            elif page.reached == position and changed is tail.changed:
                await changed.wait()
            position = page.reached

    async def _look(
        self, partition: OwnedPartition, run: HostedRun, selection: Selection, tail: Tail
    ) -> tuple[HostedRun, bool]:
        """Whether all that is selected has ended for sure, and all it wrote before is stored."""
        if tail.failure is not None:
            raise tail.failure
        if run.dropped:
            run = await partition.calls.find(run.namespace, run.run_id)
        if tail.keeper is None or (tail.keeper.done() and not run.has_ended):
            tail.keeper = asyncio.create_task(
                wake_at_changes(partition, run, tail), name="task-log-followers"
            )
        if not is_over(run, selection):
            return run, False
        try:
            await partition.facts.answered(run, run.decided, own_facts=True)
        except DecidedAgain:
            return await self._look(partition, run, selection, tail)
        await self.appender.settled()
        return run, True

    async def _next(self, selection: Selection, tail: Tail, position: int, run: HostedRun) -> Page:
        # What somebody still follows is clear in memory; of a shredded run nobody gets it.
        entries = None if run.is_shredded else tail.after(position)
        if entries is not None:
            reached = entries[-1].position if entries else position
            return Page([entry for entry in entries if selection.holds(entry)], reached)
        changed = tail.changed
        page = await self._store.read(selection, after_position=position)
        if not page.entries and changed is tail.changed:
            tail.begin(page.reached)
        if run.state.key_id:
            return Page([entry.opened(run.key) for entry in page.entries], page.reached)
        return page


def _without_lines(entry: Entry, line_count: int) -> Entry:
    """The entry without its first lines."""
    content = entry.content
    for _ in range(line_count):
        content = content.partition(b"\n")[2]
    return replace(entry, content=content)
