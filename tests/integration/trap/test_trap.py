"""The delayed-commit trap on a real PostgreSQL and NATS; `make trap` springs it with a million."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import psycopg
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal
from stretto_core.eventlog.chain import head_of
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import StreamId
from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.hosted_stream import HostedStream
from stretto_kernel.owned_partition import RUN_CODEC

from tests.trap.subscribers import Tally, follow_by_position, follow_skipping
from tests.trap.trap import spring
from tests.trap.writers import BODIES, CAUSE, IDS, P0, RUN_EVENTS, runs
from tests.waiting import until

EVENTS = 20_000
WRITERS = 32


async def test_no_subscriber_passes_over_an_event_that_commits_late_and_one_that_does_is_found(
    fresh_database: str, fresh_nats: str
) -> None:
    planted = ("planted", follow_skipping)
    sprung = await spring(fresh_database, fresh_nats, event_count=EVENTS, others=[planted])
    (fault,) = sprung.faults
    assert fault.startswith("planted: ")
    assert sprung.counts.pop("planted") < EVENTS
    assert set(sprung.counts.values()) == {EVENTS}
    assert sprung.held_count > 0 and sprung.rolled_back_count > 0


class Keeper:
    """Holds streams of facts that mean nothing."""

    decider = Decider(RUN_CODEC, lambda _state, bodies: bodies, lambda _state, _recorded: None)

    def stream_committed(self, hosted: HostedStream[None]) -> None:
        pass

    def stream_dropped(self, hosted: HostedStream[None]) -> None:
        raise AssertionError("nothing is dropped")

    def partition_closed(self, cause: Refusal) -> None:
        pass


async def test_who_follows_commits_hears_of_each_in_the_order_of_the_log(
    fresh_database: str,
) -> None:
    log = await PostgresLog.open(fresh_database, P0)
    owned = await log.acquire()
    facts = FactWriter(owned, SystemClock(), IDS)
    tally, hashes, keeper = Tally("commits"), list[bytes](), Keeper()

    def hear(positions: Sequence[int], events: Sequence[NewEvent]) -> None:
        for position, event in zip(positions, events, strict=True):
            hashes.append(event.chain_hash)
            tally.take(position, "log", tally.count + 1)

    facts.follow_commits(hear)

    async def write(number: int) -> None:
        for run in range(EVENTS // WRITERS // RUN_EVENTS):
            stream = HostedStream(StreamId(f"s{number}-{run}"), None, CAUSE.namespace)
            facts.take(keeper, stream, BODIES, CAUSE)
            await facts.answered(stream, stream.decided, own_facts=True)

    writing = asyncio.gather(*(write(number) for number in range(WRITERS)))
    lock = PartitionSchema(P0).statement("LOCK TABLE {events} IN SHARE ROW EXCLUSIVE MODE")
    with psycopg.connect(fresh_database) as holder:
        while not writing.done():
            holder.execute(lock)
            await asyncio.to_thread(holder.execute, "SELECT pg_sleep(0.02)")
            holder.rollback()
            await asyncio.to_thread(holder.execute, "SELECT pg_sleep(0.01)")
    await writing
    stored = (await log.read_all(limit=2 * EVENTS, bytes_max=1 << 30)).events
    assert tally.fault(len(stored)) == ""
    assert hashes == [head_of(event.stored_bytes).chain_hash for event in stored]
    await facts.writer.close()
    await owned.release()
    await log.close()


async def test_inserts_without_the_lock_are_what_the_trap_catches(fresh_database: str) -> None:
    """What our append makes impossible: a position that commits after a higher one was seen."""
    log = await PostgresLog.open(fresh_database, P0)
    insert = PartitionSchema(P0).statement(
        "INSERT INTO {events} (originator_id, originator_version, topic, state)"
        " VALUES (%s, %s, %s, %s)"
    )

    def values(index: int) -> tuple[object, ...]:
        event = events[index]
        return (event.stream, event.version, event.type, event.stored_bytes)

    events, tally, again = runs(2), Tally("by position"), asyncio.Event()
    following = asyncio.create_task(follow_by_position(log, tally, again))
    with (
        psycopg.connect(fresh_database) as held,
        psycopg.connect(fresh_database, autocommit=True) as quick,
    ):
        held.execute(insert, values(0))
        quick.execute(insert, values(4))
        again.set()
        await until(lambda: tally.count == 1)
        held.commit()
        quick.execute(insert, values(1))
        again.set()
        await until(lambda: tally.count == 2)
    assert tally.wrong == f"{events[0].stream} version 2 after 0"
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    await log.close()
