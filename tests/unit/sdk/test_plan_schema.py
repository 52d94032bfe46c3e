"""The published schema: fresh, agreed with by the reader, and kept by every plan we show."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from stretto_kernel.domain.run import plan_check
from stretto_sdk.fields import Mistakes
from stretto_sdk.plan_files.yaml_text import read_yaml
from stretto_sdk.plan_form import read_run
from stretto_sdk.plan_schema import plan_schema, plan_schema_text
from stretto_sdk.plan_shapes import EXECUTORS, NAME, WORD

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "plan.schema.json"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

FULL: dict[str, Any] = {
    "name": "nightly",
    "output_schema": {"type": "array"},
    "fairness_key": "search",
    "labels": {"team": "search"},
    "input": {"directory": "."},
    "tasks": [
        {
            "name": "a",
            "executor": "process",
            "arguments": {"argv": ["ls"]},
            "output_schema": {"type": "object"},
        },
        {
            "name": "b",
            "executor": "acme.render",
            "after": ["a", {"task": "a", "scope": "subtree"}],
            "join": {"kind": "n_succeeded", "count": 1, "rest": "cancelled"},
            "inputs": {
                "n": {"from": "task", "task": "a", "pointer": "/n"},
                "all": {"from": "subtree", "task": "a"},
                "directory": {"from": "input", "pointer": "/directory"},
                "limit": 10,
                "list": [1, {"a": 2}],
                "options": {"from": "literal", "value": {"deep": True}},
            },
            "retry": {
                "max_attempts": 5,
                "initial_interval": "250ms",
                "max_interval": "1m",
                "coefficient": 1.5,
                "jitter": 0.5,
                "non_retryable_reasons": ["X"],
            },
            "timeouts": {"queue": "1h", "attempt": "1m30s", "heartbeat": "1s", "task": "1d"},
            "queue": "heavy",
            "fairness_key": "team-a",
            "priority": -5,
            "required_labels": {"gpu": "yes"},
            "preferred_labels": {"zone": "a"},
            "on_failure": "ignore",
            "clean_up": True,
            "may_spawn": True,
        },
        {"name": "c", "executor": "sleep", "join": "all_done"},
    ],
    "output": {"from": "task", "task": "b"},
    "failure_policy": "fail_fast",
    "run_timeout": "2h",
    "cancel_grace": "5s",
    "clean_up_timeout": "1m",
    "slice_timeout": "1m",
    "growing": False,
    "task_count_max": 50,
}
WRONG_VALUES: list[Any] = [
    5,
    -1,
    0,
    10**9,
    1.5,
    3.0,
    "",
    "x y",
    "word",
    "30s",
    True,
    None,
    [],
    ["a"],
    [5],
    [None],
    {},
    {"a": 1},
    {"a": "b"},
    {"from": "input"},
    {"from": "nowhere"},
    {"task": "a"},
    "/p",
]


@pytest.fixture(scope="module")
def valid() -> Callable[[object], bool]:
    validator = jsonschema_rs.validator_for(json.loads(PUBLISHED.read_text()))
    return validator.is_valid


def reader_takes(value: object) -> bool:
    mistakes = Mistakes()
    read_run(value, mistakes)
    return not mistakes.found()


def test_the_published_schema_is_fresh() -> None:
    assert PUBLISHED.read_text() == plan_schema_text(), "run make schema"
    jsonschema_rs.meta.validate(plan_schema())


def test_a_plan_with_every_field_is_taken_by_both(valid: Callable[[object], bool]) -> None:
    assert valid(FULL)
    assert reader_takes(FULL)
    assert set(FULL) | {"parameters", "include"} == set(plan_schema()["properties"])
    named = {key for task in FULL["tasks"] for key in task}
    assert named == set(plan_schema()["$defs"]["task"]["properties"])


def _paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    members = value.items() if isinstance(value, Mapping) else enumerate(value)  # type: ignore[arg-type]
    for key, each in members:
        if isinstance(each, Mapping | list):
            yield from _paths(each, (*path, key))
        else:
            yield (*path, key)


def _mutated(draws: random.Random) -> tuple[object, str]:
    """A plan with a field replaced, taken away, doubled under another name, or put in."""
    plan = copy.deepcopy(FULL)
    path = draws.choice([each for each in _paths(plan) if each])
    within: Any = plan
    for step in path[:-1]:
        within = within[step]
    kind = draws.choice(["replace", "replace", "remove", "rename", "insert"])
    if kind == "remove" or isinstance(within, list):
        del within[path[-1]]
    elif kind == "rename":
        within[f"{path[-1]}s"] = within.pop(path[-1])
    elif kind == "insert" and isinstance(within, dict):
        within["unheard_of"] = draws.choice(WRONG_VALUES)
    else:
        within[path[-1]] = draws.choice(WRONG_VALUES)
    return plan, f"{kind} {path}: {within}"


def test_the_schema_and_the_reader_agree_on_structure(valid: Callable[[object], bool]) -> None:
    draws = random.Random(20)
    refused = 0
    for _ in range(4_000):
        plan, what = _mutated(draws)
        if isinstance(plan, dict) and not plan.get("tasks"):
            continue  # Whether something else makes up for it is more than structure.
        taken = reader_takes(plan)
        refused += not taken
        assert valid(plan) == taken, what
    assert refused > 1_000


@pytest.mark.parametrize(
    "plan",
    [
        {"tasks": [{"name": "${params.a}", "executor": "process"}]},
        {"tasks": [{"name": "x-${params.a}", "executor": "${params.e}"}]},
        {"tasks": [{"name": "a", "executor": "sleep", "priority": "${params.p}"}]},
        {"tasks": [{"name": "a", "executor": "sleep", "clean_up": "${params.p}"}]},
        {"tasks": [{"name": "a", "executor": "sleep", "retry": "${params.p}"}]},
        {"tasks": [{"name": "a", "executor": "sleep", "timeouts": {"task": "${params.n}s"}}]},
        {"tasks": [{"name": "a", "executor": "sleep", "on_failure": "${params.n}"}]},
        {"include": [{"file": "x.yaml", "prefix": "p-", "with": {"a": [1]}}]},
        {"parameters": {"a": {"type": "integer", "default": 3}}, "growing": True},
        {"tasks": None, "growing": True},
    ],
)
def test_what_only_a_file_may_hold_is_taken_by_the_schema(
    plan: object, valid: Callable[[object], bool]
) -> None:
    assert valid(plan)


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"tasks": [{"name": "a", "executor": "sleep", "priority": "${param.p}"}]},
        {"tasks": [{"name": "a", "executor": "sleep", "retry": "x"}]},
        {"parameters": {"A": {}}, "tasks": []},
        {"parameters": {"a": {"type": "text"}}, "tasks": []},
        {"include": [{}]},
    ],
)
def test_what_no_file_may_hold_is_refused_by_the_schema(
    plan: object, valid: Callable[[object], bool]
) -> None:
    assert not valid(plan)


def is_plan(text: str) -> bool:
    return re.search(r'^(?:tasks:|include:|  "tasks":)|\{"tasks":', text, re.MULTILINE) is not None


def shown_plans() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.suffix in (".yaml", ".json") and is_plan(text := path.read_text()):
            yield str(path.relative_to(ROOT)), text
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, (language, text) in enumerate(BLOCK.findall(page.read_text())):
            if language in ("yaml", "json") and is_plan(text):
                yield f"{page.name}:{number}", text


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in shown_plans()])
def test_every_plan_we_show_holds_to_the_schema(text: str, valid: Callable[[object], bool]) -> None:
    assert valid(read_yaml(text).value)


def test_the_form_knows_what_the_kernel_knows() -> None:
    assert set(EXECUTORS) == set(plan_check.EXECUTORS)
    assert plan_check.TASK_NAME.pattern == rf"{NAME.pattern}\Z"
    assert plan_check.WORD.pattern == rf"{WORD.pattern}\Z"
