"""Our recorder side by side with the library's own: same rows, same order, same notifications."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import psycopg
import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors
from stretto_core.eventlog.postgres.connections import PostgresOptions, open_datastore, open_session
from stretto_core.eventlog.postgres.recorder import PartitionRecorder
from stretto_core.eventlog.postgres.schema import EVENTS_TABLE, PartitionSchema
from stretto_core.ids import Partition

from tests.contract.eventlog.conftest import OpenPostgresLog
from tests.contract.eventlog.events import StreamWriter
from tests.contract.eventlog.test_postgres_log import backend_pid, until_waiting_for_a_lock

OPTIONS = PostgresOptions(reader_threads=1)


@pytest.fixture
def datastore(
    log_database: str, fresh_partition: Partition
) -> Iterator[tuple[PostgresDatastore, PartitionSchema]]:
    names = PartitionSchema(fresh_partition)
    with psycopg.connect(log_database, autocommit=True) as connection:
        connection.execute(names.create_schema())
        connection.execute("CREATE SCHEMA IF NOT EXISTS stretto")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS stretto.partitions (partition text PRIMARY KEY,"
            " schema_version integer NOT NULL, owner_epoch bigint NOT NULL DEFAULT 0,"
            " made_time timestamptz NOT NULL DEFAULT now())"
        )
        connection.execute("INSERT INTO stretto.partitions VALUES (%s, 0, 1)", (fresh_partition,))
    with open_datastore(log_database, names, OPTIONS) as opened:
        yield opened, names


versions = st.integers(1, 4)
streams = st.sampled_from(["a", "b", "c"])
stored_events = st.builds(
    StoredEvent,
    streams,
    versions,
    st.sampled_from(["t1", "t2"]),
    st.binary(max_size=20),
)
groups = st.lists(st.lists(stored_events, min_size=1, max_size=5), min_size=1, max_size=8)


@given(groups=groups)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_same_groups_give_the_same_log(
    log_database: str,
    datastore: tuple[PostgresDatastore, PartitionSchema],
    groups: list[list[StoredEvent]],
) -> None:
    opened, names = datastore
    oracle = PostgresApplicationRecorder(opened, events_table_name="oracle_events")
    ours = PartitionRecorder(opened, names)
    oracle.create_table()
    ours.create_table()
    session, _ = open_session(log_database, OPTIONS)
    with session:
        ours.prepare_appends(session)
        session.execute(
            names.statement("TRUNCATE {events}, {schema}.oracle_events RESTART IDENTITY")
        )
        for group in groups:
            expected: object
            try:
                expected = oracle.insert_events(group)
            except IntegrityError:
                expected = errors.UniqueViolation
            try:
                actual: object = ours.insert_events(group, session=session, owner_epoch=1)
            except errors.UniqueViolation as refusal:
                actual = type(refusal)
            if expected is not errors.UniqueViolation:
                assert isinstance(expected, list) and isinstance(actual, list)
                assert len(actual) == len(expected)
                expected = actual  # Holes differ: the positions' order is compared below.
            assert actual == expected
    recorded = oracle.select_notifications(start=None, limit=100)
    mine = ours.select_notifications(start=None, limit=100)
    assert [(n.originator_id, n.originator_version, n.topic, n.state) for n in mine] == [
        (n.originator_id, n.originator_version, n.topic, n.state) for n in recorded
    ]
    # Every selection of the library reads our table, and ours agrees with it.
    stock = PostgresApplicationRecorder(opened, events_table_name=EVENTS_TABLE)
    for start, limit, inclusive in ((None, 100, True), (2, 3, True), (2, 3, False), (0, 1, False)):
        assert ours.select_notifications(
            start, limit, inclusive_of_start=inclusive
        ) == stock.select_notifications(start, limit, inclusive_of_start=inclusive)
    assert ours.max_notification_id() == stock.max_notification_id()
    for stream in "abc":
        assert ours.select_events(stream) == oracle.select_events(stream)
        assert [tuple(row[1:]) for row in ours.rows_of_stream(stream, 1, 100)] == [
            (e.originator_id, e.originator_version, e.topic, e.state)
            for e in stock.select_events(stream, gt=1)
        ]


async def test_an_insert_held_open_is_waited_for_and_no_follower_loses_it(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    """It has drawn its position and not committed: nothing later may commit before it."""
    log = await open_postgres_log()
    writer = await log.acquire()
    stream = StreamWriter("one")
    await writer.append(stream.take(1))
    async with asyncio.timeout(60), aclosing(log.subscribe()) as live:
        seen = list(await anext(live))
        with psycopg.connect(log_database) as held:
            held.execute(
                PartitionSchema(log.partition).statement(
                    "INSERT INTO {events} (originator_id, originator_version, topic, state)"
                    " VALUES ('held', 1, 't', '')"
                )
            )
            append = asyncio.create_task(writer.append(stream.take(1)))
            await until_waiting_for_a_lock(log_database, backend_pid(writer))
            assert len((await log.read_all()).events) == 1
            held.commit()
        await append
        while len(seen) < 3:
            seen.extend(await anext(live))
    assert [(event.stream, event.version) for event in seen] == [
        ("one", 1),
        ("held", 1),
        ("one", 2),
    ]
    assert [event.position for event in seen] == sorted(event.position for event in seen)
    await writer.release()


async def test_the_library_recorder_may_write_beside_ours_and_nothing_is_lost(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    log = await open_postgres_log()
    writer = await log.acquire()
    names = PartitionSchema(log.partition)
    count = 40
    with open_datastore(log_database, names, OPTIONS) as opened:
        stock = PostgresApplicationRecorder(opened, events_table_name=EVENTS_TABLE)

        def write_stock() -> None:
            for version in range(1, count + 1):
                stock.insert_events([StoredEvent("stock", version, "t", b"")])

        async def write_ours() -> None:
            stream = StreamWriter("ours")
            for _ in range(count):
                await writer.append([stream.next()])

        seen: list[int] = []
        async with asyncio.timeout(60), aclosing(log.subscribe()) as live:
            writing = asyncio.gather(asyncio.to_thread(write_stock), write_ours())
            async for batch in live:
                seen.extend(event.position for event in batch)
                if len(seen) == 2 * count:
                    break
            await writing
    assert seen == [event.position for event in (await log.read_all()).events] == sorted(seen)
    await writer.release()
