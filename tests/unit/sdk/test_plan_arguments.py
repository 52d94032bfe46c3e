"""What a plan says to the executors is read before anything is sent, by the readers of workers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from stretto_sdk.arguments.builtin import TASKS_CHECKED_MAX
from stretto_sdk.plan_files.mistakes import PlanRefused
from stretto_sdk.plan_files.read import read_plan_text


def mistakes_in(*tasks: dict[str, Any], **plan: Any) -> dict[str, str]:
    """The description of each mistake, by its field."""
    named = [{"name": f"t{number}", **task} for number, task in enumerate(tasks)]
    try:
        read_plan_text(json.dumps({**plan, "tasks": named}), source="plan.json")
    except PlanRefused as refused:
        return {each.field: each.description for each in refused.mistakes}
    return {}


@pytest.mark.parametrize(
    ("executor", "arguments", "fields"),
    [
        ("process", None, {"argv"}),
        ("process", {"argv": []}, {"argv"}),
        ("process", {"argv": "echo hi"}, {"argv"}),
        ("process", {"argv": ["echo", 60, True]}, {"argv[1]", "argv[2]"}),
        ("process", {"argv": ["cat"], "stdin": True, "otput": "text"}, {"stdin", "otput"}),
        ("http", {"method": "FETCH"}, {"method", "url"}),
        ("http", {"url": "ftp://example.com"}, {"url"}),
        ("sleep", {"duration": 5}, {"duration"}),
        ("sleep", None, {"duration"}),
        ("python", {"func": "greet"}, {"function", "func"}),
    ],
)
def test_wrong_arguments_are_named(executor: str, arguments: object, fields: set[str]) -> None:
    found = mistakes_in({"executor": executor, "arguments": arguments})
    assert set(found) == {f"tasks[0].arguments.{field}" for field in fields}


def test_what_an_input_will_bring_is_not_judged_but_its_name_is() -> None:
    arguments = {"url": "${inputs.url}", "json": {"n": "${inputs.n}"}}
    call = {"executor": "http", "arguments": arguments, "inputs": {"url": "", "n": 1}}
    port = {
        "executor": "http",
        "arguments": {"url": "http://localhost:${inputs.port}/"},
        "inputs": {"port": 80},
    }
    program = {"executor": "process", "arguments": {"argv": ["${inputs.absent}"]}}
    assert set(mistakes_in(call, port, program)) == {"tasks[2].arguments.argv[0]"}


def test_nothing_follows_from_a_mistake_of_a_parameter() -> None:
    call = {"executor": "http", "arguments": {"url": "${params.shop}/orders"}}
    assert set(mistakes_in(call, parameters={"shop": {}})) == {"--set shop"}
    program = {"executor": "process", "arguments": {"argv": ["${params.absent}"]}}
    assert set(mistakes_in(program)) == {"tasks[0].arguments.argv[0]"}


def test_executors_of_ones_own_say_what_they_like() -> None:
    assert mistakes_in({"executor": "acme.render", "arguments": {"argv": 5}}) == {}


def test_only_the_first_tasks_of_a_large_plan_are_read() -> None:
    wrong = {"executor": "sleep", "arguments": {}}
    tasks = [{"executor": "acme.render"}] * (TASKS_CHECKED_MAX - 1)
    assert set(mistakes_in(*tasks, wrong, wrong, task_count_max=TASKS_CHECKED_MAX + 1)) == {
        f"tasks[{TASKS_CHECKED_MAX - 1}].arguments.duration"
    }
