"""The server itself dies: immediate stop under load, then a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.connections import PostgresOptions
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.eventlog.writer import WriterLimits
from stretto_core.ids import Partition
from stretto_core.localstack.postgres import IMMEDIATE, EmbeddedPostgres

from tests.contract.eventlog.ledger import Ledger
from tests.contract.eventlog.test_group_writer import texts_by_stream
from tests.contract.eventlog.test_log_contract import followed
from tests.waiting import until

OPTIONS = PostgresOptions(connect_timeout_s=1, poll_interval_s=0.2)


@pytest.fixture
async def server(postgres_directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(directory=postgres_directory)
    await server.start()
    yield server
    await server.stop(IMMEDIATE)


async def test_a_server_killed_under_load_loses_nothing_acknowledged(
    server: EmbeddedPostgres,
) -> None:
    log = await PostgresLog.open(server.dsn(), Partition("p0"), options=OPTIONS)
    owned = await log.acquire()
    ledger = Ledger(owned, limits=WriterLimits(group_events_max=20))
    expected = [f"command {number}" for number in range(300)]
    following = asyncio.create_task(followed(log, len(expected)))
    for text in expected:
        ledger.command(text, "one")
    await until(lambda: len(ledger.acknowledged) > 20)
    await server.stop(IMMEDIATE)
    acknowledged = len(ledger.acknowledged)
    assert acknowledged < len(expected)
    await until(lambda: ledger.writer.is_settling)
    assert len(ledger.acknowledged) == acknowledged
    with pytest.raises(StoreDown):
        await log.position()
    await server.start()
    await until(lambda: len(ledger.acknowledged) == len(expected))
    await ledger.writer.close()
    assert ledger.acknowledged == expected
    assert await texts_by_stream(log) == {"one": expected}
    assert [event.version for event in await following] == list(range(1, len(expected) + 1))
    await owned.release()
    await log.close()


async def test_a_log_opened_while_the_server_is_down_says_so(server: EmbeddedPostgres) -> None:
    await server.stop(IMMEDIATE)
    with pytest.raises(StoreDown):
        await PostgresLog.open(server.dsn(), Partition("p0"), options=OPTIONS)
    await server.start()
    log = await PostgresLog.open(server.dsn(), Partition("p0"), options=OPTIONS)
    async with aclosing(log.subscribe()):
        assert await log.position() == 0
    await log.close()
