"""Clients and workers that are not ours: Node from the contracts, `buf curl` from reflection.

Node's packages are installed once a test process into a directory of their own, by npm and its
cache. Without node the Node tests are skipped; with node and no way to its packages they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from stretto_sdk import Client, Run, RunState

from tests.e2e.conftest import (
    BIN,
    ROOT,
    Gate,
    Suite,
    accepted,
    command,
    events_of,
    fresh_suites,
    of_kind,
)
from tests.waiting import until

EXAMPLE = ROOT / "examples" / "node_client"
LIMIT = timedelta(seconds=60)
NAMES = ["t0", "t1", "t2"]
KINDS = ["stream", "unary"]
BODIES = """
import { appendFileSync, existsSync } from "node:fs";
const directory = process.env.GATE;
const note = (word, name) => appendFileSync(`${directory}/ledger`, `${word} ${name}\\n`);
export default {
  "node.gate": async ({ name }, signal) => {
    note("start", name);
    while (!existsSync(`${directory}/open`)) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    note("end", name);
    return `${name} done`;
  },
};
"""


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    """A suite without workers of its own."""
    for suite in fresh_suites():
        suite.up("--workers", 0)
        yield suite


@pytest.fixture(scope="module")
def node_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages and the contracts, as its documentation says."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node here")
    directory = tmp_path_factory.mktemp("node") / "node_client"
    shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("node_modules", "contracts"))
    (directory / "gate.mjs").write_text(BODIES)
    for step in (
        ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"),
        (BIN / "buf", "export", ROOT, "-o", directory / "contracts"),
    ):
        done = command(*step, environ=dict(os.environ), cwd=directory)
        assert done.returncode == 0, f"{step[0]} cannot do its part: {done.stderr}"
    return directory


class Node:
    """Runs the example's programs against a suite."""

    def __init__(self, directory: Path, suite: Suite, gate: Gate) -> None:
        self._directory = directory
        self._environ = suite.environ | {
            "STRETTO_ADDRESS": suite.directory.address() or "",
            "GATE": str(gate.directory),
        }

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return command("node", program, *arguments, environ=self._environ, cwd=self._directory)

    @contextmanager
    def worker(self, kind: str, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            ["node", f"{kind}_worker.js", *arguments, "--name", name, "--slots", "3"],
            env=self._environ,
            cwd=self._directory,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def node(node_directory: Path, suite: Suite, gate: Gate) -> Node:
    return Node(node_directory, suite, gate)


def gated(heartbeat: str = "30s") -> dict[str, Any]:
    tasks = [
        {"name": name, "executor": "node.gate", "timeouts": {"heartbeat": heartbeat}}
        for name in NAMES
    ]
    return {"tasks": tasks}


async def started(client: Client, gate: Gate, plan: dict[str, Any], count: int = 1) -> Run:
    """Start the plan; return when each of its tasks has begun `count` times."""
    run = await client.start(plan)
    await until(lambda: gate.count("start") == dict.fromkeys(NAMES, count))
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_in_node_starts_and_watches_what_workers_in_node_do(node: Node, kind: str) -> None:
    with node.worker(kind, f"{kind}-greeter") as worker:
        told = node.run("client.js", "Ada", "Grace")
        worker.terminate()
        assert worker.wait(30) == 0, "a drained worker with nothing to do ends"
    assert told.returncode == 0, told.stderr
    said = [json.loads(line) for line in told.stdout.splitlines()]
    assert said[-1] == {"state": "RUN_STATE_SUCCEEDED", "output": "hello, Grace"}
    assert any(line == {f"{run_name(said)}/tasks/greet-1": "TASK_STATE_SUCCEEDED"} for line in said)


def run_name(said: list[dict[str, str]]) -> str:
    return f"namespaces/default/runs/{said[0]['started']}"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_kernel_dies_while_a_worker_in_node_works(
    suite: Suite, node: Node, gate: Gate, kind: str
) -> None:
    with node.worker(kind, f"{kind}-steady", "gate.mjs"):
        async with suite.client() as client:
            run = await started(client, gate, gated())
            before = suite.restarts("kernel")
            suite.signal("kernel", signal.SIGKILL)
            await until(lambda: suite.restarts("kernel") > before)
            gate.open()
            await client.result(run, timeout=LIMIT)
            events = await events_of(client, run)
    assert accepted(events) == dict.fromkeys(NAMES, 1)
    assert gate.count("start") == dict.fromkeys(NAMES, 1), "no body is started again"
    assert of_kind(events, "AttemptLost") == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_in_node_dies_in_mid_task(
    suite: Suite, node: Node, gate: Gate, kind: str
) -> None:
    async with suite.client() as client:
        with node.worker(kind, f"{kind}-mortal", "gate.mjs") as worker:
            run = await started(client, gate, gated(heartbeat="2s"))
            worker.kill()
            with node.worker(kind, f"{kind}-heir", "gate.mjs"):
                await until(lambda: gate.count("start") == dict.fromkeys(NAMES, 2))
                gate.open()
                await client.result(run, timeout=LIMIT)
        events = await events_of(client, run)
    assert accepted(events) == dict.fromkeys(NAMES, 1)
    given_up = [*of_kind(events, "AttemptLost"), *of_kind(events, "AttemptReleased")]
    assert {event.body["task"] for event in given_up} == set(NAMES)
    # A body may begin before its acknowledgement has left the process, and die with it.
    assert {event.body["cause"] for event in given_up} <= {
        "LOSS_CAUSE_EXPIRED",
        "RELEASE_CAUSE_NOT_ACKNOWLEDGED",
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_newer_process_of_a_worker_in_node_takes_over_at_once(
    suite: Suite, node: Node, gate: Gate, kind: str
) -> None:
    async with suite.client() as client:
        with node.worker(kind, f"{kind}-same", "gate.mjs") as older:
            run = await started(client, gate, gated())
            with node.worker(kind, f"{kind}-same", "gate.mjs"):
                await until(lambda: gate.count("start") == dict.fromkeys(NAMES, 2))
                assert older.wait(30) == 1, "the older process is told to exit"
                gate.open()
                await client.result(run, timeout=LIMIT)
        events = await events_of(client, run)
    causes = {event.body["cause"] for event in of_kind(events, "AttemptLost")}
    assert causes == {"LOSS_CAUSE_SESSION_REPLACED"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_drained_worker_in_node_finishes_what_it_holds(
    suite: Suite, node: Node, gate: Gate, kind: str
) -> None:
    async with suite.client() as client:
        with node.worker(kind, f"{kind}-leaver", "gate.mjs") as worker:
            run = await started(client, gate, gated())
            worker.terminate()
            gate.open()
            await client.result(run, timeout=LIMIT)
            assert worker.wait(30) == 0
        events = await events_of(client, run)
    assert gate.count("end") == dict.fromkeys(NAMES, 1)
    assert of_kind(events, "AttemptReleased") == of_kind(events, "AttemptLost") == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_in_node_that_is_asked_to_leave_finishes_and_ends(
    suite: Suite, node: Node, gate: Gate, kind: str
) -> None:
    async with suite.client() as client:
        with node.worker(kind, f"{kind}-asked", "gate.mjs") as worker:
            run = await started(client, gate, gated())
            await client.drain_worker(f"{kind}-asked", reason="update")
            gate.open()
            await client.result(run, timeout=LIMIT)
            assert worker.wait(30) == 0
    assert gate.count("end") == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancel_reaches_a_worker_in_node(
    suite: Suite, node: Node, gate: Gate, kind: str
) -> None:
    async with suite.client() as client:
        with node.worker(kind, f"{kind}-obedient", "gate.mjs"):
            run = await started(client, gate, gated())
            await client.cancel(run, reason="enough")
            ended = await client.wait(run, timeout=LIMIT)
        events = await events_of(client, run)
    assert ended.state is RunState.CANCELLED
    assert len(of_kind(events, "AttemptCancelled")) == len(NAMES)


class TestBufCurl:
    """`buf curl` knows nothing of us but what reflection tells it."""

    def call(self, suite: Suite, method: str, request: dict[str, Any] | None = None) -> Any:
        address = suite.directory.address()
        done = command(
            *(BIN / "buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge"),
            *(("--data", json.dumps(request or {})) if method else ("--list-methods",)),
            f"http://{address}/{method}" if method else f"http://{address}",
            environ=suite.environ,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if method else done.stdout.split()

    def test_reflection_lists_every_service(self, suite: Suite) -> None:
        methods = self.call(suite, "")
        for method in ("run.v1.RunService/StartRun", "work.v1.WorkService/LeaseWork"):
            assert f"stretto.{method}" in methods
        assert "grpc.health.v1.Health/Check" in methods

    def test_health(self, suite: Suite) -> None:
        answer = self.call(suite, "grpc.health.v1.Health/Check", {"service": ""})
        assert answer == {"status": "SERVING"}

    async def test_a_run_is_started_found_and_worked_on(self, suite: Suite) -> None:
        plan = {"tasks": [{"name": "a", "executor": "curl.body"}]}
        start = {"request_id": "from-curl", "task_graph": plan}
        run = self.call(suite, "stretto.run.v1.RunService/StartRun", start)["run"]
        again = self.call(suite, "stretto.run.v1.RunService/StartRun", start)["run"]
        assert again["runId"] == run["runId"]
        worker = {
            "workerId": "curl",
            "sessionId": "01890000-0000-7000-8000-000000000001",
            "executors": ["curl.body"],
        }
        work = "stretto.work.v1.WorkService"
        leased = self.call(suite, f"{work}/LeaseWork", {"worker": worker, "requestId": "1"})
        (assignment,) = leased["assignments"]
        renewal = {"renewals": [{"token": assignment["token"]}]}
        assert self.call(suite, f"{work}/RenewLeases", renewal) == {}
        outcome = {"token": assignment["token"], "succeeded": {"result": {"json": "42"}}}
        report = {"outcomes": [outcome]}
        (receipt,) = self.call(suite, f"{work}/ReportOutcomes", report)["receipts"]
        assert receipt["kind"] == "RECEIPT_KIND_OUTCOME"
        got = self.call(suite, "stretto.run.v1.RunService/GetRun", {"name": run["name"]})["run"]
        assert got["state"] == "RUN_STATE_SUCCEEDED"
        await until(lambda: run["name"] in self.listed(suite))  # The view trails by moments.

    def listed(self, suite: Suite) -> set[str]:
        answer = self.call(suite, "stretto.run.v1.RunService/ListRuns", {"page_size": 50})
        return {run["name"] for run in answer.get("runs", ())}
