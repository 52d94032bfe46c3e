"""Workflows of other systems by the real command: imported, run, and what became of them."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Suite, json_of
from tests.traces import expectations

TRACE = "montage-chameleon-2mass-05d-001.json"
JOBS = "argoproj--argo-workflows--ci-build.jobs.json"


def test_a_trace_larger_than_a_message_runs_from_its_plan_file(
    suite: Suite, workflows: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    source = workflows / "wfinstances" / TRACE
    made = suite.stretto("import", "wfformat", source, "--time-scale", "0.0001", "-o", plan)
    assert made.returncode == 0, made.stderr
    ended = json_of(suite.stretto("run", plan, "--json"))
    assert ended["state"] == "SUCCEEDED"
    assert ended["task_counts"]["succeeded"] == expectations(workflows)[TRACE].tasks


def test_a_job_graph_runs_through_a_pipe(suite: Suite, workflows: Path) -> None:
    made = suite.stretto("import", "github-jobs", workflows / "github-actions" / JOBS)
    assert made.returncode == 0, made.stderr
    ended = json_of(suite.stretto("run", "-", "--json", stdin=made.stdout))
    assert (ended["state"], ended["task_counts"]["succeeded"]) == ("SUCCEEDED", 37)
