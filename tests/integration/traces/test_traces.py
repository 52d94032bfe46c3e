"""Every recorded workflow runs to its end on a real kernel: PostgreSQL, gRPC, a sleeping worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from stretto_core.clock.system import SystemClock
from stretto_core.ids.system import SystemIds
from stretto_sdk import Client, RunState
from stretto_sdk.worker.process import WorkerSettings, run_worker
from stretto_sdk.worker.sleep_executor import SleepExecutor

from tests.integration.kernel.serving import served
from tests.traces import (
    JOB_GRAPHS,
    TRACES,
    check_history,
    dependencies_of,
    expectations,
    imported_jobs,
    imported_trace,
)

DEADLINE = timedelta(seconds=90)


@pytest.mark.parametrize("name", TRACES)
async def test_a_trace_runs_to_its_end(workflows: Path, fresh_database: str, name: str) -> None:
    plan = imported_trace(workflows, name, time_scale=0.0).plan
    assert await run_to_its_end(fresh_database, plan) == expectations(workflows)[name].tasks


@pytest.mark.parametrize("name", JOB_GRAPHS)
async def test_a_job_graph_runs_to_its_end(workflows: Path, fresh_database: str, name: str) -> None:
    plan = imported_jobs(workflows, name).plan
    assert await run_to_its_end(fresh_database, plan) == len(dependencies_of(plan))


async def run_to_its_end(dsn: str, plan: Mapping[str, Any]) -> int:
    """Run a plan where nothing goes wrong; return how many tasks succeeded."""
    async with (
        served(dsn) as kernel,
        sleeping_worker(kernel.address, slot_count=500),
        Client(kernel.address) as client,
    ):
        ended = await client.wait(await client.start(plan), timeout=DEADLINE)
        assert ended.state is RunState.SUCCEEDED
        assert ended.tasks.total == ended.tasks.succeeded
        events = [event async for event in client.events(ended)]
        check_history(dependencies_of(plan), events)
        return ended.tasks.succeeded


@asynccontextmanager
async def sleeping_worker(address: str, *, slot_count: int) -> AsyncIterator[None]:
    """A worker in this process whose bodies only sleep."""
    settings = WorkerSettings(
        address=address, worker_id="sleeper", slot_count=slot_count, handles_signals=False
    )
    working = asyncio.create_task(
        run_worker(settings, {"sleep": SleepExecutor()}, clock=SystemClock(), ids=SystemIds())
    )
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait([working])
