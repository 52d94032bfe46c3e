"""A keyword that is nearly a field of a task is refused at once; others are arguments."""

from __future__ import annotations

from typing import Any

import pytest
from stretto_sdk import Plan


@pytest.mark.parametrize(
    ("keyword", "field"),
    [
        ("retires", "retry"),
        ("prioritiy", "priority"),
        ("timeouts_", "timeouts"),
        ("cleanup", "clean_up"),
        ("queues", "queue"),
        ("on_failures", "on_failure"),
    ],
)
def test_a_misspelt_field_is_refused_with_the_field(keyword: str, field: str) -> None:
    misspelt: dict[str, Any] = {keyword: 1}
    with pytest.raises(TypeError, match=f"did you mean {field}="):
        Plan().task("a", executor="process", argv=["true"], **misspelt)


def test_arguments_of_executors_pass_and_any_name_does_inside_arguments() -> None:
    plan = Plan()
    plan.task(
        "a",
        executor="process",
        argv=["true"],
        cwd="/",
        env={},
        output="text",
        stdin="",
        output_bytes_max=9,
    )
    plan.task(
        "b",
        executor="my.http",
        url="x",
        port=8080,
        method="GET",
        headers={},
        body=None,
        timeout="5s",
    )
    plan.task("c", executor="python", function="f:g")
    plan.task("d", executor="my.queue", arguments={"queues": ["q"]})
    assert plan.to_run().graph.tasks[3].name == "d"


def test_what_a_task_comes_after_is_a_list_also_of_one() -> None:
    plan = Plan()
    first = plan.task("first", executor="process", argv=["true"])
    one: Any
    for one in ("first", first, first.subtree):
        with pytest.raises(TypeError, match=r"task 'b': after is a list"):
            plan.task("b", executor="process", argv=["true"], after=one)
