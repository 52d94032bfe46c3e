"""The examples, each run as its header says, on a suite of real processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from stretto_sdk.plan_files.read import read_plan_file

from tests.e2e.conftest import ROOT, Suite, command, fresh_suites, json_of
from tests.integration.worker.http_server import http_server

EXAMPLES = ROOT / "examples"
TOKEN = "a-token-of-the-shop"


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    """A suite of one worker that knows the shop's token."""
    for suite in fresh_suites():
        suite.environ["STRETTO_SECRET_SHOP_TOKEN"] = TOKEN
        suite.up("--workers", 1, "--slots", 4)
        yield suite


def output_of(suite: Suite, example: str, *options: object) -> Any:
    """Return the output of an example's run, JSON or text."""
    told = suite.stretto("run", EXAMPLES / example, *options, "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    return json.loads(told.stdout)["output"]


def test_hello_is_the_same_in_yaml_and_json(suite: Suite) -> None:
    assert output_of(suite, "hello/plan.yaml", "--input", '{"who": "you"}') == "hello, you\n"
    both = [read_plan_file(EXAMPLES / "hello" / f"plan.{kind}") for kind in ("yaml", "json")]
    assert both[0] == both[1]


def test_the_word_count_spawns_a_task_for_every_few_files(suite: Suite, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.md").write_text("fugue " * number + "canon theme\n")
    (tmp_path / "other.txt").write_text("fugue " * 1_000)
    told = suite.stretto(
        "run", EXAMPLES / "word_count/plan.yaml", "--json", "--set", f"directory={tmp_path}"
    )
    run = json.loads(told.stdout)
    assert run["output"] == {"files": 12, "words": {"fugue": 66, "canon": 12, "theme": 12}}
    tasks = json_of(suite.stretto("tasks", run["run_id"], "--json"))["tasks"]
    assert sum(each["spawner"] == "split" for each in tasks) == 3
    drawn = suite.stretto("render", run["run_id"]).stdout
    assert 'subgraph t0below["spawned by split"]' in drawn
    assert "t0 ==> t1" in drawn
    assert 'count-0002<br/>process"]:::succeeded' in drawn


def test_the_unreliable_source_is_tried_again_cut_off_ignored_and_cleaned_up(suite: Suite) -> None:
    told = suite.stretto("run", EXAMPLES / "unreliable_source/plan.yaml", "--json")
    run = json.loads(told.stdout)
    assert run["state"] == "SUCCEEDED", told.stderr
    assert run["output"]["tries"] == 3
    assert run["output"]["mirror"]["reason"] == "ATTEMPT_TIMEOUT"
    tasks = {
        each["name"]: each
        for each in json_of(suite.stretto("tasks", run["run_id"], "--json"))["tasks"]
    }
    assert tasks["fetch"]["attempt"] == 3
    assert tasks["mirror"]["state"] == "FAILED"
    assert tasks["sweep"]["state"] == "SUCCEEDED"
    assert not Path(tasks["workspace"]["result"]).exists()


def test_the_disk_report_measures_three_directories_by_one_included_file(suite: Suite) -> None:
    report = output_of(suite, "disk_report/plan.yaml", "--set", "pattern=*.md")
    assert set(report) == {"docs", "libs", "tests"}
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.is_file()]
    assert report["docs"] == {
        "files": len(pages),
        "bytes": sum(path.stat().st_size for path in pages),
    }


def test_the_growing_index_decides_what_comes_next_by_what_it_found(
    suite: Suite, tmp_path: Path
) -> None:
    for name in ("a", "b", "b/c"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.txt").write_text("x" * number)
    (tmp_path / "empty").mkdir()
    worker = subprocess.Popen(
        [sys.executable, EXAMPLES / "growing_index" / "worker.py"], env=suite.environ, cwd=ROOT
    )
    try:
        told = command(
            sys.executable, EXAMPLES / "growing_index" / "client.py", tmp_path,
            environ=suite.environ,
        )  # fmt: skip
    finally:
        worker.terminate()
        worker.wait(timeout=120)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == {
        "state": "SUCCEEDED",
        "index": {"directories": 3, "files": 12, "bytes": 18},
    }


async def test_the_http_job_is_tried_again_as_the_server_says_with_the_same_key(
    suite: Suite,
) -> None:
    async with http_server() as shop:
        busy = [(429, "1"), (503, "1"), (429, "0")]
        tries: Counter[str] = Counter()

        async def pay(request: web.Request) -> web.Response:
            order = (await request.json())["order"]
            tries[order] += 1
            if order == "cancelled":
                return web.json_response({"why": "no such order"}, status=404)
            if busy:
                status, seconds = busy.pop(0)
                return web.Response(status=status, headers={"Retry-After": seconds})
            return web.json_response({"paid": order}, status=201)

        shop.answer("/orders", text='["o-1", "cancelled"]')
        shop.handlers["/payments"] = pay
        told = await asyncio.to_thread(
            suite.stretto,
            *("run", EXAMPLES / "http_job/plan.yaml", "--set", f"shop={shop.origin}", "--json"),
        )
    run = json.loads(told.stdout)
    assert run["state"] == "SUCCEEDED", told.stderr
    assert run["output"]["first"] == {"paid": "o-1"}
    assert run["output"]["second"]["reason"] == "HTTP_STATUS"
    assert tries == {"o-1": 4, "cancelled": 1}
    payments = [each for each in shop.asked if each.path == "/payments"]
    assert {each.headers["authorization"] for each in shop.asked} == {f"Bearer {TOKEN}"}
    assert len({each.headers["idempotency-key"] for each in payments if b"o-1" in each.body}) == 1
    events = suite.stretto("events", run["run_id"], "--json").stdout
    assert "SHOP_TOKEN" in events
    assert TOKEN not in events
    waits = [
        json.loads(line)["body"]
        for line in events.splitlines()
        if "AttemptFailed" in line and '"HTTP_STATUS"' in line
    ]
    assert len(waits) == 4


def test_every_example_is_a_plan_to_the_kernel_too(suite: Suite) -> None:
    plans = sorted(EXAMPLES.glob("*/plan.yaml"))
    assert len(plans) >= 4
    for plan in plans:
        options = ("--set", "shop=http://shop") if plan.parent.name == "http_job" else ()
        told = suite.stretto("validate", plan, "--server", *options)
        assert told.returncode == 0, told.stderr


def test_what_only_the_kernel_finds_is_told_with_line_and_column(
    suite: Suite, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "tasks:\n"
        "  - name: a\n"
        "    executor: acme.do\n"
        "    timeouts: {heartbeat: 1d}\n"
        "    join: any_succeeded\n"
        "  - {name: b, executor: acme.do, after: [a], inputs: {x: {from: task, task: a,\n"
        '    pointer: "/~x"}}}\n'
    )
    assert suite.stretto("validate", plan).returncode == 0
    for verb in (("validate", plan, "--server"), ("run", plan)):
        told = suite.stretto(*verb)
        assert told.returncode == 2
        for place in (
            f"{plan}:4:27: tasks[0].timeouts.heartbeat: must be at most 3600 s",
            f"{plan}:5:11: tasks[0].join.kind: needs at least one dependency",
            f"{plan}:7:14: tasks[1].inputs.x.pointer: in a JSON Pointer",
        ):
            assert place in told.stderr
    shown = json.loads(suite.stretto("validate", plan, "--server", "--json").stdout)
    assert [each["line"] for each in shown["mistakes"]] == [4, 5, 7]
