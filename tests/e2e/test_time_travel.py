"""Looking back by the command, on a real suite: --as-of, history, replay, diff."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stretto_cli.exits import ExitStatus

from tests.e2e.conftest import BIN, ROOT, Suite, json_of


class Past(NamedTuple):
    """A run that failed, was retried, and succeeded."""

    suite: Suite
    run_id: str
    version: int


@pytest.fixture(scope="module")
def past(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Past:
    mended = tmp_path_factory.mktemp("past") / "mended"
    plan = {
        "tasks": [
            {"name": "first", "executor": "process", "arguments": {"argv": ["true"]}},
            {
                "name": "broken",
                "executor": "process",
                "arguments": {"argv": ["test", "-e", str(mended)]},
                "after": ["first"],
                "retry": {"max_attempts": 1},
            },
            {
                "name": "last",
                "executor": "process",
                "arguments": {"argv": ["true"]},
                "after": ["broken"],
            },
        ]
    }
    failed = suite.stretto("run", "-", "--json", stdin=json.dumps(plan))
    assert failed.returncode == ExitStatus.FAILED, failed.stderr
    run_id = json.loads(failed.stdout)["run_id"]
    mended.touch()
    retried = json_of(suite.stretto("retry", run_id, "--json"))
    assert retried["state"] == "SUCCEEDED"
    return Past(suite, run_id, json_of(suite.stretto("get", run_id, "--json"))["version"])


def lines(past: Past, *arguments: object) -> list[dict[str, Any]]:
    found = past.suite.stretto(*arguments, "--json")
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_a_run_and_its_tasks_as_they_were(past: Past) -> None:
    suite, run_id = past.suite, past.run_id
    facts = lines(past, "history", run_id)
    ended = next(fact for fact in facts if fact["type"].endswith("RunFailed"))
    then = json_of(suite.stretto("get", run_id, "--as-of", ended["version"], "--json"))
    assert (then["state"], then["version"]) == ("FAILED", ended["version"])
    assert then["failure"]["task"] == "broken" and then["end_time"] == ended["time"]
    at = json_of(suite.stretto("get", run_id, "--as-of", ended["time"], "--json"))
    assert at == then
    number = ended["position"]["number"]
    assert json_of(suite.stretto("get", run_id, "--as-of", f"p0:{number}", "--json")) == then
    listed = json_of(suite.stretto("tasks", run_id, "--as-of", ended["version"], "--json"))
    states = {task["name"]: task["state"] for task in listed["tasks"]}
    assert states == {"first": "SUCCEEDED", "broken": "FAILED", "last": "SKIPPED"}
    one = suite.stretto("get", run_id, "broken", "--as-of", ended["version"])
    assert "FAILED" in one.stdout and one.returncode == 0
    failed = suite.stretto("tasks", run_id, "--as-of", ended["version"], "--state", "failed")
    assert "broken" in failed.stdout and "first" not in failed.stdout
    now = suite.stretto("tasks", run_id, "--state", "FAILED")
    assert now.returncode == 0 and not now.stdout and "no tasks" in now.stderr


def test_history_says_who_what_when_and_why(past: Past) -> None:
    facts = lines(past, "history", past.run_id)
    assert [fact["version"] for fact in facts] == list(range(1, past.version + 1))
    for fact in facts:
        assert fact["principal"] and fact["time"] and fact["correlation_id"]
        assert bool(fact["request_id"]) is not bool(fact["cause_version"]), fact
    by_call = [fact["type"].rpartition(".")[2] for fact in facts if fact["request_id"]]
    assert by_call == ["RunStarted", "RunRetried"]
    some = lines(past, "history", past.run_id, "--type", "RunRetried")
    assert [fact["type"] for fact in some] == ["stretto.run.v1.RunRetried"]
    page = lines(past, "history", past.run_id, "--since", 2, "--limit", 2)
    assert [fact["version"] for fact in page] == [3, 4]
    shown = past.suite.stretto("history", past.run_id).stdout
    assert f"request {some[0]['request_id']}" in shown and "after 1 " in shown
    none = past.suite.stretto("history", past.run_id, "--type", "Nothing")
    assert not none.stdout and "RunStarted" in none.stderr


def test_replay_shows_what_each_fact_changed(past: Past) -> None:
    steps = lines(past, "replay", past.run_id)
    assert [step["version"] for step in steps] == list(range(1, past.version + 1))
    states: dict[str, list[str]] = {}
    for step in steps:
        for task in step["tasks"]:
            states.setdefault(task["name"], []).append(task["state"])
    assert states["first"] == ["READY", "RUNNING", "SUCCEEDED"]
    assert states["last"][0] == "PENDING" and states["last"][-1] == "SUCCEEDED"
    about_run = [step["run"]["state"] for step in steps if step["run"]]
    assert about_run == ["RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]
    some = lines(past, "replay", past.run_id, "--since", 2, "--until", 4)
    assert some == steps[2:4]
    shown = past.suite.stretto("replay", past.run_id).stdout
    assert "RunRetried" in shown and "broken FAILED" in shown and "run SUCCEEDED" in shown


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def test_replay_on_a_terminal_goes_by_keys(past: Past, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    stepping = subprocess.Popen(
        [BIN / "stretto", "replay", past.run_id],
        env={**past.suite.environ, "TERM": "xterm", "COLUMNS": "120"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
    )
    os.close(theirs)
    shown = b""

    def until(word: bytes, count: int = 1) -> None:
        nonlocal shown
        while shown.count(word) < count:
            shown += os.read(ours, 4_096)

    until(b"RunStarted")
    assert b"RunRetried" not in shown, "it waits for a key"
    os.write(ours, b" ")
    until(b"AttemptLeased")
    os.write(ours, b"b")
    until(b"RunStarted", 2)
    os.write(ours, b"e")
    until(b"that is all")
    assert shown.count(b"RunSucceeded") == 1
    assert stepping.wait(timeout=120) == 0


def test_diff_shows_what_lies_between(past: Past) -> None:
    facts = lines(past, "history", past.run_id)
    failed = next(fact["version"] for fact in facts if fact["type"].endswith("RunFailed"))
    found = json_of(past.suite.stretto("diff", past.run_id, "--from", failed, "--json"))
    assert (found["from"], found["to"]) == (failed, past.version)
    changed = {change["name"]: change for change in found["run"]}
    assert (changed["state"]["before"], changed["state"]["after"]) == ("FAILED", "SUCCEEDED")
    tasks = {task["task"]: task for task in found["tasks"]}
    assert tasks.keys() == {"broken", "last"}, "what had succeeded is as it was"
    assert tasks["broken"]["before"]["state"] == "FAILED"
    assert tasks["broken"]["after"]["state"] == "SUCCEEDED"
    assert tasks["broken"]["versions"][0] == failed + 1, "the retry"
    assert {attempt["how"] for attempt in found["attempts"]} == {"AttemptSucceeded"}
    assert [event["version"] for event in found["events"]] == [*range(failed + 1, past.version + 1)]
    by = {fact["version"]: fact for fact in facts}
    own = [by[version]["body"].get("task") for version in tasks["last"]["versions"]]
    assert own[-1] == "last", "that the run ended then did not change its last task"
    begun = json_of(past.suite.stretto("diff", past.run_id, "--from", 1, "--to", 2, "--json"))
    assert [task["task"] for task in begun["tasks"]] == ["first"]
    shown = past.suite.stretto("diff", past.run_id, "--from", failed)
    assert "FAILED → SUCCEEDED" in shown.stdout and "RunRetried" in shown.stdout
    whole = json_of(past.suite.stretto("diff", past.run_id, "--json"))
    assert (whole["from"], whole["to"]) == (1, past.version), "from the start to now"
    same = past.suite.stretto("diff", past.run_id, "--from", failed, "--to", failed)
    assert same.returncode == 0 and "nothing changed" in same.stderr


def test_a_diff_of_more_tasks_than_a_page_has_them_all(suite: Suite) -> None:
    names = [f"t{number}" for number in range(1_005)]
    plan = {"tasks": [{"name": name, "executor": "nobody.has.it"} for name in names]}
    started = json_of(suite.stretto("run", "-", "--no-wait", "--json", stdin=json.dumps(plan)))
    run_id = started["run_id"]
    assert suite.stretto("kill", run_id).returncode == 0
    killed = json_of(suite.stretto("get", run_id, "--json"))["version"]
    asked = ("diff", run_id, "--from", killed - 1, "--to", killed, "--json")
    tasks = json_of(suite.stretto(*asked))["tasks"]
    assert [task["task"] for task in tasks] == names
    assert {task["after"]["state"] for task in tasks} == {"CANCELLED"}
    assert {tuple(task["versions"]) for task in tasks} == {(killed,)}


def test_diff_shows_what_became_of_the_blackboard(suite: Suite) -> None:
    plan = {"tasks": [{"name": "late", "executor": "nobody.has.it"}]}
    started = json_of(suite.stretto("run", "-", "--no-wait", "--json", stdin=json.dumps(plan)))
    run_id = started["run_id"]

    def put(key: str, value: object) -> int:
        put = suite.stretto("board", "put", run_id, key, json.dumps(value), "--json")
        revision: int = json_of(put)["revision"]
        return revision

    def delete(key: str) -> int:
        revision: int = json_of(suite.stretto("board", "delete", run_id, key, "--json"))["revision"]
        return revision

    put("custom/same", 0)
    put("custom/changed", "old")
    begin = put("custom/gone", "x" * 70_000)
    changed = [put("custom/changed", "between"), put("custom/changed", {"a": 1})]
    gone = delete("custom/gone")
    new = put("custom/new", None)
    put("custom/flash", 1)
    end = delete("custom/flash")
    found = json_of(suite.stretto("diff", run_id, "--from", begin, "--to", end, "--json"))
    board = {entry["key"]: entry for entry in found["board"]}
    assert list(board) == ["custom/changed", "custom/gone", "custom/new"], "and nothing else"
    entry = board["custom/changed"]
    assert (entry["before"]["value"], entry["after"]["value"]) == ("old", {"a": 1})
    assert (entry["versions"], entry["after"]["revision"]) == (changed, changed[-1])
    assert board["custom/gone"]["after"] is None and board["custom/gone"]["versions"] == [gone]
    assert set(board["custom/gone"]["before"]["value"]) == {"sha256", "size_bytes", "content_type"}
    assert board["custom/new"]["before"] is None and board["custom/new"]["versions"] == [new]
    assert board["custom/new"]["after"]["value"] is None
    shown = suite.stretto("diff", run_id, "--from", begin, "--to", end).stdout
    assert '"old" → {"a": 1}' in shown and "→ deleted" in shown and "new → null" in shown
    nothing = json_of(suite.stretto("diff", run_id, "--from", 1, "--to", 1, "--json"))
    assert nothing["board"] == []
    assert suite.stretto("kill", run_id).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("diff", "RUN", "--from", 5, "--to", 2), "the other way round"),
        (("diff", "RUN", "--from", "yesterday"), "--from yesterday"),
        (("diff", "RUN", "--from", 100_000), "not there yet"),
        (("get", "RUN", "--as-of", 100_000), "not there yet"),
        (("get", "RUN", "--as-of", "2001-01-01T00:00:00Z"), "had not begun"),
        (("get", "RUN", "--as-of", 0), "as_of.version"),
        (("replay", "RUN", "--since", 5, "--until", 2), "--until 2"),
        (("replay", "RUN", "--until", 100_000), "not there yet"),
        (("tasks", "RUN", "--state", "FALED"), "did you mean FAILED"),
        (("replay", "p0-" + "0" * 32), "no such run"),
        (("history", "p0-" + "0" * 32), "no such run"),
        (("diff", "p0-" + "0" * 32, "--from", 1), "no such run"),
        (("get", "p0-" + "0" * 32, "--as-of", 1), "no such run"),
    ],
)
def test_what_is_wrong_is_told(past: Past, arguments: tuple[object, ...], told: str) -> None:
    asked = (past.run_id if each == "RUN" else each for each in arguments)
    refused = past.suite.stretto(*asked)
    assert refused.returncode == ExitStatus.USAGE, refused.stderr
    assert told in refused.stderr and not refused.stdout


def test_the_pages_of_a_past_are_of_one_version(past: Past) -> None:
    seen: list[str] = []
    token: list[object] = []
    while True:
        asked = ("tasks", past.run_id, "--as-of", 1, "--limit", 2, *token, "--json")
        page = json_of(past.suite.stretto(*asked))
        seen += [task["name"] for task in page["tasks"]]
        if not page["next_page_token"]:
            break
        token = ["--page-token", page["next_page_token"]]
    assert seen == ["first", "broken", "last"]


def test_the_sdk_has_the_same(past: Past, tmp_path: Path) -> None:
    program = tmp_path / "look_back.py"
    program.write_text(
        "import sys\n"
        "from stretto_sdk import SyncClient\n"
        "with SyncClient() as client:\n"
        "    steps = list(client.replay(sys.argv[1], until_version=2))\n"
        "    print(len(steps), client.get(sys.argv[1], as_of=1).state)\n"
        "    print(len(client.diff(sys.argv[1], 1, 2).events))\n"
        "    print([task.name for task in client.tasks(sys.argv[1], 'queue = \"default\"')])\n"
    )
    environ = past.suite.environ
    done = subprocess.run(
        [BIN / "python", program, past.run_id],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split("\n")[:2] == ["2 RUNNING", "1"], done.stderr
    assert "['first', 'broken', 'last']" in done.stdout
