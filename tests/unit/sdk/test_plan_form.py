"""The JSON form of plans: what it yields, and that every mistake is named with its path at once."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import FieldViolation, InvalidArgument
from stretto_sdk.form_paths import form_path
from stretto_sdk.plan import Plan, form_of
from stretto_sdk.plan_form import parse_run, parse_tasks


def mistakes_of(form: object) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        parse_run(form)
    return {each.field: each.description for each in refused.value.violations}


def test_every_field_reaches_the_contract() -> None:
    run = parse_run(
        {
            "name": "nightly",
            "labels": {"team": "search"},
            "input": {"directory": "/data"},
            "tasks": [
                {"name": "a", "executor": "process", "arguments": {"argv": ["ls"]}},
                {
                    "name": "b",
                    "executor": "python",
                    "after": ["a", {"task": "a", "scope": "subtree"}],
                    "join": {"kind": "n_succeeded", "count": 1, "rest": "cancelled"},
                    "inputs": {
                        "n": {"from": "task", "task": "a", "pointer": "/n"},
                        "all": {"from": "subtree", "task": "a"},
                        "directory": {"from": "input", "pointer": "/directory"},
                        "limit": 10,
                        "options": {"from": "literal", "value": {"deep": True}},
                    },
                    "retry": {"max_attempts": 5, "initial_interval": "250ms", "jitter": 0},
                    "timeouts": {"attempt": "1m30s", "heartbeat": "1s"},
                    "queue": "heavy",
                    "priority": -5,
                    "required_labels": {"gpu": "yes"},
                    "preferred_labels": {"zone": "a"},
                    "on_failure": "ignore",
                    "clean_up": True,
                    "may_spawn": True,
                },
            ],
            "output": {"from": "task", "task": "b"},
            "failure_policy": "fail_fast",
            "run_timeout": "2h",
            "task_count_max": 50,
        }
    )
    task = run.graph.tasks[1]
    assert (run.name, run.labels, run.input) == (
        "nightly",
        {"team": "search"},
        {"directory": "/data"},
    )
    assert json.loads(run.graph.tasks[0].arguments_json) == {"argv": ["ls"]}
    assert [each.scope for each in task.dependencies] == [
        pb.DEPENDENCY_SCOPE_UNSPECIFIED,
        pb.DEPENDENCY_SCOPE_SUBTREE,
    ]
    assert (task.join.kind, task.join.count, task.join.rest) == (
        pb.JOIN_KIND_N_SUCCEEDED,
        1,
        pb.JOIN_REST_CANCELLED,
    )
    assert task.inputs["n"].task_output.pointer == "/n"
    assert task.inputs["all"].subtree_outputs.task == "a"
    assert task.inputs["directory"].run_input.pointer == "/directory"
    assert task.inputs["limit"].literal.json == "10"
    assert task.inputs["options"].literal.json == '{"deep":true}'
    assert task.retry.max_attempts == 5
    assert task.retry.initial_interval.ToTimedelta() == timedelta(milliseconds=250)
    assert task.retry.HasField("jitter")
    assert task.retry.jitter == 0
    assert task.timeouts.attempt.seconds == 90
    assert not task.timeouts.HasField("queue")
    assert (task.queue, task.priority) == ("heavy", -5)
    assert dict(task.required_labels) == {"gpu": "yes"}
    assert dict(task.preferred_labels) == {"zone": "a"}
    assert task.on_failure == pb.ON_FAILURE_IGNORE
    assert task.clean_up
    assert task.may_spawn
    assert run.graph.output.task_output.task == "b"
    assert run.graph.failure_policy == pb.FAILURE_POLICY_FAIL_FAST
    assert run.graph.run_timeout.seconds == 7200
    assert run.graph.task_count_max == 50


def test_all_mistakes_are_named_at_once_with_path_and_nearest_name() -> None:
    found = mistakes_of(
        {
            "taks": [],
            "tasks": [
                {
                    "name": "a",
                    "exectuor": "process",
                    "after": [3, {"task": "b", "scope": "sub"}],
                    "join": "n_succeeded",
                    "inputs": {"x y": {"a": 1}, "z": {"from": "tasks"}},
                    "timeouts": {"attempt": 30},
                    "priority": 1000,
                    "may_spawn": 1,
                }
            ],
        }
    )
    assert 'did you mean "tasks"?' in found["taks"]
    assert 'did you mean "executor"?' in found["tasks[0].exectuor"]
    assert found["tasks[0].executor"] == "is required"
    assert "not a number" in found["tasks[0].after[0]"]
    assert 'did you mean "subtree"?' in found["tasks[0].after[1].scope"]
    assert "needs a count" in found["tasks[0].join"]
    assert "literal" in found['tasks[0].inputs["x y"].from']
    assert 'did you mean "task"?' in found["tasks[0].inputs.z.from"]
    assert '"30s"' in found["tasks[0].timeouts.attempt"]
    assert "-100 to 100" in found["tasks[0].priority"]
    assert "true or false" in found["tasks[0].may_spawn"]


def test_the_first_mistake_of_a_field_stands() -> None:
    assert mistakes_of({"tasks": [{"name": 5, "executor": "process"}]}) == {
        "tasks[0].name": "must be a string, not a number"
    }
    assert mistakes_of([])["(the whole)"] == "must be an object, not a list"


def test_a_plan_without_tasks_is_refused_unless_it_grows() -> None:
    assert "required" in mistakes_of({})["tasks"]
    assert parse_run({"growing": True}).graph.growing


def test_the_builder_and_the_file_give_the_same_graph() -> None:
    plan = Plan("sums", run_timeout=timedelta(minutes=5))
    numbers = plan.task("numbers", executor="process", argv=["seq", "3"], may_spawn=True)
    total = plan.task(
        "total",
        executor="python",
        function="tasks:total",
        after=[numbers.subtree],
        inputs={"all": numbers.subtree_outputs("/n"), "limit": 3, "in": plan.input("/x")},
        timeouts={"heartbeat": "1s"},
    )
    plan.output = total.output("/sum")
    written = parse_run(
        {
            "name": "sums",
            "run_timeout": "5m",
            "tasks": [
                {
                    "name": "numbers",
                    "executor": "process",
                    "arguments": {"argv": ["seq", "3"]},
                    "may_spawn": True,
                },
                {
                    "name": "total",
                    "executor": "python",
                    "arguments": {"function": "tasks:total"},
                    "after": [{"task": "numbers", "scope": "subtree"}],
                    "inputs": {
                        "all": {"from": "subtree", "task": "numbers", "pointer": "/n"},
                        "limit": 3,
                        "in": {"from": "input", "pointer": "/x"},
                    },
                    "timeouts": {"heartbeat": "1s"},
                },
            ],
            "output": {"from": "task", "task": "total", "pointer": "/sum"},
        }
    )
    assert plan.to_proto() == written.graph
    assert plan.to_run().name == "sums"


def test_the_builder_reports_what_cannot_be_json() -> None:
    plan = Plan()
    plan.task("a", executor="process", inputs={"x": float("nan")}, argv=[object()])
    with pytest.raises(InvalidArgument) as refused:
        plan.to_proto()
    assert [each.field for each in refused.value.violations] == [
        "tasks[0].arguments",
        "tasks[0].inputs.x.value",
    ]


def test_a_spawn_is_a_list_of_tasks() -> None:
    assert [each.name for each in parse_tasks([{"name": "a", "executor": "process"}])] == ["a"]
    with pytest.raises(InvalidArgument, match="must be a list"):
        parse_tasks({"name": "a"})


@pytest.mark.parametrize(
    ("contract_path", "path"),
    [
        ("task_graph.tasks[1].name", "tasks[1].name"),
        ("task_graph.tasks[1].dependencies[0].task", "tasks[1].after[0]"),
        ("task_graph.tasks[1].dependencies[0].scope", "tasks[1].after[0].scope"),
        ("task_graph.tasks[1].arguments_json", "tasks[1].arguments"),
        ("labels", "labels"),
    ],
)
def test_a_path_of_the_contract_is_told_in_the_words_of_the_form(
    contract_path: str, path: str
) -> None:
    assert form_path(contract_path) == path


def test_what_the_kernel_refuses_is_told_whole_by_the_fields_of_the_form() -> None:
    form = parse_run({"tasks": [{"name": "a", "executor": "acme.do"}]})
    refused = InvalidArgument(
        "the run is not valid: task_graph.tasks[1].name: 'a' is there twice, and 1 more",
        violations=[
            FieldViolation("task_graph.tasks[1].name", "'a' is there twice"),
            FieldViolation("task_graph.tasks[1].dependencies[0].task", "no task is named 'zz'"),
        ],
    )
    told = form.told(refused)
    assert isinstance(told, InvalidArgument)
    assert str(told) == (
        "the plan has 2 mistakes:\n"
        "  tasks[1].name: 'a' is there twice\n"
        "  tasks[1].after[0]: no task is named 'zz'"
    )
    plain = InvalidArgument("the request is not valid")
    assert form.told(plain) is plain


def test_the_name_of_a_file_is_not_taken_for_the_text_of_a_plan() -> None:
    with pytest.raises(InvalidArgument, match=r"for a file give Path\('night\.yaml'\)"):
        form_of("night.yaml")
    text = "tasks:\n  - {name: a, executor: process, arguments: {argv: [a]}}\nname: x.json"
    assert form_of(text).name == "x.json"
