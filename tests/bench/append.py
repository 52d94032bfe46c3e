"""Events appended per second through the PostgreSQL recorder, at several events a call.

Prints one JSON line per figure. Run: `python -m tests.bench.append [--seconds S]`. The server is
the one STRETTO_TEST_POSTGRES_DSN names, else an embedded one in a temporary directory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from google.protobuf.wrappers_pb2 import StringValue
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_KERNEL, Principal
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal
from stretto_core.eventlog.chain import EMPTY_HEAD
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.group_writer import GroupWriter
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.eventlog.writer import Committed
from stretto_core.ids import (
    EventId,
    Namespace,
    Partition,
    RequestId,
    StreamId,
    derive_run_id,
)
from stretto_core.ids.system import SystemIds

from tests.bench.database import fresh_postgres

EVENTS_PER_STREAM = 4
BODY_BYTES = 200


def make_events(count: int) -> list[NewEvent]:
    """Return the events of one-task runs: time-ordered run ids, four events each."""
    codec, clock, ids = Codec([StringValue]), SystemClock(), SystemIds()
    namespace, partition = Namespace("default"), Partition("p0")
    principal = Principal(kind=PRINCIPAL_KIND_KERNEL, name="bench")
    cause = Cause(namespace=namespace, principal=principal)
    body = StringValue(value="x" * BODY_BYTES)
    events: list[NewEvent] = []
    while len(events) < count:
        stream = StreamId(derive_run_id(partition, namespace, RequestId(ids.uuid7())))
        head = EMPTY_HEAD
        for _ in range(EVENTS_PER_STREAM):
            now_ns = clock.now_ns()
            event = codec.encode(
                body,
                stream=stream,
                head=head,
                event_id=EventId(ids.uuid7()),
                time_ns=now_ns,
                cause=cause,
            )
            head = next_head(event, now_ns)
            events.append(event)
    return events[:count]


@asynccontextmanager
async def postgres() -> AsyncIterator[str]:
    """Yield a connection string."""
    given = os.environ.get("STRETTO_TEST_POSTGRES_DSN")
    if given:
        yield given
        return
    async with fresh_postgres() as dsn:
        yield dsn


async def measure_append(log: EventLog, events_per_call: int, seconds: float) -> None:
    """Append groups of one size for a while."""
    writer = await log.acquire()
    calls = max(20, min(int(seconds * 50_000 / events_per_call), int(seconds * 2_000)))
    events = make_events(calls * events_per_call)
    started = time.perf_counter()
    for call in range(calls):
        await writer.append(events[call * events_per_call : (call + 1) * events_per_call])
    elapsed_s = time.perf_counter() - started
    await writer.release()
    _print("append", len(events) / elapsed_s, events_per_call=events_per_call, calls=calls)


async def measure_group_writer(log: EventLog, commands: int) -> None:
    """Encode, submit one event a command, and wait until all are on disk."""
    writer_owner = _Owner()
    owned = await log.acquire()
    writer = GroupWriter(owned, writer_owner)
    started, cpu_started = time.perf_counter(), time.process_time()
    for _ in range(commands // 100):
        for event in make_events(100):
            writer.submit([event])
        while not writer.has_room:
            await writer.barrier()
        await asyncio.sleep(0)
    await writer.close()
    elapsed_s = time.perf_counter() - started
    cpu_us = (time.process_time() - cpu_started) * 1e6 / commands
    assert writer_owner.committed_count == commands
    await owned.release()
    _print("encode_and_group_commit", commands / elapsed_s, cpu_us_per_event=round(cpu_us))


class _Owner:
    committed_count = 0

    def batches_committed(self, commits: Sequence[Committed]) -> None:
        self.committed_count += len(commits)

    def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
        raise cause

    def writer_closed(self, cause: Refusal) -> None:
        pass


async def measure_reads(log: EventLog) -> None:
    """Read the whole log in pages, then follow it from its start."""
    started, position, count = time.perf_counter(), 0, 0
    while (page := await log.read_all(after_position=position)).events:
        position, count = page.events[-1].position, count + len(page.events)
    _print("read_all", count / (time.perf_counter() - started), events=count)
    started, seen = time.perf_counter(), 0
    async for batch in log.subscribe():
        seen += len(batch)
        if seen >= count:
            break
    _print("subscribe_catch_up", seen / (time.perf_counter() - started), events=seen)


def _print(figure: str, events_per_s: float, **settings: int) -> None:
    print(json.dumps({"figure": figure, "events_per_s": round(events_per_s), **settings}))  # noqa: T201


async def main(seconds: float) -> None:
    """Measure everything once."""
    async with postgres() as dsn:
        log = await PostgresLog.open(dsn, Partition("p0"))
        for events_per_call in (1, 10, 100, 400, 500):
            await measure_append(log, events_per_call, seconds)
        await measure_group_writer(log, commands=int(seconds * 20_000))
        await measure_reads(log)
        await log.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    asyncio.run(main(parser.parse_args().seconds))
