"""The command on queues, against a real suite: a pause that holds, and goes."""

from __future__ import annotations

import json

import pytest
from stretto_cli.exits import ExitStatus

from tests.e2e.conftest import Suite, json_of, until_true

HELLO = {
    "tasks": [{"name": "hello", "executor": "process", "arguments": {"argv": ["true"]}}],
}


def test_a_paused_queue_starts_nothing_until_it_is_resumed(suite: Suite) -> None:
    paused = suite.stretto("queue", "set", "default", "--pause", "--reason", "for repair", "--json")
    assert json_of(paused)["pause_reason"] == "for repair"
    try:
        started = suite.stretto("run", "-", "--no-wait", stdin=json.dumps(HELLO))
        run_id = started.stdout.strip()
        task = json_of(suite.stretto("tasks", run_id, "--json"))["tasks"][0]
        assert (task["state"], task["wait_reason"]) == ("READY", "QUEUE_PAUSED")
        shown = {
            each["queue"]: each for each in json_of(suite.stretto("queues", "--json"))["queues"]
        }
        assert (shown["default"]["ready_task_count"], shown["default"]["served"]) == (1, True)
        assert "paused: for repair" in suite.stretto("queues").stdout
    finally:
        resumed = suite.stretto("queue", "set", "default", "--unpause")
    assert "not paused" in resumed.stderr
    assert suite.stretto("watch", run_id).returncode == ExitStatus.SUCCESS


async def test_what_became_of_a_queue_is_listed_when_it_has_no_work_any_more(suite: Suite) -> None:
    task = {**HELLO["tasks"][0], "queue": "once"}
    started = suite.stretto("run", "-", "--no-wait", stdin=json.dumps({"tasks": [task]}))
    assert suite.stretto("kill", started.stdout.strip()).returncode == ExitStatus.SUCCESS
    suite.stretto("run", "-", stdin=json.dumps(HELLO))

    async def told() -> bool:
        listed = json_of(suite.stretto("queues", "--all", "--json"))["queues"]
        past = {each["queue"]: each["history"] for each in listed}
        counts = [past.get(name) and past[name]["task_count"] for name in ("once", "default")]
        return bool(counts[0] == 1 and counts[1] and past["default"]["succeeded_attempt_count"])

    await until_true(told)
    assert "LEASED" in suite.stretto("queues", "--all").stdout


def test_limits_are_set_and_lifted(suite: Suite) -> None:
    limited = suite.stretto(
        "queue", "set", "gpu", "--concurrency", "2", "--rate", "30/m", "--burst", "3", "--json"
    )
    queue = json_of(limited)
    assert (queue["concurrency_limit"], queue["rate"], queue["burst"]) == (2, 0.5, 3)
    lifted = json_of(
        suite.stretto("queue", "set", "gpu", "--concurrency", "none", "--rate", "none", "--json")
    )
    assert (lifted["concurrency_limit"], lifted["rate"]) == (None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--concurrency", "many"),
        ("--concurrency", "0"),
        ("--rate", "10/week"),
        ("--rate", "nan"),
        ("--burst", "3"),
        ("--reason", "why"),
    ],
)
def test_what_cannot_be_set_exits_2(suite: Suite, wrong: tuple[str, ...]) -> None:
    refused = suite.stretto("queue", "set", "gpu", *wrong)
    assert refused.returncode == ExitStatus.USAGE
    assert "Traceback" not in refused.stderr
