"""Small random plans: every way a task graph can be shaped, none longer than some virtual minutes.

What a body does is written into its arguments, so that a plan says what may happen to it.
"""

from __future__ import annotations

import json
import random

from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2 as pb

EXECUTOR = "python"
NARROW_QUEUE = "narrow"
"""The queue with a concurrency limit."""
NARROW_LIMIT = 2


def random_plan(draws: random.Random) -> pb.TaskGraph:
    """Return a plan of one to six tasks, some growing, with clean-up or a time limit."""
    graph = pb.TaskGraph(growing=draws.random() < 0.15)
    names: list[str] = []
    for number in range(draws.randint(1, 6)):
        graph.tasks.append(_random_task(draws, f"t{number}", names))
        names.append(f"t{number}")
    if draws.random() < 0.3:
        graph.tasks.append(_clean_up_task(draws, names))
    if draws.random() < 0.25:
        graph.failure_policy = pb.FAILURE_POLICY_FAIL_FAST
    if draws.random() < 0.1:
        graph.run_timeout.FromMilliseconds(draws.randint(5_000, 60_000))
    if draws.random() < 0.5:
        graph.cancel_grace.FromMilliseconds(draws.randint(500, 5_000))
    graph.clean_up_timeout.FromSeconds(draws.randint(20, 60))
    if graph.growing:
        graph.slice_timeout.FromSeconds(draws.randint(20, 60))
    elif draws.random() < 0.5:
        graph.output.task_output.task = draws.choice(names)
        graph.output.task_output.pointer = draws.choice(("", "/epoch"))
    return graph


def random_slice(draws: random.Random, number: int, names: list[str]) -> list[pb.TaskSpec]:
    """Return the next slice of a growing plan whose tasks so far are `names`."""
    tasks: list[pb.TaskSpec] = []
    for index in range(draws.randint(0, 3)):
        name = f"s{number}-{index}"
        tasks.append(_random_task(draws, name, [*names, *(task.name for task in tasks)]))
    return tasks


def _random_task(draws: random.Random, name: str, before: list[str]) -> pb.TaskSpec:
    task = pb.TaskSpec(name=name, executor=EXECUTOR, priority=draws.choice((-5, 0, 0, 0, 9)))
    task.fairness_key = draws.choice(("", "", "a", "b"))
    if draws.random() < 0.35:
        task.queue = NARROW_QUEUE
    for dependency in draws.sample(before, min(len(before), draws.choice((0, 1, 1, 2, 3)))):
        edge = task.dependencies.add(task=dependency)
        if draws.random() < 0.3:
            edge.scope = pb.DEPENDENCY_SCOPE_SUBTREE
    _join(draws, task)
    _inputs(draws, task)
    _limits(draws, task)
    if draws.random() < 0.1:
        task.output_schema_json = '{"properties": {"epoch": {"not": {"const": 1}}}}'
    task.may_spawn = draws.random() < 0.3
    if draws.random() < 0.3:
        task.on_failure = pb.ON_FAILURE_IGNORE
    task.arguments_json = json.dumps(_behaviour(draws, task), sort_keys=True)
    return task


def _join(draws: random.Random, task: pb.TaskSpec) -> None:
    if not task.dependencies:
        return
    kind = draws.choice(
        (
            pb.JOIN_KIND_UNSPECIFIED,
            pb.JOIN_KIND_ALL_SUCCEEDED,
            pb.JOIN_KIND_ALL_DONE,
            pb.JOIN_KIND_ANY_SUCCEEDED,
            pb.JOIN_KIND_N_SUCCEEDED,
        )
    )
    task.join.kind = kind
    if kind == pb.JOIN_KIND_N_SUCCEEDED:
        task.join.count = draws.randint(1, len(task.dependencies))
    if kind in (pb.JOIN_KIND_ANY_SUCCEEDED, pb.JOIN_KIND_N_SUCCEEDED) and draws.random() < 0.5:
        task.join.rest = pb.JOIN_REST_CANCELLED


def _inputs(draws: random.Random, task: pb.TaskSpec) -> None:
    if draws.random() < 0.3:
        task.inputs["given"].run_input.pointer = draws.choice(("", "/n"))
    if draws.random() < 0.1:
        task.inputs["constant"].literal.CopyFrom(Payload(json='{"k": [1, 2]}'))
    for edge in task.dependencies:
        if draws.random() < 0.3:
            task.inputs[f"from-{edge.task}"].task_output.task = edge.task
        if edge.scope == pb.DEPENDENCY_SCOPE_SUBTREE and draws.random() < 0.5:
            task.inputs[f"below-{edge.task}"].subtree_outputs.task = edge.task


def _limits(draws: random.Random, task: pb.TaskSpec) -> None:
    task.retry.max_attempts = draws.randint(1, 4)
    task.retry.initial_interval.FromMilliseconds(draws.randint(50, 2_000))
    task.retry.max_interval.CopyFrom(Duration(seconds=5))
    task.timeouts.heartbeat.FromMilliseconds(draws.choice((1_000, 1_500, 2_000, 5_000)))
    if draws.random() < 0.2:
        task.timeouts.queue.FromMilliseconds(draws.randint(5_000, 30_000))
    if draws.random() < 0.3:
        task.timeouts.attempt.FromMilliseconds(draws.randint(1_000, 10_000))
    if draws.random() < 0.1:
        task.timeouts.task.FromMilliseconds(draws.randint(5_000, 40_000))


def _behaviour(draws: random.Random, task: pb.TaskSpec) -> dict[str, object]:
    return {
        "takes_ms": draws.choice((0, 10, 100, 1_000, 4_000)),
        "fails": draws.choice((0.0, 0.0, 0.0, 0.5, 1.0)),
        "retryable": draws.random() < 0.8,
        "retry_after_ms": draws.choice((0, 0, 300, 7_000)),
        "releases": 0.1 if draws.random() < 0.2 else 0.0,
        "hangs": 0.2 if task.timeouts.HasField("attempt") and draws.random() < 0.5 else 0.0,
        "deaf": draws.random() < 0.2,
        "reports": draws.random() < 0.3,
        "spawns": draws.randint(0, 2) if task.may_spawn else 0,
        "spawns_early": draws.random() < 0.3,
        "writes": draws.random() < 0.3,
    }


def _clean_up_task(draws: random.Random, names: list[str]) -> pb.TaskSpec:
    task = pb.TaskSpec(name="clean-up", executor=EXECUTOR, clean_up=True)
    _limits(draws, task)
    task.timeouts.ClearField("queue")
    if draws.random() < 0.5:
        task.inputs["what"].task_output.task = draws.choice(names)
    task.arguments_json = json.dumps(_behaviour(draws, task), sort_keys=True)
    return task
