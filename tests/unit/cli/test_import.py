"""stretto import: plan files on standard output or in a file, remarks aside, refusals in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stretto_cli.app import app
from stretto_cli.exits import ExitStatus
from stretto_sdk.plan_files.read import read_plan_text
from typer.testing import CliRunner, Result

TRACE = {
    "name": "two",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [{"id": "a", "parents": []}, {"id": "b", "parents": ["a"]}],
        },
        "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 2}]},
    },
}
JOBS = {"name": "CI", "jobs": {"build": {"steps": 4}, "ship": {"needs": "build", "if": "x"}}}


def stretto(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def written(directory: Path, value: Any) -> Path:
    path = directory / "document.json"
    path.write_text(json.dumps(value))
    return path


def test_a_trace_becomes_a_plan_file(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    trace = written(tmp_path, TRACE)
    result = stretto("import", "wfformat", trace, "--time-scale", "0.25", "-o", plan)
    assert result.exit_code == ExitStatus.SUCCESS
    assert result.stdout == ""
    assert "1 of 2 tasks have no runtime" in result.stderr
    form = json.loads(plan.read_text())
    assert [each["arguments"]["duration"] for each in form["tasks"]] == ["0.5s", "0s"]
    assert read_plan_text(plan.read_bytes(), source="plan").graph.tasks[1].dependencies


def test_a_job_graph_goes_to_standard_output(tmp_path: Path) -> None:
    result = stretto("import", "github-jobs", written(tmp_path, JOBS), "--step-seconds", "0.5")
    assert result.exit_code == ExitStatus.SUCCESS
    form = json.loads(result.stdout)
    assert form["name"] == "CI"
    assert [each["name"] for each in form["tasks"]] == ["build", "ship"]
    assert form["tasks"][0]["arguments"] == {"duration": "2s"}
    assert "ship: have a condition that only GitHub can evaluate" in result.stderr


@pytest.mark.parametrize("command", ["wfformat", "github-jobs"])
def test_a_wrong_document_is_refused_with_every_mistake(tmp_path: Path, command: str) -> None:
    wrong = {
        "schemaVersion": "1.4",
        "workflow": {"specification": {"tasks": [{"id": "a", "parents": ["x"]}, {"id": "a"}]}},
        "jobs": {"a": {"needs": ["x"]}, "b": {"needs": ["b"]}, "c": 1},
    }
    plan = tmp_path / "plan.json"
    result = stretto("import", command, written(tmp_path, wrong), "-o", plan)
    assert result.exit_code == ExitStatus.USAGE
    assert "has 3 mistakes:" in result.stderr
    assert not plan.exists()


@pytest.mark.parametrize("command", ["wfformat", "github-jobs"])
def test_what_cannot_be_read_or_written_is_said(tmp_path: Path, command: str) -> None:
    absent = stretto("import", command, tmp_path / "absent.json")
    assert absent.exit_code == ExitStatus.USAGE
    assert "No such file" in absent.stderr
    valid = written(tmp_path, TRACE if command == "wfformat" else JOBS)
    nowhere = stretto("import", command, valid, "-o", tmp_path / "absent" / "plan.json")
    assert nowhere.exit_code == ExitStatus.USAGE
    assert "No such file" in nowhere.stderr


def test_the_commands_explain_themselves() -> None:
    assert "wfformat" in stretto("import", "--help").output
    assert "stretto run" in stretto("import", "wfformat", "--help").output
    assert "import" in stretto("--help").output
