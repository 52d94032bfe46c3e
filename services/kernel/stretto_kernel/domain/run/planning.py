"""Deciding what enters a run: its first plan, further slices, and spawned tasks.

Everything new is judged as a whole: all of it enters, or nothing does and every mistake is named.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.commands import AddTasks, StartRun
from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.domain.run.judging import judge_graph, judging_tasks
from stretto_kernel.domain.run.parts import whole
from stretto_kernel.domain.run.plan import TaskSpec, read_spawned
from stretto_kernel.domain.run.plan_check import check_task_count, check_tasks
from stretto_kernel.domain.run.plan_defaults import filled_tasks
from stretto_kernel.domain.run.plan_graph import Slice, check_graph
from stretto_kernel.domain.run.refusals import (
    PlanSealed,
    RunClosed,
    SpawnNotAllowed,
    TaskConflict,
    TaskLimit,
)
from stretto_kernel.domain.run.state import RunEvent, RunState
from stretto_kernel.domain.run.task import TaskRecord

DEPTH_MAX = 16
DISPLAY_NAME_CHARS_MAX = 200


def start_run(state: RunState, command: StartRun) -> tuple[RunEvent, ...]:
    """Accept the run with every default written out. Repeats were answered before."""
    assert state.start is None
    judged = command.judged or judge_graph(command.graph)
    findings = judged.findings.copy()
    if command.input is not None:
        findings.check_payload("input", command.input)
    findings.check_labels("labels", dict(command.labels))
    findings.check_text("display_name", command.display_name, characters_max=DISPLAY_NAME_CHARS_MAX)
    findings.refuse("the run")
    _check_task_count(len(judged.graph.tasks), judged.graph.task_count_max)
    return (
        ev.RunStarted(
            plan=judged.graph,
            input=command.input,
            labels=dict(command.labels),
            display_name=command.display_name,
        ),
    )


def add_tasks(state: RunState, command: AddTasks) -> tuple[RunEvent, ...]:
    """Add a slice; tasks that are there already with the same spec are left out of it."""
    if state.end is not None or state.stopping is not None:
        raise RunClosed(
            "the run takes no further tasks: it has ended or is stopping; start another"
        )
    judged = command.judged or whole(judging_tasks("tasks", command.tasks))
    findings = judged.findings.copy()
    new = Slice("tasks", judged.specs, existing=lambda name: _spec(state, name))
    check_graph(findings, new)
    findings.refuse("the slice")
    fresh = _without_existing(state, judged.tasks, judged.specs)
    if state.sealed:
        if fresh:
            raise PlanSealed("the plan was sealed: no further slice is taken")
        return ()
    if not fresh and not command.sealed:
        return ()
    _check_task_count(state.task_count + len(fresh), state.policies.task_count_max)
    return (ev.TasksAdded(tasks=fresh, sealed=command.sealed),)


def spawned_tasks(
    state: RunState, spawner: TaskRecord, tasks: Sequence[pb.TaskSpec], path: str
) -> list[pb.TaskSpec]:
    """Return the tasks to add below the spawner, those that are there already left out.

    Raises SpawnNotAllowed, InvalidArgument, Unimplemented, TaskConflict, TaskLimit.
    """
    if not spawner.spec.may_spawn:
        raise SpawnNotAllowed("the task's spec does not let it spawn", task=spawner.name)
    filled = filled_tasks(tasks)
    findings = Findings()
    if check_task_count(findings, path, len(filled)):
        check_tasks(findings, path, filled)
    if spawner.depth >= DEPTH_MAX:
        findings.wrong(path, f"spawning goes at most {DEPTH_MAX} levels deep")
    for index, task in enumerate(filled):
        if task.clean_up and not spawner.spec.clean_up:
            findings.wrong(f"{path}[{index}].clean_up", "an ordinary task spawns ordinary ones")
    specs = read_spawned(filled, spawner.spec, lambda name: name in state.tasks)
    above = {edge.task for edge in spawner.spec.dependencies}
    below = f"{spawner.name}/"
    new = Slice(
        path,
        specs,
        existing=lambda name: _spec(state, name),
        allowed=lambda name: name in above or name.startswith(below),
    )
    check_graph(findings, new)
    findings.refuse("the spawned tasks")
    fresh = _without_existing(state, filled, specs)
    _check_task_count(state.task_count + len(fresh), state.policies.task_count_max)
    return fresh


def spawned_specs(
    state: RunState, spawner: TaskRecord, tasks: Sequence[pb.TaskSpec]
) -> list[TaskSpec]:
    """Return what was asked to be spawned, as read: the part of an outcome's digest."""
    return read_spawned(filled_tasks(tasks), spawner.spec, lambda name: name in state.tasks)


def result_or_null(payload: Payload | None) -> Payload:
    """Return the result, JSON null when none was given."""
    if payload is None or payload.WhichOneof("value") is None:
        return Payload(json="null")
    return payload


def _spec(state: RunState, name: TaskName) -> TaskSpec | None:
    return state.tasks[name].spec if name in state.tasks else None


def _without_existing(
    state: RunState, tasks: Sequence[pb.TaskSpec], specs: Sequence[TaskSpec]
) -> list[pb.TaskSpec]:
    fresh = []
    for task, spec in zip(tasks, specs, strict=True):
        existing = _spec(state, spec.name)
        if existing is None:
            fresh.append(task)
        elif existing != spec:
            raise TaskConflict(f"task {spec.name!r} exists with another spec", task=spec.name)
    return fresh


def _check_task_count(task_count: int, task_count_max: int) -> None:
    if task_count > task_count_max:
        raise TaskLimit(
            f"the run would hold {task_count} tasks; its limit is {task_count_max}",
            task_count=str(task_count),
            task_count_max=str(task_count_max),
        )
