"""What waits to be stored of task logs: bounded, repeated after a failure, never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from stretto.tasklog.v1.task_log_pb2 import LOG_STREAM_STDOUT
from stretto_core.clock.system import SystemClock
from stretto_core.eventlog.port import StoreDown
from stretto_core.ids import RunId, TaskName
from stretto_kernel.tasklog.appender import PENDING_BYTES_MAX, Appender
from stretto_kernel.tasklog.book import LeaseLimits
from stretto_kernel.tasklog.entries import Chunk, Entry, LeaseId, TaskLogsOverloaded, Written
from stretto_kernel.tasklog.memory import MemoryTaskLogs

RUN = RunId("r")
MIB = 1 << 20


class SlowLogs(MemoryTaskLogs):
    """Stores once `open` is set; stores and then fails while `breaks` is left."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.breaks = 0

    async def append(self, entries: Sequence[Entry], now_ns: int) -> None:
        await self.open.wait()
        await super().append(entries, now_ns)
        if self.breaks:
            self.breaks -= 1
            raise StoreDown("the connection was lost at the commit")


def written(task: str, *contents: bytes) -> Written:
    chunks = [
        Chunk(sequence, LOG_STREAM_STDOUT, 0, content)
        for sequence, content in enumerate(contents, start=1)
    ]
    return Written(LeaseId(RUN, TaskName(task), 1), 1, 1, chunks)


def appender(store: SlowLogs) -> Appender:
    return Appender(store, SystemClock(), LeaseLimits(bytes_max=64 * MIB), lambda entries: None)


async def test_what_waits_is_bounded_and_takes_more_once_it_is_stored() -> None:
    store = SlowLogs()
    logs = appender(store)
    count = PENDING_BYTES_MAX // MIB
    waiting = [
        asyncio.create_task(logs.append([written(f"t{number}", bytes(MIB))]))
        for number in range(count)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TaskLogsOverloaded) as refused:
        await logs.append([written("late", b"x")])
    assert refused.value.retry_delay_ms is not None
    store.open.set()
    assert await asyncio.gather(*waiting) == [[False]] * count
    assert logs.pending_bytes == 0
    assert await logs.append([written("late", b"x")]) == [False]
    assert len(store.entries[RUN]) == count + 1
    await logs.close()


async def test_what_was_stored_by_a_call_that_failed_is_not_stored_again() -> None:
    store = SlowLogs()
    store.open.set()
    store.breaks = 1
    logs = appender(store)
    both = written("a", b"1", b"2")
    with pytest.raises(StoreDown):
        await logs.append([both])
    assert await logs.append([both]) == [False]
    assert [entry.content for entry in store.entries[RUN]] == [b"1", b"2"]
    await logs.close()
