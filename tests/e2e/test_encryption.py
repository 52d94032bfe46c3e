"""A suite whose namespace encrypts, its kernel killed: no file holds the secret, then nobody."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from stretto_sdk import SHREDDED, Client, Run

from tests.e2e.conftest import BIN, Gate, Suite, command, until_true

SECRET = "quince-and-tungsten-93"


@pytest.fixture(scope="module", autouse=True)
def encrypting(suite: Suite) -> None:
    told = suite.stretto("namespace", "set", "default", "--encrypt")
    assert told.returncode == 0, told.stderr


def files_with(root: Path, wanted: bytes) -> list[str]:
    """The files below a directory that hold the bytes, as they lie on the disk."""
    found = []
    for path in root.rglob("*"):
        if path.is_file():
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            if wanted in content:
                found.append(str(path.relative_to(root)))
    return found


def plan(gate: Gate) -> dict[str, object]:
    says = 'echo "$0 in the log" >&2; printf \'{"said": "%s"}\' "$0"'
    word = 'while [ $i -lt 5000 ]; do printf %s "$0"; i=$((i+1)); done'
    repeats = f"i=0; printf '\"'; {word}; printf '\"'"
    echo = {"argv": ["sh", "-c", says, SECRET]}
    large = {"argv": ["sh", "-c", repeats, SECRET]}
    return {
        "tasks": [
            gate.task("held"),
            {"name": "echo", "executor": "process", "arguments": echo},
            {"name": "large", "executor": "process", "arguments": large},
        ]
    }


async def ended_count(client: Client, run_id: str) -> int:
    run: Run = await client.get(run_id)
    return run.tasks.ended


async def test_no_file_holds_the_secret_and_then_nobody_does(suite: Suite, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    started = suite.stretto(
        "run", "-", "--no-wait", "--json", "--input", json.dumps({"secret": SECRET}),
        stdin=json.dumps(plan(gate)),
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    run_id = json.loads(started.stdout)["run_id"]
    async with suite.client() as client:

        async def two_ended() -> bool:
            return await ended_count(client, run_id) == 2

        await until_true(two_ended)
        suite.signal("kernel", signal.SIGKILL)
        gate.open()
        ended = await client.wait(run_id)
        assert str(ended.state) == "SUCCEEDED", ended.failure
        tasks = {task.name: task for task in await client.tasks(run_id)}
        assert tasks["echo"].result == {"said": SECRET}
        assert str(await client.fetch(tasks["large"].result)).startswith(SECRET)
        assert ended.encrypted
        root = suite.directory.root

        async def listed_as_ended() -> bool:
            page = await client.pages.runs(page_size=1)
            return [str(run.state) for run in page.runs] == ["SUCCEEDED"]

        await until_true(listed_as_ended)
        assert files_with(root, SECRET.encode()) == []
        assert files_with(root, run_id.encode()) != [], "the search finds things"
        exported = suite.stretto("export", "-o", tmp_path / "log")
        assert exported.returncode == 0, exported.stderr
        assert SECRET.encode() not in (tmp_path / "log").read_bytes()

        told = suite.stretto("shred", run_id, "--reason", "a test", "--yes", "--json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["input"] == {"shredded": True}
        run = await client.get(run_id)
        assert run.input is SHREDDED and run.shred_reason == "a test"
        assert {task.name: task.result for task in await client.tasks(run_id)}["echo"] is SHREDDED
    for asked in (("events", run_id, "--json"), ("logs", run_id), ("tasks", run_id, "--json")):
        read = suite.stretto(*asked)
        assert read.returncode == 0, read.stderr
        assert SECRET not in read.stdout and SECRET not in read.stderr
    assert suite.stretto("verify").returncode == 0
    checked = command(BIN / "stretto-verify", tmp_path / "log", environ=suite.environ)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rebuilt = suite.stretto("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert run_id in suite.stretto("runs", "--json").stdout


def test_a_shredding_is_asked_for_twice_and_open_runs_are_refused(suite: Suite) -> None:
    plan = {"tasks": [{"name": "a", "executor": "sleep", "arguments": {"duration": "1h"}}]}
    started = suite.stretto("run", "-", "--no-wait", "--json", stdin=json.dumps(plan))
    run_id = json.loads(started.stdout)["run_id"]
    unsaid = suite.stretto("shred", run_id)
    assert unsaid.returncode == 2 and "--yes" in unsaid.stderr
    refused = suite.stretto("shred", run_id, "--yes")
    assert refused.returncode != 0 and "kill it first" in refused.stderr
    assert suite.stretto("kill", run_id).returncode == 0
    assert suite.stretto("shred", run_id, "--yes").returncode == 0


def test_nobody_is_asked_about_a_run_that_has_no_key(suite: Suite) -> None:
    plan = {"tasks": [{"name": "a", "executor": "sleep", "arguments": {"duration": "0s"}}]}
    clear = ("--namespace", "in-the-clear")
    started = suite.stretto("run", "-", "--json", *clear, stdin=json.dumps(plan))
    refused = suite.stretto("shred", json.loads(started.stdout)["run_id"], *clear)
    assert refused.returncode == 2
    assert "without a data key" in refused.stderr and "--yes" not in refused.stderr
