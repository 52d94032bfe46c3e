"""What only a real PostgreSQL can show: lost and late commits, fencing, lost connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager

import psycopg
import pytest
from stretto_core.eventlog.port import (
    AppendUnknown,
    PartitionMoved,
    SettledAs,
    StoreDown,
)
from stretto_core.eventlog.postgres.connections import (
    PostgresOptions,
    open_datastore,
    open_session,
)
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.eventlog.postgres.ownership import PostgresOwnedLog
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Partition

from tests.contract.eventlog.conftest import OpenPostgresLog
from tests.contract.eventlog.events import StreamWriter
from tests.waiting import until

DEADLINE_S = 60


@contextmanager
def table_locked(dsn: str, partition: Partition, mode: str) -> Iterator[psycopg.Connection]:
    """Hold a lock on the events table from another session, so that appends stand still."""
    with psycopg.connect(dsn) as connection:
        connection.execute(PartitionSchema(partition).statement(f"LOCK TABLE {{events}} IN {mode}"))
        yield connection
        connection.rollback()


def backend_pid(writer: PostgresOwnedLog) -> int:
    backend = writer.session.backend
    assert backend is not None
    return backend.pid


def activity(dsn: str, pid: int) -> tuple[str | None, str | None] | None:
    """Return what a server process waits for and its state; None when it is gone."""
    with psycopg.connect(dsn, autocommit=True) as watcher:
        query = "SELECT wait_event_type, state FROM pg_stat_activity WHERE pid = %s"
        return watcher.execute(query, (pid,)).fetchone()


async def until_waiting_for_a_lock(dsn: str, pid: int) -> None:
    await until(lambda: activity(dsn, pid) == ("Lock", "active"))


def end_backend(dsn: str, pid: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


async def test_a_commit_whose_answer_is_lost_is_settled_as_committed(
    open_postgres_log: OpenPostgresLog, log_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await open_postgres_log()
    writer = await log.acquire()
    stream = StreamWriter("one")
    group = stream.take(3)
    recorder = writer.session.recorder
    insert = recorder.insert_events

    def insert_then_cut(events, **kwargs):  # type: ignore[no-untyped-def]
        insert(events, **kwargs)
        end_backend(log_database, backend_pid(writer))
        kwargs["session"].execute("SELECT 1")  # The connection is gone where the answer was due.

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "insert_events", insert_then_cut)
        with pytest.raises(AppendUnknown):
            await writer.append(group)
    settlement = await writer.settle(group)
    assert settlement.outcome is SettledAs.COMMITTED
    assert tuple(e.position for e in (await log.read_all()).events) == settlement.positions
    await writer.append(stream.take(1))
    await writer.release()


async def test_an_append_cut_before_its_commit_is_settled_as_not_committed(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log = await open_postgres_log()
    writer = await log.acquire()
    group = StreamWriter("one").take(3)
    pid = backend_pid(writer)
    with table_locked(log_database, log.partition, "EXCLUSIVE MODE"):
        append = asyncio.create_task(writer.append(group))
        await until_waiting_for_a_lock(log_database, pid)
        end_backend(log_database, pid)
        with pytest.raises(AppendUnknown):
            await append
    assert (await writer.settle(group)).outcome is SettledAs.NOT_COMMITTED
    assert (await log.read_all()).events == ()
    await writer.append(group)
    await writer.release()


async def test_a_commit_that_lands_after_the_cut_is_settled_as_committed(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log = await open_postgres_log()
    writer = await log.acquire()
    group = StreamWriter("one").take(3)
    pid = backend_pid(writer)
    with table_locked(log_database, log.partition, "EXCLUSIVE MODE"):
        append = asyncio.create_task(writer.append(group))
        await until_waiting_for_a_lock(log_database, pid)
        writer.session.break_connection()
        with pytest.raises(AppendUnknown):
            await append
        assert (await log.read_all()).events == ()
    # The server works on: it learns that nobody listens only when it answers.
    await until(lambda: activity(log_database, pid) is None)
    settlement = await writer.settle(group)
    assert settlement.outcome is SettledAs.COMMITTED
    assert tuple(e.position for e in (await log.read_all()).events) == settlement.positions
    await writer.release()


async def test_a_lost_append_that_still_runs_is_ended_before_it_is_judged(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log = await open_postgres_log()
    writer = await log.acquire()
    group = StreamWriter("one").take(3)
    pid = backend_pid(writer)
    with table_locked(log_database, log.partition, "EXCLUSIVE MODE"):
        append = asyncio.create_task(writer.append(group))
        await until_waiting_for_a_lock(log_database, pid)
        writer.session.break_connection()
        with pytest.raises(AppendUnknown):
            await append
        settle = asyncio.create_task(writer.settle(group))
        await until(lambda: activity(log_database, pid) is None)
    assert (await settle).outcome is SettledAs.NOT_COMMITTED
    assert (await log.read_all()).events == ()
    await writer.append(group)
    await writer.release()


async def test_a_release_does_not_wait_for_a_server_that_does_not_answer(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log = await open_postgres_log()
    writer = await log.acquire()
    with table_locked(log_database, log.partition, "EXCLUSIVE MODE"):
        append = asyncio.create_task(writer.append(StreamWriter("one").take(1)))
        await until_waiting_for_a_lock(log_database, backend_pid(writer))
        await writer.release()
        with pytest.raises(AppendUnknown):
            await append


async def test_the_epoch_fences_an_owner_whose_session_lock_was_lost(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    first, second = await open_postgres_log(), await open_postgres_log()
    old = await first.acquire()
    await old.append(StreamWriter("one").take(1))
    # The old owner lives on behind a connection that keeps its epoch but not the session's lock.
    connection = old.session.connection
    assert connection is not None
    connection.execute("SELECT pg_advisory_unlock_all()")
    new = await second.acquire()
    assert new.owner_epoch > old.owner_epoch
    with pytest.raises(PartitionMoved):
        await old.probe()
    with pytest.raises(PartitionMoved):
        await old.append(StreamWriter("two").take(1))
    # Settling tells the truth, but does not give the partition back.
    assert (await old.settle(StreamWriter("two").take(1))).outcome is SettledAs.NOT_COMMITTED
    with pytest.raises(PartitionMoved):
        await old.append(StreamWriter("two").take(1))
    await new.append(StreamWriter("two").take(1))
    await old.release()
    await new.release()


async def test_an_append_that_gets_no_lock_in_time_stores_nothing(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log = await open_postgres_log()
    writer = await log.acquire()
    group = StreamWriter("one").take(1)
    with table_locked(log_database, log.partition, "SHARE MODE"), pytest.raises(StoreDown):
        await writer.append(group)
    assert (await log.read_all()).events == ()
    await writer.append(group)
    await writer.release()


async def test_followers_survive_the_loss_of_every_connection(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log, other = await open_postgres_log(), await open_postgres_log()
    writer = await other.acquire()
    stream = StreamWriter("one")
    await writer.append(stream.take(2))
    seen: list[StoredEvent] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(log.subscribe()) as live:
        async for batch in live:
            seen.extend(batch)
            if len(seen) == 2:
                _end_all_backends_except(log_database, backend_pid(writer))
                await writer.append(stream.take(2))
            if len(seen) == 4:
                break
    assert [event.version for event in seen] == [1, 2, 3, 4]
    await writer.release()


def _end_all_backends_except(dsn: str, kept: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
            (kept,),
        )


async def test_a_reader_outwaits_a_moment_in_which_every_connection_is_taken(
    log_database: str, fresh_partition: Partition
) -> None:
    await (await PostgresLog.open(log_database, fresh_partition)).close()
    names = PartitionSchema(fresh_partition)
    datastore = open_datastore(log_database, names, PostgresOptions())
    with datastore.get_connection():
        pass
    pool = datastore.pool
    with ExitStack() as held:
        for _ in range(pool.max_size):
            held.enter_context(datastore.get_connection())

        def read() -> int:
            with datastore.get_connection() as connection:
                return connection.info.backend_pid

        reading = asyncio.create_task(asyncio.to_thread(read))
        await until(lambda: pool.get_stats().get("requests_errors", 0) > 0 or reading.done())
        assert not reading.done(), "it asks again"
    assert await reading
    await asyncio.to_thread(datastore.close)


async def test_a_follower_finds_what_no_notification_told_of(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log = await open_postgres_log()
    statement = PartitionSchema(log.partition).statement(
        "INSERT INTO {events} (originator_id, originator_version, topic, state)"
        " VALUES ('silent', %s, 't', '')"
    )
    async with asyncio.timeout(DEADLINE_S), aclosing(log.subscribe()) as live:
        with psycopg.connect(log_database, autocommit=True) as silent:
            # More than once: the first is also found by the look that follows LISTEN.
            for version in range(1, 4):
                silent.execute(statement, (version,))
                assert [event.version for event in await anext(live)] == [version]


async def test_a_follower_is_told_of_an_append_without_polling(
    log_database: str, fresh_partition: Partition
) -> None:
    log = await PostgresLog.open(
        log_database, fresh_partition, options=PostgresOptions(poll_interval_s=3_600)
    )
    writer = await log.acquire()
    stream = StreamWriter("one")
    async with asyncio.timeout(DEADLINE_S), aclosing(log.subscribe()) as live:
        for version in range(1, 6):
            await writer.append([stream.next()])
            assert [event.version for event in await anext(live)] == [version]
    await writer.release()
    await log.close()


async def test_nobody_looks_at_the_log_for_followers_that_rest(
    log_database: str, fresh_partition: Partition
) -> None:
    named = f"{log_database} application_name=resting"
    rested = await PostgresLog.open(named, fresh_partition)
    log = await PostgresLog.open(log_database, fresh_partition)
    writer = await log.acquire()
    stream = StreamWriter("one")
    async with (
        asyncio.timeout(DEADLINE_S),
        aclosing(rested.subscribe()) as resting,
        aclosing(log.subscribe()) as live,
    ):
        await writer.append([stream.next()])
        await anext(resting)
        newest, seen_unlooked = _newest_look(log_database), 0
        await anext(live)
        while seen_unlooked < 5:
            await writer.append([stream.next()])
            await anext(live)
            before, newest = newest, _newest_look(log_database)
            seen_unlooked = seen_unlooked + 1 if newest == before else 0
        assert len(await anext(resting)) >= 5, "all of it, when it wants more"
    await writer.release()
    await rested.close()
    await log.close()


async def test_a_follower_that_rests_for_ever_leaves_no_hint_with_the_server(
    log_database: str, fresh_partition: Partition
) -> None:
    """What one listener does not take the server keeps, until it has room for nobody's."""
    log = await PostgresLog.open(log_database, fresh_partition)
    writer = await log.acquire()
    async with aclosing(log.subscribe()) as resting:
        await writer.append([StreamWriter("one").next()])
        await anext(resting)
        channel = writer.session.recorder.channel_name
        with psycopg.connect(log_database, autocommit=True) as other:
            # More than the connection itself can hold.
            large = "SELECT pg_notify(%s, repeat('x', 7990) || n) FROM generate_series(1, 1000) n"
            other.execute(large, (channel,))
            usage = "SELECT pg_notification_queue_usage()"
            await until(lambda: other.execute(usage).fetchone() == (0.0,))
    await writer.release()
    await log.close()


def _newest_look(dsn: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        (newest,) = connection.execute(
            "SELECT max(query_start) FROM pg_stat_activity"
            " WHERE application_name = 'resting' AND query LIKE '%notification_id >%'"
        ).fetchone() or (None,)
    assert newest is not None
    return newest


async def test_processes_that_start_together_make_the_tables_once(
    log_database: str,
) -> None:
    partition = Partition("p9001")
    options = PostgresOptions(reader_threads=1)
    async with asyncio.timeout(DEADLINE_S):
        logs = await asyncio.gather(
            *(PostgresLog.open(log_database, partition, options=options) for _ in range(4))
        )
    keys = [await log.lease_keys() for log in logs]
    assert keys == [keys[0]] * 4
    for log in logs:
        await log.close()


async def test_closing_leaves_no_thread(log_database: str) -> None:
    before = set(threading.enumerate())
    log = await PostgresLog.open(log_database, Partition("p9002"))
    writer = await log.acquire()
    await writer.append(StreamWriter("one").take(1))
    async with aclosing(log.subscribe()) as live:
        await anext(live)
    await writer.release()
    await log.close()
    await until(
        lambda: (
            not any(
                thread.name.startswith("log-") for thread in set(threading.enumerate()) - before
            )
        )
    )


def test_what_is_acknowledged_is_on_disk_whatever_the_role_has_by_default(
    postgres_dsn: str,
) -> None:
    parameters = psycopg.conninfo.conninfo_to_dict(postgres_dsn)
    for said, holds in (("off", "on"), ("remote_apply", "remote_apply")):
        parameters["options"] = f"-c synchronous_commit={said}"
        session, _ = open_session(
            psycopg.conninfo.make_conninfo("", **parameters), PostgresOptions()
        )
        with session:
            assert session.execute("SHOW synchronous_commit").fetchone() == (holds,)


async def test_a_record_made_before_there_were_seal_keys_gets_one_and_keeps_its_lease_key(
    fresh_database: str,
) -> None:
    partition = Partition("p0")
    first = await PostgresLog.open(fresh_database, partition)
    lease_keys = await first.rotate_lease_keys()
    await first.close()
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("DELETE FROM stretto.keys WHERE purpose <> 'lease'")
        connection.execute(
            "ALTER TABLE stretto.keys DROP COLUMN purpose, ADD PRIMARY KEY (partition, key_number)"
        )
        connection.execute("UPDATE stretto.partitions SET schema_version = 1")
    newer = await PostgresLog.open(fresh_database, partition)
    assert await newer.lease_keys() == lease_keys
    assert len((await newer.seal_key()).public_bytes) == 32
    await newer.close()
