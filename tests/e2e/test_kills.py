"""kill -9 of each process in mid-run: the run ends, nothing lost, nothing accepted twice."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

import pytest
from stretto_core.errors import NotFound
from stretto_sdk import Client, Plan, RunState, TaskState

from tests.e2e.conftest import Gate, Suite, accepted, events_of, of_kind
from tests.waiting import until

LIMIT = timedelta(seconds=60)
NAMES = [f"t{number}" for number in range(6)]


def gated_plan(gate: Gate) -> dict[str, object]:
    tasks = [gate.task(name, timeouts={"heartbeat": "2s"}) for name in NAMES]
    last = {
        "name": "last",
        "executor": "process",
        "arguments": {"argv": ["echo", "all done"], "output": "text"},
        "after": NAMES,
    }
    return {"tasks": [*tasks, last], "output": {"from": "task", "task": "last"}}


@pytest.mark.parametrize(
    ("process", "number"),
    [
        ("worker-1", signal.SIGKILL),
        ("kernel", signal.SIGKILL),
        ("projector", signal.SIGKILL),
        ("postgres", signal.SIGQUIT),  # Its immediate stop, as in a crash.
        ("postgres", signal.SIGKILL),
    ],
)
async def test_a_run_survives_the_death_of(
    suite: Suite, gate: Gate, process: str, number: signal.Signals
) -> None:
    async with suite.client() as client:
        run = await client.start(gated_plan(gate))
        await until(lambda: set(gate.count("start")) == set(NAMES))
        before = suite.restarts(process)
        suite.signal(process, number)
        await until(lambda: suite.restarts(process) > before)
        gate.open()
        assert await client.result(run, timeout=LIMIT) is not None
        events = await events_of(client, run)
        assert accepted(events) == dict.fromkeys([*NAMES, "last"], 1)
        assert len(of_kind(events, "RunSucceeded")) == 1
        assert (await client.verify()).whole
        if process != "worker-1":
            # The worker was never gone: it keeps its leases, and no body is started again.
            assert gate.count("start") == dict.fromkeys(NAMES, 1)
            assert of_kind(events, "AttemptLost") == []
    await until(lambda: suite.stretto("status").returncode == 0)


async def test_a_killed_worker_takes_its_children_with_it(suite: Suite, gate: Gate) -> None:
    async with suite.client() as client:
        run = await client.start(gated_plan(gate))
        await until(lambda: set(gate.count("start")) == set(NAMES))
        held = {
            task.name: task.epoch
            for task in await client.tasks(run)
            if task.state is TaskState.RUNNING and task.worker_id == "worker-2"
        }
        assert held, "work is spread over both workers"
        suite.signal("worker-2", signal.SIGKILL)
        # Taken over while the gate is shut: by another worker, without waiting for a lease to end.
        await until(lambda: all(gate.count("start")[name] == 2 for name in held))
        gate.open()
        await client.result(run, timeout=LIMIT)
        assert gate.count("end") == dict.fromkeys(NAMES, 1), "the orphans were ended"
        assert accepted(await events_of(client, run)) == dict.fromkeys([*NAMES, "last"], 1)


async def test_a_client_does_not_notice_that_the_kernel_dies(suite: Suite, gate: Gate) -> None:
    async with suite.client() as client:
        run = await client.start(gated_plan(gate))
        waiting = asyncio.ensure_future(client.result(run, timeout=LIMIT))
        await until(lambda: set(gate.count("start")) == set(NAMES))
        suite.signal("kernel", signal.SIGKILL)
        # Sent into the gap: it is repeated until the next kernel answers, and starts once.
        plan = Plan("in the gap")
        plan.task("quick", executor="process", argv=["true"])
        second = await client.start(plan)
        gate.open()
        assert await waiting is not None
        await client.result(second, timeout=LIMIT)
        assert accepted(await events_of(client, second)) == {"quick": 1}


async def test_the_supervisor_may_be_killed_and_the_next_one_goes_on(
    idle_suite: Suite, gate: Gate
) -> None:
    idle_suite.up("--workers", 1, "--slots", 8)
    async with idle_suite.client() as client:
        run = await client.start(gated_plan(gate))
        await until(lambda: set(gate.count("start")) == set(NAMES))
    running = idle_suite.directory.running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    await until(lambda: idle_suite.directory.running() is None)
    idle_suite.up("--workers", 1, "--slots", 8)
    gate.open()
    async with idle_suite.client() as client:
        await client.result(run, timeout=LIMIT)
        assert accepted(await events_of(client, run)) == dict.fromkeys([*NAMES, "last"], 1)
        with pytest.raises(NotFound):
            await client.get("p0-0123456789ab0123456789abcdef0123")


async def test_what_ended_before_a_restart_is_still_there(suite: Suite) -> None:
    async with suite.client() as client:
        plan = Plan("kept", labels={"kind": "kept"})
        plan.output = plan.task(
            "one", executor="process", argv=["echo", "kept"], output="text"
        ).output()
        run = await client.start(plan)
        output = await client.result(run, timeout=LIMIT)
        before = suite.restarts("kernel")
        suite.signal("kernel", signal.SIGKILL)
        await until(lambda: suite.restarts("kernel") > before)
        again = await client.get(run)
        assert (again.state, again.output) == (RunState.SUCCEEDED, output)
        assert await listed(client, "kept") == [run.run_id]


async def listed(client: Client, kind: str) -> list[str]:
    return [run.run_id async for run in client.list(f'labels.kind = "{kind}"')]
