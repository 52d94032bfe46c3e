"""Retry of an ended run through the command, a real suite behind it."""

from __future__ import annotations

import json
from pathlib import Path

from stretto_cli.exits import ExitStatus

from tests.e2e.conftest import Suite, json_of


def test_a_failed_run_is_retried_without_running_what_is_finished(
    suite: Suite, tmp_path: Path
) -> None:
    ledger, mended = tmp_path / "ledger", tmp_path / "mended"

    def shell(name: str, command: str, **rest: object) -> dict[str, object]:
        argv = ["sh", "-c", f"echo {name} >> {ledger}; {command}"]
        return {"name": name, "executor": "process", "arguments": {"argv": argv}, **rest}

    plan = {
        "tasks": [
            shell("first", "true"),
            shell("broken", f"test -e {mended}", after=["first"], retry={"max_attempts": 1}),
            shell("last", "true", after=["broken"]),
            shell("tidy", "true", clean_up=True),
        ]
    }
    failed = suite.stretto("run", "-", "--json", stdin=json.dumps(plan))
    assert failed.returncode == ExitStatus.FAILED, failed.stderr
    run_id = json.loads(failed.stdout)["run_id"]
    again = suite.stretto("retry", run_id)
    assert again.returncode == ExitStatus.FAILED and "broken" in again.stderr

    mended.touch()
    unknown = suite.stretto("retry", run_id, "--task", "nobody")
    assert unknown.returncode == ExitStatus.USAGE and "nobody" in unknown.stderr
    finished = suite.stretto("retry", run_id, "--task", "first")
    assert finished.returncode == ExitStatus.USAGE and "first" in finished.stderr
    run = json_of(suite.stretto("retry", run_id, "--task", "broken", "--json"))
    assert (run["state"], run["task_counts"]["succeeded"]) == ("SUCCEEDED", 4)
    assert ledger.read_text().split() == [
        *("first", "broken", "tidy"),
        *("broken", "tidy"),
        *("broken", "last", "tidy"),
    ]
    tasks = {
        task["name"]: task for task in json_of(suite.stretto("tasks", run_id, "--json"))["tasks"]
    }
    assert (tasks["first"]["activation"], tasks["broken"]["activation"]) == (1, 3)
    assert tasks["broken"]["epoch"] == 3, "epochs go on"

    nothing = suite.stretto("retry", run_id)
    assert nothing.returncode == ExitStatus.USAGE and "succeeded" in nothing.stderr
