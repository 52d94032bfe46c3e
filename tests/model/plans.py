"""Random small plans for the models, from a seeded source."""

from __future__ import annotations

from random import Random

from google.protobuf.duration_pb2 import Duration
from stretto.run.v1 import plan_pb2 as plan

SCOPES = (
    plan.DEPENDENCY_SCOPE_TASK,
    plan.DEPENDENCY_SCOPE_TASK,
    plan.DEPENDENCY_SCOPE_SUBTREE,
)


def random_task(
    random: Random, name: str, ordinary: list[str], clean_up: list[str]
) -> plan.TaskSpec:
    """Return a task that may depend on those named before it, and add its name to its kind."""
    cleans_up = random.random() < 0.15
    above = clean_up if cleans_up else ordinary
    after = random.sample(above, min(len(above), random.choice([0, 1, 1, 2, 3])))
    task = plan.TaskSpec(
        name=name,
        executor="process",
        queue=("", "gpu")[len(ordinary) % 2],
        dependencies=[plan.Dependency(task=e, scope=random.choice(SCOPES)) for e in after],
        may_spawn=random.random() < 0.5,
        clean_up=cleans_up,
        on_failure=random.choice([plan.ON_FAILURE_FAIL, plan.ON_FAILURE_IGNORE]),
        retry=plan.RetryPolicy(max_attempts=random.randint(1, 3)),
    )
    if after:
        _join(random, task)
        task.inputs["above"].task_output.task = after[0]
        if random.random() < 0.1:
            task.inputs["above"].task_output.pointer = "/nowhere"
    if random.random() < 0.2:
        task.output_schema_json = '{"maximum": 1}'  # Of the results 1 and 2.
    for span in (task.timeouts.queue, task.timeouts.attempt, task.timeouts.task):
        if random.random() < 0.3:
            span.seconds = random.choice([2, 5, 10])
    (clean_up if cleans_up else ordinary).append(name)
    return task


def _join(random: Random, task: plan.TaskSpec) -> None:
    kind = random.choice([1, 2, 3, 4])
    task.join.kind = kind  # type: ignore[assignment]
    if kind == plan.JOIN_KIND_N_SUCCEEDED:
        task.join.count = random.randint(1, len(task.dependencies))
    if kind in (plan.JOIN_KIND_ANY_SUCCEEDED, plan.JOIN_KIND_N_SUCCEEDED):
        task.join.rest = random.choice([plan.JOIN_REST_IGNORED, plan.JOIN_REST_CANCELLED])


def random_graph(random: Random) -> plan.TaskGraph:
    """Return a plan of one to six tasks, static or growing, with random policies."""
    ordinary: list[str] = []
    clean_up: list[str] = []
    names = [f"t{index}" for index in range(random.randint(1, 6))]
    graph = plan.TaskGraph(
        tasks=[random_task(random, name, ordinary, clean_up) for name in names],
        growing=random.random() < 0.25,
        failure_policy=random.choice([plan.FAILURE_POLICY_CONTINUE, plan.FAILURE_POLICY_FAIL_FAST]),
        cancel_grace=Duration(seconds=5),
        clean_up_timeout=Duration(seconds=20),
    )
    if random.random() < 0.3:
        graph.run_timeout.seconds = 30
    if random.random() < 0.5:
        graph.output.task_output.task = random.choice(names)
    return graph
