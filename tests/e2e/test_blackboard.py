"""The blackboard on real processes: the command, a kernel killed, a frozen worker."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stretto_cli.exits import ExitStatus
from stretto_sdk import Plan

from tests.e2e.conftest import ROOT, Suite, command, fresh_suites, json_of
from tests.waiting import until

IDLE = {
    "tasks": [
        {"name": "a", "executor": "process", "queue": "nobody", "arguments": {"argv": ["true"]}}
    ]
}


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    for suite in fresh_suites():
        suite.up("--workers", 1)
        yield suite


def start(suite: Suite) -> str:
    return suite.stretto("run", "-", "--no-wait", stdin=json.dumps(IDLE)).stdout.strip()


def test_the_command_writes_reads_lists_and_deletes(suite: Suite, tmp_path: Path) -> None:
    run = start(suite)
    put = json_of(suite.stretto("board", "put", run, "context/goal", '{"aim": 42}', "--json"))
    first = put["revision"]
    got = suite.stretto("board", "get", run, "context/goal")
    assert json.loads(got.stdout) == {"aim": 42}
    refused = suite.stretto("board", "put", run, "context/goal", "1", "--expected", "0")
    assert refused.returncode == ExitStatus.USAGE and str(first) in refused.stderr
    file = tmp_path / "hint.json"
    file.write_text('"look into the cellar"')
    suite.stretto("board", "put", run, "a:human/hint", f"@{file}")
    listed = json_of(suite.stretto("board", "list", run, "--json"))["entries"]
    assert [each["key"] for each in listed] == ["a:human/hint", "context/goal"]
    assert "cellar" in suite.stretto("board", "list", run, "a:").stdout
    suite.stretto("board", "delete", run, "context/goal")
    gone = suite.stretto("board", "get", run, "context/goal")
    assert gone.returncode != ExitStatus.SUCCESS and "board list" in gone.stderr
    then = suite.stretto("board", "get", run, "context/goal", "--as-of", str(first))
    assert json.loads(then.stdout) == {"aim": 42}
    suite.stretto("kill", run)
    watched = suite.stretto("board", "watch", run, "--after", str(first), "--json").stdout
    changes = [json.loads(line) for line in watched.splitlines()]
    assert [(each["key"], each["deleted"]) for each in changes] == [
        ("a:human/hint", False),
        ("context/goal", True),
    ]
    closed = suite.stretto("board", "put", run, "context/goal", "1")
    assert closed.returncode == ExitStatus.USAGE and "ended" in closed.stderr


async def test_a_kernel_killed_between_writes_loses_none_and_doubles_none(suite: Suite) -> None:
    async with suite.client() as client:
        plan = Plan("idle")
        plan.task("a", executor="process", argv=["true"], queue="nobody")
        run = await client.start(plan)
        board = client.blackboard(run)
        told: list[object] = []

        async def watch() -> None:
            async for entry in board.watch("context/"):
                told.append(entry.value)

        watching = asyncio.create_task(watch())
        revision = 0
        for number in range(60):
            if number in (15, 40):
                suite.signal("kernel", signal.SIGKILL)  # The next write is sent into the gap.
            revision = await board.put("context/count", number, expected=revision)
        seen = await board.entry("context/count")
        assert seen is not None and (seen.value, seen.revision) == (59, revision)
        await client.kill(run)
        await asyncio.wait_for(watching, 60)
        assert told == list(range(60)), "each once, in order, over both deaths"


WORKER = """
import sys, time
from pathlib import Path
from stretto_sdk import Worker
from stretto_sdk.errors import Refusal

worker = Worker(name=sys.argv[1], queues=["frozen"])

@worker.task
def count(ctx):
    where = Path(sys.argv[2])
    if ctx.epoch > 1:
        ctx.blackboard.put(":progress/last", "second")
        return ctx.epoch
    number = 0
    while True:
        number += 1
        try:
            ctx.blackboard.put(":progress/count", number)
        except Refusal as refused:
            where.write_text(refused.reason_word)
            return None

worker.run()
"""


async def test_a_worker_that_was_frozen_past_its_lease_writes_nothing_more(
    suite: Suite, tmp_path: Path
) -> None:
    script, refused = tmp_path / "worker.py", tmp_path / "refused"
    script.write_text(WORKER)
    workers = []

    def begin(name: str) -> subprocess.Popen[bytes]:
        workers.append(
            subprocess.Popen([sys.executable, script, name, refused], env=suite.environ, cwd=ROOT)
        )
        return workers[-1]

    plan = Plan("frozen")
    plan.task(
        "a",
        executor="python",
        function="count",
        queue="frozen",
        timeouts={"heartbeat": "1s"},
        retry={"initial_interval": "0s"},
    )
    try:
        async with suite.client() as client:
            first = begin("first")
            run = await client.start(plan)
            board = client.blackboard(run)
            async for entry in board.watch("a:progress/"):
                if entry.value == 3:
                    break
            first.send_signal(signal.SIGSTOP)
            begin("second")
            ended = await asyncio.wait_for(client.wait(run), 60)
            assert ended.state == "SUCCEEDED"
            before = [entry async for entry in board.list()]
            first.send_signal(signal.SIGCONT)
            await until(refused.exists)
            assert refused.read_text() == "LEASE_LOST"
            assert [entry async for entry in board.list()] == before
            last = next(entry for entry in before if entry.key == "a:progress/last")
            assert (last.value, last.epoch) == ("second", 2)
    finally:
        for each in workers:
            each.kill()
            each.wait()


def test_the_relay_race_is_won(suite: Suite) -> None:
    told = command(sys.executable, ROOT / "examples/relay_race/race.py", 7, environ=suite.environ)
    assert told.returncode == 0, told.stdout + told.stderr
    turns = [line.split()[-1] for line in told.stdout.splitlines() if "progress/turn" in line]
    assert turns == [str(turn) for turn in range(1, 8)]
    assert told.stdout.splitlines()[-1] == "won at 7"


def test_a_program_writes_as_the_page_says(suite: Suite, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "blackboard.md").read_text()
    plan = tmp_path / "plan.yaml"
    plan.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    run = json_of(suite.stretto("run", plan, "--json"))
    (entry,) = json_of(suite.stretto("board", "list", run["run_id"], "--json"))["entries"]
    assert (entry["key"], entry["value"]) == ("build:result/size", 42)
    assert (entry["writer_kind"], entry["task"], entry["attempt"]) == ("WORKER", "build", 1)
    written = suite.stretto("events", run["run_id"], "--type", "BoardEntriesWritten", "--json")
    assert len(written.stdout.splitlines()) == 2


def test_a_line_that_is_refused_fails_the_attempt(suite: Suite) -> None:
    line = '{"key": "context/goal", "value": 1}'
    script = f"echo '{line}' > $STRETTO_BOARD"
    arguments = {"argv": ["sh", "-c", script], "output": "none", "blackboard": True}
    once = {"max_attempts": 1}
    task = {"name": "a", "executor": "process", "retry": once, "arguments": arguments}
    started = suite.stretto("run", "-", "--json", stdin=json.dumps({"tasks": [task]}))
    assert started.returncode == ExitStatus.FAILED, started.stderr
    ended = json.loads(started.stdout)
    assert ended["failure"]["reason"] == "BOARD_WRITE_REFUSED"
    assert "line 1" in ended["failure"]["message"], "of the run's scope, which is not the task's"
