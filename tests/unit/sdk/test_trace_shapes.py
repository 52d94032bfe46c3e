"""What is made of real workflows has the shape that is expected of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from stretto_sdk import Event
from stretto_sdk.plan_form import parse_run
from stretto_sdk.runs import Position

from tests.traces import (
    JOB_GRAPHS,
    TRACES,
    check_history,
    expectations,
    imported_jobs,
    imported_trace,
    shape_of,
)


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_becomes_a_plan_of_its_shape(workflows: Path, name: str) -> None:
    plan = imported_trace(workflows, name, time_scale=1.0).plan
    assert shape_of(plan) == expectations(workflows)[name]
    assert len(parse_run(plan).graph.tasks) == len(plan["tasks"])  # type: ignore[arg-type]


def test_every_trace_is_tested(workflows: Path) -> None:
    assert set(expectations(workflows)) == set(TRACES)
    found = {path.name for path in (workflows / "github-actions").glob("*.jobs.json")}
    assert found == set(JOB_GRAPHS)


@pytest.mark.parametrize(
    ("name", "task_count", "remark_count"),
    list(zip(JOB_GRAPHS, (37, 8, 6), (1, 2, 1), strict=True)),
)
def test_a_job_graph_becomes_a_plan(
    workflows: Path, name: str, task_count: int, remark_count: int
) -> None:
    imported = imported_jobs(workflows, name)
    assert len(parse_run(imported.plan).graph.tasks) == task_count
    assert len(imported.remarks) == remark_count


def recorded(*facts: tuple[str, str]) -> list[Event]:
    """Facts of a run: (type, task)."""
    return [
        Event(
            stream="r",
            version=version,
            type=f"stretto.run.v1.{kind}",
            time=None,
            principal="",
            request_id="",
            position=Position(partition="p0", number=version),
            body={"task": task},
        )
        for version, (kind, task) in enumerate(facts, 1)
    ]


LEASED, SUCCEEDED = "AttemptLeased", "AttemptSucceeded"
GOOD = ((LEASED, "a"), (SUCCEEDED, "a"), (LEASED, "b"), (SUCCEEDED, "b"))


@pytest.mark.parametrize(
    "facts",
    [
        ((LEASED, "a"), (LEASED, "b"), (SUCCEEDED, "a"), (SUCCEEDED, "b")),
        (*GOOD, (LEASED, "b")),
        (*GOOD, (SUCCEEDED, "b")),
        GOOD[:2],
        (*GOOD[:2], ("AttemptLost", "b"), *GOOD[2:]),
    ],
)
def test_the_check_of_a_history_has_teeth(facts: tuple[tuple[str, str], ...]) -> None:
    after: dict[str, list[str]] = {"a": [], "b": ["a"]}
    check_history(after, recorded(("RunStarted", ""), *GOOD, ("RunSucceeded", "")))
    with pytest.raises(AssertionError):
        check_history(after, recorded(*facts))
