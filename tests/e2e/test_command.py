"""The command against a real suite: each verb once, as a person or a script would use it."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from stretto_cli.exits import ExitStatus
from stretto_core.eventlog.seals import seals_stream
from stretto_core.ids import Partition

from tests.e2e.conftest import BIN, Gate, Suite, command, json_of
from tests.waiting import until

HELLO = {
    "name": "hello",
    "tasks": [
        {
            "name": "hello",
            "executor": "process",
            "arguments": {"argv": ["echo", "hello"], "output": "text"},
        },
    ],
    "output": {"from": "task", "task": "hello"},
}


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello.json"
    path.write_text(json.dumps(HELLO))
    return path


def started(suite: Suite, plan: dict[str, Any]) -> str:
    result = suite.stretto("run", "-", "--no-wait", stdin=json.dumps(plan))
    assert result.returncode == ExitStatus.SUCCESS, result.stderr
    return result.stdout.strip()


def streams_of(suite: Suite) -> set[str]:
    """Return the recorded streams but for the seals, which begin when time has passed."""
    lines = suite.stretto("events", "--json").stdout.splitlines()
    return {json.loads(line)["stream"] for line in lines} - {seals_stream(Partition("p0"))}


def test_run_prints_the_output_and_the_record_can_be_read(suite: Suite, hello: Path) -> None:
    run = json_of(suite.stretto("run", hello, "--json"))
    assert run["state"] == "SUCCEEDED"
    assert "hello" in json.dumps(run["output"])
    assert "hello" in suite.stretto("run", hello).stdout

    shown = json_of(suite.stretto("get", run["run_id"], "--json"))
    assert (shown["state"], shown["name"], shown["task_counts"]["succeeded"]) == (
        "SUCCEEDED",
        "hello",
        1,
    )
    assert "SUCCEEDED" in suite.stretto("get", run["run_id"]).stdout

    tasks = json_of(suite.stretto("tasks", run["run_id"], "--json"))["tasks"]
    assert [(task["name"], task["state"], task["epoch"]) for task in tasks] == [
        ("hello", "SUCCEEDED", 1)
    ]
    assert "hello" in suite.stretto("tasks", run["run_id"]).stdout

    lines = suite.stretto("events", run["run_id"], "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["type"].rpartition(".")[2] for event in events] == [
        "RunStarted",
        "AttemptLeased",
        "AttemptSucceeded",
        "RunSucceeded",
    ]
    assert [event["version"] for event in events] == [1, 2, 3, 4]
    assert events[0]["principal"] == "operator"
    assert events[1]["body"]["workerId"].startswith("worker-")
    assert "RunSucceeded" in suite.stretto("events", run["run_id"]).stdout
    assert run["run_id"] in suite.stretto("events").stdout

    check = json_of(suite.stretto("verify", run["run_id"], "--json"))
    assert (check["whole"], check["event_count"], check["stream_count"]) == (True, 4, 1)
    assert suite.stretto("verify").stdout.startswith("whole: ")


def test_a_run_that_fails_says_why_and_exits_1(suite: Suite) -> None:
    plan = {
        "tasks": [
            {
                "name": "bad",
                "executor": "process",
                "arguments": {"argv": ["sh", "-c", "exit 7"]},
                "retry": {"max_attempts": 1},
            },
            {"name": "good", "executor": "process", "arguments": {"argv": ["echo", "[8, 9]"]}},
        ]
    }
    result = suite.stretto("run", "-", stdin=json.dumps(plan))
    assert result.returncode == ExitStatus.FAILED
    assert "bad" in result.stderr
    assert "7" in result.stderr
    assert result.stdout == ""
    run_id = result.stderr.split()[1]
    told = suite.stretto("get", run_id, "bad").stdout
    assert "EXIT_STATUS: sh: exit status 7" in told
    assert suite.stretto("get", run_id, "bad", "--output").returncode == ExitStatus.FAILED
    assert json_of(suite.stretto("get", run_id, "good", "--output")) == [8, 9]
    assert json_of(suite.stretto("get", run_id, "good", "--json"))["result"] == [8, 9]
    unknown = suite.stretto("get", run_id, "ugly")
    assert unknown.returncode == ExitStatus.USAGE
    assert "no task 'ugly'" in unknown.stderr


def test_the_input_on_the_command_line_stands_before_the_files(
    suite: Suite, tmp_path: Path
) -> None:
    plan = {"input": {"n": 1}, **HELLO, "output": {"from": "input", "pointer": "/n"}}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    (tmp_path / "input.json").write_text('{"n": 3}')
    for options, expected in [
        ((), 1),
        (("--input", '{"n": 2}'), 2),
        (("--input", f"@{tmp_path}/input.json"), 3),
    ]:
        ended = json_of(suite.stretto("run", path, "--json", *options))
        assert ended["output"] == expected


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"tasks": [{"name": "a", "executor": "process", "after": ["b"]}]}, "b"),
        (
            {
                "tasks": [
                    {"name": "a", "executor": "process", "after": ["b"]},
                    {"name": "b", "executor": "process", "after": ["a"]},
                ]
            },
            "a -> b",
        ),
        ({"tasks": [{"name": "a", "executor": "process"}] * 2}, "a"),
        ({"tasks": [{"name": "", "executor": "process"}]}, "name"),
        ({"tasks": []}, "task"),
    ],
)
def test_a_plan_the_kernel_refuses_exits_2_and_stores_nothing(
    suite: Suite, plan: dict[str, Any], says: str
) -> None:
    before = streams_of(suite)
    result = suite.stretto("run", "-", stdin=json.dumps(plan))
    assert result.returncode == ExitStatus.USAGE, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert streams_of(suite) == before


@pytest.mark.parametrize("verb", ["get", "events", "cancel"])
@pytest.mark.parametrize("run", ["p0-0123456789ab0123456789abcdef0123", "no-such-thing"])
def test_an_unknown_run_exits_2(suite: Suite, verb: str, run: str) -> None:
    result = suite.stretto(verb, run)
    assert result.returncode == ExitStatus.USAGE, result.stderr
    assert run in result.stderr
    assert "Traceback" not in result.stderr


async def test_cancel_and_kill_end_a_run(suite: Suite, gate: Gate) -> None:
    for verb, state in [("cancel", "CANCELLED"), ("kill", "KILLED")]:
        run_id = started(suite, {"tasks": [gate.task(verb)]})
        await until(lambda verb=verb: gate.count("start")[verb] == 1)  # type: ignore[misc]
        assert suite.stretto(verb, run_id, "--reason", "enough").returncode == 0
        await until(
            lambda run_id=run_id, state=state: (  # type: ignore[misc]
                json_of(suite.stretto("get", run_id, "--json"))["state"] == state
            )
        )
        shown = json_of(suite.stretto("get", run_id, "--json"))
        assert shown["end_reason"] == "enough"
        # Once more is answered the same; the other verb comes too late.
        assert suite.stretto(verb, run_id).returncode == 0
        other = "kill" if verb == "cancel" else "cancel"
        assert suite.stretto(other, run_id).returncode == ExitStatus.USAGE


def test_a_held_run_starts_nothing_until_it_is_resumed(suite: Suite, gate: Gate) -> None:
    run_id = started(suite, {"growing": True, "tasks": []})
    assert json_of(suite.stretto("pause", run_id, "--json"))["state"] == "PAUSED"
    assert json_of(suite.stretto("resume", run_id, "--json"))["state"] == "RUNNING"
    assert suite.stretto("kill", run_id).returncode == 0


async def test_runs_are_found_by_label(suite: Suite, tmp_path: Path) -> None:
    run = json_of(
        suite.stretto("run", "-", "--json", stdin=json.dumps({**HELLO, "labels": {"q": "x1"}}))
    )

    def listed() -> list[str]:
        found = json_of(suite.stretto("runs", "--label", "q=x1", "--json"))
        return [each["run_id"] for each in found["runs"]]

    await until(lambda: listed() == [run["run_id"]])


def test_status_shows_every_process_and_secrets_are_only_ours_to_read(suite: Suite) -> None:
    shown = json_of(suite.stretto("status", "--json"))
    assert shown["ready"]
    assert [each["name"] for each in shown["processes"]] == [
        "postgres",
        "nats",
        "kernel",
        "projector",
        "worker-1",
        "worker-2",
    ]
    assert all(each["pid"] for each in shown["processes"])
    assert "worker-2" in suite.stretto("status").stdout
    for path in suite.directory.tokens_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_data_directory_in_use_is_refused(suite: Suite) -> None:
    second = suite.stretto("up", "--detach")
    assert second.returncode == ExitStatus.USAGE
    assert "stretto down" in second.stderr
    assert suite.stretto("status").returncode == 0


def test_down_stops_everything_and_up_finds_it_again(idle_suite: Suite, hello: Path) -> None:
    idle_suite.up("--workers", 1)
    run = json_of(idle_suite.stretto("run", hello, "--json"))
    idle_suite.down()
    assert idle_suite.stretto("status").returncode == ExitStatus.UNREACHABLE
    assert idle_suite.stretto("get", run["run_id"]).returncode == ExitStatus.UNREACHABLE
    idle_suite.up("--workers", 0)
    assert json_of(idle_suite.stretto("get", run["run_id"], "--json"))["output"] == run["output"]


async def test_a_run_is_watched_to_its_end_and_named_by_a_part_of_its_id(
    suite: Suite, gate: Gate
) -> None:
    run_id = started(suite, {"tasks": [gate.task("a"), {**gate.task("b"), "after": ["a"]}]})
    await until(lambda: gate.count("start")["a"] == 1)
    gate.open()
    watched = suite.stretto("watch", run_id[-8:])
    assert watched.returncode == ExitStatus.SUCCESS, watched.stderr
    said = watched.stdout.splitlines()
    assert said[-1].endswith(f"{run_id}  SUCCEEDED")
    assert any("  b  SUCCEEDED" in line for line in said)
    told = suite.stretto("watch", run_id[:12], "--json").stdout.splitlines()
    assert [task["name"] for task in json.loads(told[-1])["tasks"]] == ["a", "b"]
    assert json.loads(told[-1])["ended"]
    failed = started(suite, {"tasks": [{"name": "f", "executor": "process",
                                        "arguments": {"argv": ["false"]}}]})  # fmt: skip
    watched = suite.stretto("watch", failed)
    assert watched.returncode == ExitStatus.FAILED
    assert "EXIT_STATUS" in watched.stderr
    assert suite.stretto("get", failed, "--output").returncode == ExitStatus.FAILED


def test_a_wait_that_is_over_before_the_run_says_so_and_leaves_it(suite: Suite, gate: Gate) -> None:
    plan = json.dumps({"tasks": [gate.task("slow")]})
    waited = suite.stretto("run", "-", "--timeout", "1s", "--json", stdin=plan)
    assert waited.returncode == ExitStatus.UNREACHABLE
    shown = json.loads(waited.stdout)
    assert shown["state"] == "RUNNING"
    assert "stretto watch" in waited.stderr
    assert suite.stretto("kill", shown["run_id"]).returncode == ExitStatus.SUCCESS


async def test_all_runs_of_a_filter_are_steered_after_a_preview(suite: Suite) -> None:
    growing = {"growing": True, "tasks": [], "labels": {"batch": "x"}}
    runs = {started(suite, growing) for _ in range(3)}

    def listed(state: str) -> set[str]:
        found = json_of(suite.stretto("runs", "--label", "batch=x", "--state", state, "--json"))
        return {each["run_id"] for each in found["runs"]}

    await until(lambda: listed("RUNNING") == runs)
    elsewhere = suite.stretto("runs", "--namespace", "elsewhere")
    assert "no runs in the namespace elsewhere yet" in elsewhere.stderr
    nothing = suite.stretto("pause", "--all", "--label", "batch=none")
    assert nothing.returncode == ExitStatus.SUCCESS
    assert "no run to pause" in nothing.stderr
    asked = suite.stretto("pause", "--all", "--label", "batch=x")
    assert asked.returncode == ExitStatus.USAGE
    assert all(run in asked.stderr for run in runs)
    paused = json_of(
        suite.stretto("pause", "--all", "--label", "batch=x", "--since", "1h", "--yes", "--json")
    )
    assert {each["run_id"] for each in paused["runs"]} == runs
    await until(lambda: listed("PAUSED") == runs)
    killed = suite.stretto("kill", "--all", "--label", "batch=x", "--yes")
    assert killed.stdout.count("KILLED") == 3
    await until(lambda: not listed("PAUSED"))
    both = suite.stretto("kill", "--all", next(iter(runs)))
    assert both.returncode == ExitStatus.USAGE


def test_events_are_chosen_by_type_version_and_count(suite: Suite, hello: Path) -> None:
    run_id = json_of(suite.stretto("run", hello, "--json"))["run_id"]

    def told(*options: object) -> list[tuple[int, str]]:
        lines = suite.stretto("events", run_id, "--json", *options).stdout.splitlines()
        events = [json.loads(line) for line in lines]
        return [(each["version"], each["type"].rpartition(".")[2]) for each in events]

    whole = told()
    assert told("--since", 2) == whole[2:]
    assert told("--limit", 1) == whole[:1]
    assert told("--type", "RunStarted", "--type", "RunSucceeded") == [whole[0], whole[-1]]
    assert told("--type", "runstarted") == whole[:1]
    mistyped = suite.stretto("events", run_id, "--type", "RunBegan")
    assert (mistyped.returncode, mistyped.stdout) == (ExitStatus.SUCCESS, "")
    assert "RunStarted" in mistyped.stderr
    lines = suite.stretto("events", run_id).stdout.splitlines()
    assert "AttemptLeased task=hello" in lines[1]
    assert "session" not in lines[1]
    assert suite.stretto("events", "--since", 1).returncode == ExitStatus.USAGE
    assert suite.stretto("events", run_id, "--cursor", "x").returncode == ExitStatus.USAGE
    first = json.loads(suite.stretto("events", "--limit", 1, "--json").stdout)
    assert first["version"] == 1


def test_a_revoked_token_ends_what_it_opened(suite: Suite, tmp_path: Path) -> None:
    token = tmp_path / "ada.token"
    token.touch(mode=0o600)
    token.write_text(json_of(suite.stretto("token", "add", "ada", "--json"))["token"])
    follow = [str(BIN / "stretto"), "events", "-f", "--json", "--token-file", str(token)]
    with subprocess.Popen(
        follow, env=suite.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        assert suite.stretto("token", "revoke", "ada").returncode == 0
        _, said = following.communicate(timeout=120)
    assert following.returncode == ExitStatus.USAGE
    assert "removed" in said
    assert "ada" not in suite.stretto("token", "list").stdout
    assert suite.stretto("runs", "--token-file", token).returncode == ExitStatus.USAGE


async def test_a_backup_goes_on_from_where_it_was_taken(idle_suite: Suite, gate: Gate) -> None:
    idle_suite.up("--workers", 1)
    run_id = started(idle_suite, {"tasks": [gate.task("a")]})
    await until(lambda: gate.count("start")["a"] == 1)
    copy = idle_suite.home / "copy"
    made = json_of(idle_suite.stretto("backup", copy, "--json"))
    assert made["directory"] == str(copy)
    again = idle_suite.stretto("backup", copy)
    assert again.returncode == ExitStatus.USAGE
    assert "not empty" in again.stderr
    assert json_of(idle_suite.stretto("verify", "--json"))["whole"]
    idle_suite.down()
    gate.open()
    up = idle_suite.stretto("up", "--detach", "--port", 0, "--workers", 1, "--data-dir", copy)
    try:
        assert up.returncode == 0, up.stderr
        watched = idle_suite.stretto("watch", run_id, "--data-dir", copy)
        assert watched.returncode == 0, watched.stderr
        assert json_of(idle_suite.stretto("verify", "--json", "--data-dir", copy))["whole"]
        for path in (copy / "tokens").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    finally:
        idle_suite.stretto("down", "--data-dir", copy)
    assert idle_suite.stretto("backup", copy).returncode == ExitStatus.UNREACHABLE


def test_the_shell_is_offered_runs_and_tasks_within_a_moment(suite: Suite, hello: Path) -> None:
    run_id = json_of(suite.stretto("run", hello, "--json"))["run_id"]

    def offered(words: str, **environ: str) -> list[str]:
        asked = {"_STRETTO_COMPLETE": "complete_bash", "COMP_WORDS": words}
        count = str(len(words.split(" ")) - 1)
        told = command(
            BIN / "stretto", environ={**suite.environ, **asked, "COMP_CWORD": count, **environ}
        )
        assert told.stderr == ""
        return told.stdout.split()

    assert "cancel" in offered("stretto can")
    assert {"last", run_id} <= set(offered("stretto get "))
    assert offered(f"stretto get {run_id[:-2]}") == [run_id]
    # Nothing that answers: nothing to offer, and nothing to read.
    assert offered("stretto get ", STRETTO_ADDRESS="127.0.0.1:1") == ["last"]


async def test_a_watch_goes_on_over_the_death_of_the_kernel(suite: Suite, gate: Gate) -> None:
    run_id = started(suite, {"tasks": [gate.task("a")]})
    await until(lambda: gate.count("start")["a"] == 1)
    watching = await asyncio.create_subprocess_exec(
        *(str(BIN / "stretto"), "watch", run_id),
        env=suite.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert watching.stdout is not None
    assert b"a  RUNNING" in await watching.stdout.readline()
    suite.signal("kernel", signal.SIGKILL)
    gate.open()
    rest, complaints = await watching.communicate()
    said = rest.decode()
    assert watching.returncode == ExitStatus.SUCCESS, complaints
    assert said.count("a  RUNNING") <= 1  # What is known already is not told again.
    assert said.splitlines()[-1].endswith("SUCCEEDED")
