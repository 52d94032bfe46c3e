"""Job graphs of GitHub Actions as plans."""

from __future__ import annotations

from typing import Any

import pytest
from stretto_core.errors import InvalidArgument
from stretto_sdk.imports.github_jobs import plan_of_github_jobs
from stretto_sdk.plan_form import parse_run


def tasks_of(jobs: dict[str, dict[str, Any]], *, step_s: float = 0.0) -> dict[str, dict[str, Any]]:
    imported = plan_of_github_jobs({"name": "CI", "jobs": jobs}, step_s=step_s)
    parse_run(imported.plan)
    return {each["name"]: each for each in imported.plan["tasks"]}  # type: ignore[attr-defined]


def mistakes_of(jobs: object) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        plan_of_github_jobs({"jobs": jobs})
    return {each.field: each.description for each in refused.value.violations}


def test_jobs_sleep_a_while_for_each_step_after_what_they_need() -> None:
    found = tasks_of(
        {
            "build": {"needs": [], "steps": 3, "timeout_minutes": 1.5},
            "lint": {"needs": "build", "continue_on_error": True},
            "report": {"needs": ["build", "lint"], "if": "${{ always() }}", "steps": 1},
        },
        step_s=0.5,
    )
    assert found == {
        "build": {
            "name": "build",
            "executor": "sleep",
            "arguments": {"duration": "1.5s"},
            "timeouts": {"attempt": "1.5m"},
        },
        "lint": {
            "name": "lint",
            "executor": "sleep",
            "arguments": {"duration": "0s"},
            "after": ["build"],
            "on_failure": "ignore",
        },
        "report": {
            "name": "report",
            "executor": "sleep",
            "arguments": {"duration": "0.5s"},
            "after": ["build", "lint"],
            "join": "all_done",
        },
    }


def test_a_matrix_is_a_task_for_each_combination() -> None:
    matrix = {
        "os": ["linux", "mac"],
        "python": [3.11, 3.12],
        "exclude": [{"os": "mac", "python": 3.11}],
        "include": [{"os": "linux", "fast": True}, {"os": "bsd"}],
    }
    found = tasks_of({"test": {"matrix": matrix, "fail_fast": False}, "end": {"needs": ["test"]}})
    assert list(found) == [
        "test-linux-3.11-true",
        "test-linux-3.12-true",
        "test-mac-3.12",
        "test-bsd",
        "end",
    ]
    assert found["end"]["after"] == list(found)[:-1]


def test_equal_words_of_a_matrix_stay_apart() -> None:
    include = [{"a": "x", "b": "y"}, {"a": "x-y"}, {"a": "x y"}]
    found = tasks_of({"t": {"matrix": {"include": include}, "fail_fast": False}})
    assert list(found) == ["t-x-y", "t-x-y#2", "t-x_y"]


@pytest.mark.parametrize(
    ("given", "policy"), [(None, "fail_fast"), (True, "fail_fast"), (False, None)]
)
def test_a_matrix_that_fails_fast_makes_the_run_fail_fast(
    given: object, policy: str | None
) -> None:
    job = {"matrix": {"n": [1, 2]}, "fail_fast": given}
    imported = plan_of_github_jobs({"jobs": {"t": job}})
    assert imported.plan.get("failure_policy") == policy
    assert bool(imported.remarks) is (policy is not None)


def test_what_only_github_knows_is_said() -> None:
    jobs = {
        "a": {"matrix": "${{ fromJson(needs.x.outputs.m) }}", "fail_fast": "${{ 1 }}"},
        "b": {"if": "github.ref == 'main'", "uses_reusable": "./other.yml"},
        "c": {"timeout_minutes": "${{ 1 }}", "continue_on_error": "${{ 1 }}"},
        "d": {"if": "needs.b.result == 'success'", "matrix": {"n": "${{ x }}"}},
    }
    imported = plan_of_github_jobs({"jobs": jobs})
    assert len(imported.plan["tasks"]) == 4  # type: ignore[arg-type]
    assert sorted(imported.remarks) == [
        "a, d: have a matrix that an expression makes: one task each",
        "a: decide by an expression whether to fail fast: taken as false",
        "b, d: have a condition that only GitHub can evaluate: taken as met",
        "b: call another workflow, which is one task here",
        "c: decide by an expression whether to go on after an error: they do not",
        "c: have a timeout that an expression makes: none here",
    ]


def test_every_mistake_is_named_at_once() -> None:
    jobs = {
        "a": {"needs": ["a", "x"]},
        "b": {"needs": ["c", "c"]},
        "c": {"needs": ["b"], "if": "failure()"},
        "d": {"matrix": {"n": []}, "timeout_minutes": 0, "steps": -1},
        "e": {"matrix": {"n": list(range(20)), "m": list(range(20))}},
        "f": {"matrix": {"n": [1], "exclude": [{"n": 1}]}},
        "g": [],
        "h": {"if": 7, "continue_on_error": 1},
    }
    assert mistakes_of(jobs) == {
        "jobs.a.needs[0]": "a job cannot need itself",
        "jobs.a.needs[1]": "no job is named 'x'",
        "jobs.b.needs[1]": "'c' is there twice",
        "jobs.c.if": "runs only after a failure: no join rule of a plan says that",
        "jobs.d.matrix.n": "must be a list of at least one value, not a list",
        "jobs.d.timeout_minutes": "must be above 0 and at most 43200",
        "jobs.d.steps": "must be from 0 to 10000",
        "jobs.e.matrix": "has more than 256 combinations",
        "jobs.f.matrix": "has no combination",
        "jobs.g": "must be an object, not a list",
        "jobs.h.if": "must be a string, not a number",
        "jobs.h.continue_on_error": "must be true or false, not a number",
        "jobs": "needs form a cycle: b -> c -> b",
    }


def test_no_jobs_are_no_workflow() -> None:
    assert mistakes_of({}) == {"jobs": "is required: an object of at least one job"}
