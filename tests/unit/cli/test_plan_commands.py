"""validate, render and plan-schema without a suite; a bad plan file ends with status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stretto_cli.app import app
from stretto_cli.exits import ExitStatus
from stretto_sdk.plan_schema import plan_schema
from typer.testing import CliRunner, Result

PLAN = """\
parameters: {who: {default: world}}
tasks:
  - {name: a, executor: process, arguments: {argv: [echo, "${params.who}"]}}
  - {name: b, executor: acme.do, after: [a]}
"""


def stretto(*arguments: object, stdin: str | bytes = "") -> Result:
    result = CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture(autouse=True)
def _without_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRETTO_DATA_DIR", str(tmp_path / "suite"))
    monkeypatch.delenv("STRETTO_ADDRESS", raising=False)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_a_plan_is_valid(plan: Path) -> None:
    result = stretto("validate", plan)
    assert result.exit_code == ExitStatus.SUCCESS
    assert "is a plan of 2 tasks" in result.output
    shown = json.loads(stretto("validate", plan, "--json", "--set", "who=you").stdout)
    assert shown == {"valid": True, "task_count": 2, "mistakes": []}
    assert stretto("validate", "-", stdin=PLAN).exit_code == ExitStatus.SUCCESS


def test_every_mistake_is_told_with_its_place_and_the_status_is_2(plan: Path) -> None:
    plan.write_text(PLAN.replace("executor: acme.do, after: [a]", "exectuor: x, after: [c]"))
    result = stretto("validate", plan)
    assert result.exit_code == ExitStatus.USAGE
    assert f"{plan} has 3 mistakes" in result.output
    assert f'{plan}:4:15: tasks[1].exectuor: is not a field here; did you mean "executor"?' in (
        result.output
    )
    shown = json.loads(stretto("validate", plan, "--json").stdout)
    assert not shown["valid"]
    assert shown["mistakes"][2] == {
        "file": str(plan),
        "line": 4,
        "column": 36,
        "field": "tasks[1].after[0]",
        "description": "no task is named 'c'",
    }
    assert stretto("run", plan).exit_code == ExitStatus.USAGE


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--set", "woh=x"), 'did you mean "who"?'),
        (("--set", "who"), "must be NAME=VALUE"),
        (("--set", "=x"), "must be NAME=VALUE"),
        (("--set", "who=x", "--set", "who=y"), "is given twice"),
    ],
)
def test_wrong_settings_are_refused(options: tuple[str, ...], says: str, plan: Path) -> None:
    for command in ("validate", "run", "render"):
        result = stretto(command, plan, *options)
        assert result.exit_code == ExitStatus.USAGE
        assert says in result.output


def test_with_server_a_suite_is_needed(plan: Path) -> None:
    assert stretto("validate", plan, "--server").exit_code == ExitStatus.UNREACHABLE


@pytest.mark.parametrize("command", ["validate", "render", "run"])
def test_a_file_of_200_mb_is_refused_unread(command: str, tmp_path: Path) -> None:
    large = tmp_path / "plan.yaml"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    result = stretto(command, large)
    assert result.exit_code == ExitStatus.USAGE
    assert "has 209715200 bytes; a plan file has at most" in result.output


def test_a_plan_is_drawn(plan: Path, tmp_path: Path) -> None:
    assert "t0 --> t1" in stretto("render", plan).stdout
    assert "t0 -> t1;" in stretto("render", plan, "--format", "dot").stdout
    assert "t0 --> t1" in stretto("render", "-", stdin=PLAN).stdout
    drawn = tmp_path / "plan.mmd"
    assert stretto("render", plan, "-o", drawn).stdout == ""
    assert drawn.read_text() == stretto("render", plan).stdout
    refused = stretto("render", plan, "-o", tmp_path / "absent" / "x")
    assert refused.exit_code == ExitStatus.USAGE
    assert stretto("render", "no-such-run").exit_code == ExitStatus.UNREACHABLE


def test_the_schema_is_printed(tmp_path: Path) -> None:
    assert json.loads(stretto("plan-schema").stdout) == plan_schema()
    stretto("plan-schema", "-o", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == plan_schema()
