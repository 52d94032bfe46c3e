"""Large plans in slices: order, sizes, what is judged of the whole, and paths of the whole plan."""

from __future__ import annotations

import random

import pytest
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import FieldViolation, InvalidArgument
from stretto_sdk.slices import (
    MESSAGE_TASKS_MAX,
    SLICE_BYTES_MAX,
    SLICE_TASKS_MAX,
    alone,
    is_sliced,
    slices_of,
)
from stretto_sdk.task_order import cycle_beside, ordered


def spec(name: str, *after: str, **more: object) -> pb.TaskSpec:
    edges = [pb.Dependency(task=each) for each in after]
    return pb.TaskSpec(name=name, executor="sleep", dependencies=edges, **more)  # type: ignore[arg-type]


def graph(*tasks: pb.TaskSpec, **more: object) -> pb.TaskGraph:
    return pb.TaskGraph(tasks=tasks, task_count_max=100_000, **more)  # type: ignore[arg-type]


def violations_of(plan: pb.TaskGraph) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        slices_of(plan)
    return {each.field: each.description for each in refused.value.violations}


def test_each_slice_depends_only_on_itself_and_earlier_ones() -> None:
    draws = random.Random(7)
    count = 2_500
    tasks = [
        spec(f"t{n}", *{f"t{draws.randrange(n)}" for _ in range(min(n, 3))}) for n in range(count)
    ]
    draws.shuffle(tasks)
    plan = graph(*tasks)
    assert is_sliced(plan)
    slices = slices_of(plan)
    seen: set[str] = set()
    for piece in slices:
        assert len(piece.tasks) <= SLICE_TASKS_MAX
        assert [plan.tasks[number] for number in piece.numbers] == list(piece.tasks)
        seen.update(task.name for task in piece.tasks)
        assert all(edge.task in seen for task in piece.tasks for edge in task.dependencies)
    assert [len(piece.tasks) for piece in slices] == [SLICE_TASKS_MAX] * (count // SLICE_TASKS_MAX)
    assert len(seen) == count


def test_a_slice_is_no_larger_than_a_message_takes() -> None:
    text = '{"a": "%s"}' % ("x" * 60_000)
    plan = graph(*(spec(f"t{n}", arguments_json=text) for n in range(100)))
    assert is_sliced(plan)
    slices = slices_of(plan)
    assert sum(len(piece.tasks) for piece in slices) == 100
    assert all(sum(t.ByteSize() for t in piece.tasks) <= SLICE_BYTES_MAX for piece in slices)
    assert not is_sliced(graph(*(spec(f"t{n}") for n in range(MESSAGE_TASKS_MAX))))


def test_what_is_wrong_between_tasks_is_named_at_once() -> None:
    plan = pb.TaskGraph(
        tasks=[
            spec("a", "a", "x"),
            spec("a"),
            spec("b", "d"),
            spec("c", "b"),
            spec("d", "c"),
        ],
        task_count_max=4,
        output=pb.Binding(task_output=pb.TaskOutputRef(task="y")),
    )
    assert violations_of(plan) == {
        "tasks[1].name": "'a' is there twice; rename one",
        "task_count_max": "the plan has 5 tasks and allows 4: raise it",
        "output.task": "no task is named 'y'",
        "tasks[0].after[0]": "a task cannot depend on itself",
        "tasks[0].after[1]": "no task is named 'x'",
        "tasks[2].after[0]": "the dependencies form a cycle: b -> d -> c -> b; "
        "take one of these edges away",
    }


def test_a_plan_of_very_many_tasks_must_say_so() -> None:
    many = [spec(f"t{n}") for n in range(10_001)]
    assert violations_of(pb.TaskGraph(tasks=many)) == {
        "task_count_max": "the plan has 10001 tasks and allows 10000: raise it"
    }


def test_the_kernels_paths_become_those_of_the_whole_plan() -> None:
    tasks = [spec(f"t{n}", *([] if n == 1_500 else ["t1500"])) for n in range(1_501)]
    slices = slices_of(graph(*tasks))
    first, second = slices[0], slices[2]
    refused = InvalidArgument(
        "x",
        violations=[
            FieldViolation("task_graph.tasks[0].dependencies[2].task", "is wrong"),
            FieldViolation("labels", "are wrong"),
        ],
    )
    named = first.in_the_plan(refused, "task_graph.tasks")
    assert [each.field for each in named.violations] == ["tasks[1500].after[2]", "labels"]
    named = second.in_the_plan(
        InvalidArgument("x", violations=[FieldViolation("tasks[1].queue", "is wrong")]), "tasks"
    )
    assert [each.field for each in named.violations] == [f"tasks[{2 * SLICE_TASKS_MAX}].queue"]
    plain = InvalidArgument("without any")
    assert first.in_the_plan(plain, "tasks") is plain


def test_a_slice_alone_leads_nowhere_else() -> None:
    outside = pb.Binding(task_output=pb.TaskOutputRef(task="far"))
    inside = pb.Binding(task_output=pb.TaskOutputRef(task="t0"))
    count = pb.JoinRule(kind=pb.JOIN_KIND_N_SUCCEEDED, count=2)
    tasks = [spec(f"s{n}") for n in range(SLICE_TASKS_MAX - 1)]
    tasks += [spec("far"), spec("t0", "far"), spec("t1", "t0", "far", join=count)]
    tasks[-1].inputs["a"].CopyFrom(outside)
    tasks[-1].inputs["b"].CopyFrom(inside)
    _, second = slices_of(graph(*tasks))
    copies = alone(second)
    assert [[edge.task for edge in copy.dependencies] for copy in copies] == [[], ["t0"]]
    assert list(copies[1].inputs) == ["b"]
    assert not copies[1].HasField("join")
    assert len(second.tasks[1].dependencies) == 2, "the slice itself is whole"


def test_an_order_goes_level_by_level_and_leaves_cycles_out() -> None:
    assert ordered([[2], [], [], [0, 1]]) == [1, 2, 0, 3]
    waits_for = [[], [3], [1], [2], [3, 0]]
    order = ordered(waits_for)
    assert order == [0]
    assert cycle_beside(order, waits_for) == [1, 3, 2, 1]
    assert cycle_beside([0, 1], [[], [0]]) == []
