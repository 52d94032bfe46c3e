"""Everything that is no record is taken away at once, and a suite gives full service again."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import aclosing
from pathlib import Path

import psycopg
from stretto_core.localstack.postgres import FAST, EmbeddedPostgres

from tests.e2e.conftest import Gate, Suite, events_of, json_of, until_true
from tests.e2e.test_bus import is_heard, run_one

KEPT = "('events')"
"""Of a partition's schema, what is the record; `tracking` is where followers were."""


async def drop_what_is_no_record(postgres: Path) -> int:
    """Drop every table of the partition but its events; return how many."""
    server = EmbeddedPostgres(directory=postgres)
    await server.start()
    try:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            tables = connection.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r'"
                " AND relnamespace = 'stretto_p0'::regnamespace"
                f" AND relname NOT IN {KEPT}".encode()
            ).fetchall()
            for (name,) in tables:
                connection.execute(f'DROP TABLE stretto_p0."{name}" CASCADE'.encode())
        return len(tables)
    finally:
        await server.stop(FAST)


async def test_a_suite_whose_views_snapshots_bus_and_caches_are_gone_serves_all_of_it_again(
    idle_suite: Suite, gate: Gate
) -> None:
    suite = idle_suite
    suite.up("--workers", 1, "--slots", 4)
    ended = [run_one(suite) for _ in range(3)]
    async with suite.client() as client:
        under_way = await client.start({"tasks": [gate.task("a"), gate.task("b", after=["a"])]})
        before = {run: await events_of(client, await client.get(run)) for run in ended}
        async with aclosing(client.list(after=under_way.position)) as listed:
            runs_before = {run.run_id async for run in listed}
    suite.down()
    root = suite.directory.root
    assert await drop_what_is_no_record(root / "postgres") > 10
    for gone in ("nats", "logs", "workers"):
        shutil.rmtree(root / gone, ignore_errors=True)
    suite.up("--workers", 1, "--slots", 4)

    async def views_follow() -> bool:
        views = await asyncio.to_thread(suite.stretto, "views")
        return views.returncode == 0

    await until_true(views_follow, deadline_s=60)
    async with suite.client() as client:
        async with aclosing(client.list(after=under_way.position)) as listed:
            assert {run.run_id async for run in listed} == runs_before
        for run in ended:
            assert await events_of(client, await client.get(run)) == before[run]
            assert len(await client.tasks(run)) == 1
            # The bus is fed from the first event: it has lost where the relay was, too.
            await until_true(lambda: is_heard(suite, run), deadline_s=60)  # noqa: B023
        gate.open()
        assert (await client.wait(under_way)).state == "SUCCEEDED"
        assert (await client.verify()).whole
    compared = json_of(suite.stretto("rebuild", "--compare", "--json"))
    assert all(proof["equal"] for proof in compared["proofs"])
    status = json.loads(suite.stretto("status", "--json").stdout)
    assert status["ready"] and not status["stopped_views"]
