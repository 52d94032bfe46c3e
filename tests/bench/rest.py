"""idle, startup, fold and loop: a suite that rests, starts, reads its log, or is watched."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.ids import Partition, RunId, StreamId
from stretto_kernel.app.hosted_run import HostedRun, unfolded
from stretto_kernel.app.hosted_stream import advance
from stretto_kernel.domain.run import evolve
from stretto_kernel.garbage import rest_mostly
from stretto_kernel.owned_partition import RUN_CODEC

from tests.bench.processes import rss_mb
from tests.bench.scale import Scale
from tests.bench.speeds import Measurement, say
from tests.bench.stack import BARE_WORKER, CpuWatch, Layout, running
from tests.waiting import passed

STATEMENTS = {"shared_preload_libraries": "pg_stat_statements"}
PAGE_EVENTS = 1_000


async def idle(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """A suite of kernel, projector and one worker that has worked and now waits."""
    async with running(Layout(postgres_settings=STATEMENTS)) as (stack, client):
        await client.do("unary", runs=scale.warm_runs, outstanding=scale.outstanding)
        with psycopg.connect(stack.postgres.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
            await passed(scale.settle_s)
            for _ in range(scale.rounds):
                connection.execute("SELECT pg_stat_statements_reset()")
                watch = CpuWatch()
                began_s = time.monotonic()
                await passed(scale.idle_s)
                elapsed_s = time.monotonic() - began_s
                cpu_us = watch.used_us()
                row = connection.execute("SELECT sum(calls) FROM pg_stat_statements").fetchone()
                assert row is not None
                memory = {name: rss_mb(pid) for name, pid in stack.services().items()}
                yield (
                    wanted[0],
                    {
                        # The one that asks, and the one that reset, are ours.
                        "sql_per_s": max(0, int(row[0] or 0) - 1) / elapsed_s,
                        "cpu_percent": cpu_us / elapsed_s / 10_000,
                        "rss_mb": max(memory.values()),
                    },
                    {"seconds": scale.idle_s, **{n: round(mb) for n, mb in memory.items()}},
                )


async def startup(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """serving_s: a kernel's process until SERVING. wall_s: `stretto up` in an empty directory."""
    async with running(Layout(worker_count=0, views=False)) as (stack, _):
        for _ in range(scale.rounds):
            await stack.kernel.stop()
            began_s = time.monotonic()
            await stack.start_kernel()
            serving_s = time.monotonic() - began_s
            yield wanted[0], {"serving_s": serving_s, "wall_s": await _up()}, {"workers": 1}


async def _up() -> float:
    home = Path(tempfile.mkdtemp(prefix="stretto-bench-"))
    home.chmod(0o711)
    environment = {key: text for key, text in os.environ.items() if "STRETTO" not in key}
    environment["STRETTO_DATA_DIR"] = str(home / "suite")
    command = [str(Path(sys.executable).parent / "stretto")]
    try:
        began_s = time.monotonic()
        await asyncio.to_thread(
            subprocess.run,
            [*command, "up", "--detach", "--port", "0"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.monotonic() - began_s
    finally:
        subprocess.run(  # noqa: ASYNC221 - nothing else is to run meanwhile
            [*command, "down"], env=environment, check=False, stdout=subprocess.DEVNULL
        )
        shutil.rmtree(home, ignore_errors=True)


async def fold(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """A run's events from PostgreSQL into its state: read, decode, check the chain, evolve."""
    layout = Layout(worker=BARE_WORKER, slots=500, views=False)
    gc.freeze()  # As the kernel's process does, whose fold this is.
    rest_mostly()
    async with running(layout) as (stack, client):
        measured = await client.do("large", tasks=scale.fold_tasks)
        log = await PostgresLog.open(stack.postgres.dsn(), Partition("p0"))
        for _ in range(scale.rounds):
            began_s = time.perf_counter()
            count = await _fold(log, StreamId(measured["run_id"]))
            elapsed_s = time.perf_counter() - began_s
            yield wanted[0], {"events_per_s": count / elapsed_s}, {"tasks": scale.fold_tasks}
        await log.close()


async def loop(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """The longest synchronous stretch of the kernel's loop over all that is large.

    Many small runs; a large run, started in slices, worked, and folded after a restart; a worker
    killed with many leases; a large run killed.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "stretches"
        layout = Layout(kernel=("-m", "tests.bench.stretches", str(file)), worker=BARE_WORKER)
        for _ in range(scale.rounds):
            stretches = []
            async with running(layout) as (stack, client):
                await client.do("bare", runs=scale.warm_runs, outstanding=scale.outstanding)
                await client.do("large", tasks=scale.size_tasks[1])
                await stack.kill_worker()
                await client.do("abandon", tasks=scale.size_tasks[1], address=stack.address)
                await stack.kernel.stop()
                stretches += _stretches(file)
                await stack.start_kernel()
                await client.do("kill_all")
            stretches += _stretches(file)
            for took_ms, where in sorted(stretches, reverse=True)[:5]:
                say(f"loop: {took_ms:.1f} ms in {where}")
            yield wanted[0], {"stretch_ms": max(stretches)[0]}, {"tasks": scale.size_tasks[1]}


def _stretches(file: Path) -> list[tuple[float, str]]:
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()]


async def _fold(log: PostgresLog, stream: StreamId) -> int:
    run: HostedRun | None = None
    more = True
    while more:
        version = 0 if run is None else run.decided
        page = await log.read_stream(stream, after_version=version, limit=PAGE_EVENTS)
        for stored in page.events:
            decoded = RUN_CODEC.decode(stored.stored_bytes)
            if run is None:
                run = unfolded(RunId(stream), decoded.envelope)
            advance(run, stored, decoded, evolve)
        more = page.more
    assert run is not None and run.has_ended, "the whole run was read"
    return run.decided
