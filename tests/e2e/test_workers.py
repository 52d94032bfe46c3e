"""Workers of a suite: who they are, one more from the command line, one asked to end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from stretto_sdk import Plan

from tests.e2e.conftest import BIN, ROOT, Gate, Suite, until_true


@asynccontextmanager
async def started(suite: Suite, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        BIN / "stretto", "worker", "start", *arguments, env=suite.environ, cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def states(suite: Suite) -> dict[str, str]:
    listed = suite.stretto("workers", "--json")
    assert listed.returncode == 0, listed.stderr
    return {one["worker_id"]: one["state"] for one in json.loads(listed.stdout)["workers"]}


async def test_the_suites_own_are_listed(suite: Suite) -> None:
    async def both() -> bool:
        return states(suite) == {"worker-1": "CONNECTED", "worker-2": "CONNECTED"}

    await until_true(both)
    table = suite.stretto("workers").stdout
    assert "worker-1" in table and "process, python" in table
    unknown = suite.stretto("worker", "drain", "nobody")
    assert unknown.returncode == 2
    assert "no such worker: nobody; `stretto workers` shows them" in unknown.stderr


async def test_one_from_the_command_line_works_and_drains(suite: Suite, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    plan = Plan("here")
    plan.task(**gate.task("a", queue="mine", required_labels={"zone": "b"}))
    arguments = ("--name", "extra", "--queue", "mine", "--labels", "zone=b", "--slots", "1")
    async with suite.client() as client, started(suite, *arguments) as process:
        run = await client.start(plan)

        async def held() -> bool:
            found = await client.workers(connected_only=True)
            return any(one.worker_id == "extra" and one.lease_count for one in found)

        await until_true(held)
        known = await client.worker("extra")
        assert known.labels == {"zone": "b"}
        assert (known.queues, known.slot_count, known.transport) == (("mine",), 1, "stream")
        assert known.version.startswith("stretto/")
        assert known.leases == (f"namespaces/default/runs/{run.run_id}/tasks/a",)
        drained = suite.stretto("worker", "drain", "extra", "--reason", "enough")
        assert drained.returncode == 0, drained.stderr
        assert states(suite)["extra"] == "DRAINING"
        gate.open()
        assert (await client.wait(run)).state == "SUCCEEDED", "what it held it finishes"
        assert await process.wait() == 0
        assert states(suite)["extra"] == "GONE"


async def test_ctrl_c_drains_it_and_a_restart_takes_its_place(suite: Suite) -> None:
    async with suite.client() as client:

        async def is_connected() -> bool:
            found = await client.workers(connected_only=True)
            return any("-worker-1-" in one.worker_id for one in found)

        async with started(suite) as process:
            await until_true(is_connected)
            first = [one for one in await client.workers() if "-worker-1-" in one.worker_id]
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        async with started(suite):
            await until_true(is_connected)
            second = [one for one in await client.workers() if "-worker-1-" in one.worker_id]
    assert [one.worker_id for one in first] == [one.worker_id for one in second]
    assert [one.session_id for one in first] != [one.session_id for one in second]


def test_what_cannot_be_a_worker(suite: Suite) -> None:
    assert suite.stretto("worker", "start", "--labels", "zone").returncode == 2
    assert suite.stretto("worker", "start", "--queue", "").returncode == 2
    assert suite.stretto("worker", "start", "--slots", "0").returncode == 2
