"""Workers and client against a kernel on PostgreSQL: whole runs, and a worker that dies in one."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from stretto_sdk import Client, TaskContext, Worker

from tests.integration.kernel.serving import Served, served
from tests.integration.worker.conftest import environment
from tests.integration.worker.processes import is_alive, pids_in
from tests.waiting import until

PATIENCE_S = 60.0


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database) as kernel:
        yield kernel


@asynccontextmanager
async def serving(worker: Worker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.serve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def worker_service(
    kernel: Served, name: str, home: Path, **settings: str
) -> AsyncIterator[int]:
    """A real worker service; gives its process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stretto_worker",
        env={
            **environment(),
            "STRETTO_KERNEL_ADDRESS": kernel.address,
            "STRETTO_WORKER_NAME": name,
            "STRETTO_DATA_DIR": str(home),
            **settings,
        },
    )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_run_fans_out_by_spawning_and_joins(kernel: Served) -> None:
    worker = Worker(kernel.address, name="w", slots=8)

    @worker.task
    async def split(ctx: TaskContext, text: str) -> int:
        words = text.split()
        await ctx.spawn(
            [
                {
                    "name": f"word-{index}",
                    "executor": "python",
                    "arguments": {"function": "measure"},
                    "inputs": {"word": word},
                }
                for index, word in enumerate(words)
            ]
        )
        return len(words)

    @worker.task
    async def measure(ctx: TaskContext, word: str) -> int:
        return len(word)

    @worker.task
    async def total(ctx: TaskContext, lengths: list[int]) -> int:
        return sum(lengths)

    plan = {
        "tasks": [
            {
                "name": "split",
                "executor": "python",
                "arguments": {"function": "split"},
                "inputs": {"text": {"from": "input", "pointer": "/text"}},
                "may_spawn": True,
            },
            {
                "name": "total",
                "executor": "python",
                "arguments": {"function": "total"},
                "after": [{"task": "split", "scope": "subtree"}],
                "inputs": {"lengths": {"from": "subtree", "task": "split"}},
            },
        ],
        "output": {"from": "task", "task": "total"},
    }
    async with serving(worker), Client(kernel.address) as client:
        run = await client.start(plan, input={"text": "a bb ccc dddd"})
        assert await asyncio.wait_for(client.result(run), PATIENCE_S) == 10


async def test_a_dead_workers_task_is_taken_over_by_another_at_once(
    kernel: Served, tmp_path: Path
) -> None:
    pids, second = tmp_path / "pids", tmp_path / "second"
    # The first attempt hangs with a child; the second, elsewhere, finds `second` and ends.
    script = f"if [ -e {second} ]; then echo '\"taken over\"'; exit; fi; "
    script += f"touch {second}; sleep 600 & echo $$ $! > {pids}; wait"
    plan = {
        "tasks": [
            {
                "name": "hang",
                "executor": "process",
                "arguments": {"argv": ["sh", "-c", script]},
                # Far beyond the test's patience: only a proven death frees the lease in time.
                "timeouts": {"heartbeat": "10m"},
            }
        ],
        "output": {"from": "task", "task": "hang"},
    }
    async with worker_service(kernel, "one", tmp_path) as one, Client(kernel.address) as client:
        run = await client.start(plan)
        await until(lambda: len(pids_in(pids)) == 2)
        async with worker_service(kernel, "two", tmp_path):
            os.kill(one, 9)
            assert await asyncio.wait_for(client.result(run), PATIENCE_S) == "taken over"
        await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))
