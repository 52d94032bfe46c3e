"""The steps of the hash report by hand: programs that know nothing of Stretto."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from stretto_sdk.plan_files.read import read_plan_text
from stretto_sdk.plan_form import parse_tasks

from tests.e2e.conftest import ROOT, command

EXAMPLE = ROOT / "examples" / "hash_report"


def step(name: str, **inputs: Any) -> Any:
    told = command(
        sys.executable,
        EXAMPLE / "steps.py",
        name,
        environ=dict(os.environ),
        stdin=json.dumps(inputs),
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("not ours")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b" / "c.txt").write_text("three\n")
    (tmp_path / "link").symlink_to("a.txt")
    return tmp_path


def spawned_chunks(listed: Any) -> list[Any]:
    parse_tasks(listed["spawn"])
    return [each["inputs"]["paths"]["value"] for each in listed["spawn"]]


def test_the_listing_is_deterministic_and_leaves_the_trees_of_tools_out(directory: Path) -> None:
    listed = step("list", directory=str(directory), chunk_count=5)
    assert spawned_chunks(listed) == [["a.txt"], ["b/c.txt"]]
    assert listed == step("list", directory=str(directory), chunk_count=5)
    assert listed["output"] == {"file_count": 2, "chunk_count": 2, "complete": True}


def test_the_steps_join_into_a_checked_report(directory: Path) -> None:
    where = {"directory": str(directory)}
    listed = step("list", **where, chunk_count=5)
    counted = [step("hash", **where, paths=paths) for paths in spawned_chunks(listed)]
    report = step("report", **where, listing=listed["output"], chunks=counted)
    checked = step("check", **where, chunk_count=5, listing=listed["output"], report=report)
    assert (checked["file_count"], checked["byte_count"], checked["line_count"]) == (2, 14, 3)
    (directory / "a.txt").write_text("changed\n")
    told = command(
        sys.executable,
        EXAMPLE / "steps.py",
        "check",
        environ=dict(os.environ),
        stdin=json.dumps(
            {**where, "chunk_count": 5, "listing": listed["output"], "report": report}
        ),
    )
    assert told.returncode == 1
    assert "another digest" in told.stderr


def test_the_plan_program_writes_a_plan_file(directory: Path) -> None:
    told = command(sys.executable, EXAMPLE / "plan.py", directory, environ=dict(os.environ))
    run = read_plan_text(told.stdout, source="plan.json")
    assert [task.name for task in run.graph.tasks] == ["list", "report", "check"]
    assert [task.may_spawn for task in run.graph.tasks] == [True, False, False]


def test_a_directory_of_many_files_is_cut_to_what_one_result_can_spawn(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    for number in range(4_000):
        (deep / f"{number:05d}-{'f' * 60}").touch()
    listed = step("list", directory=str(tmp_path))
    assert listed["output"]["complete"] is False
    assert 1_000 < listed["output"]["file_count"] < 4_000
    assert len(json.dumps(listed)) < 1 << 20, "one fact holds it"
