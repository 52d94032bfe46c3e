"""Judging a plan but for the run it enters: each task by itself, and a first plan as a whole.

It is most of what taking in a large slice costs, and needs no state: so it is done in parts before
the slice is decided, which is one step. What it returns is shared and never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import Message
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as pb

from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.domain.run.parts import Work, parts_of, whole
from stretto_kernel.domain.run.plan import (
    PLANS_REMEMBERED_MAX,
    TaskSpec,
    read_tasks,
    reading_graph,
    reading_tasks,
    remembered_bytes,
)
from stretto_kernel.domain.run.plan_check import check_policies, check_task_count, check_tasks
from stretto_kernel.domain.run.plan_defaults import fill_policies, fill_task, filled_tasks
from stretto_kernel.domain.run.plan_graph import Slice, check_graph, check_output


class JudgedTasks(NamedTuple):
    """The tasks of a slice with every default written out; the same as read; what is wrong."""

    tasks: Sequence[pb.TaskSpec]
    specs: Sequence[TaskSpec]
    findings: Findings


class JudgedGraph(NamedTuple):
    """A first plan with every default written out, and what is wrong in it."""

    graph: pb.TaskGraph
    findings: Findings


def judging_tasks(path: str, tasks: Sequence[pb.TaskSpec]) -> Work[JudgedTasks]:
    """Judge the tasks of a slice, each by itself."""
    findings = Findings()
    filled: list[pb.TaskSpec] = []
    specs: list[TaskSpec] = []
    if check_task_count(findings, path, len(tasks)):
        for part in parts_of(tasks):
            if filled:
                yield
            copies = filled_tasks(part)
            check_tasks(findings, path, copies, first_index=len(filled))
            specs += read_tasks(copies)
            filled += copies
    return JudgedTasks(filled, specs, findings)


def judge_graph(graph: pb.TaskGraph) -> JudgedGraph:
    """Judge a first plan; a small one that was judged before is not judged again."""
    serialized = remembered_bytes(graph)
    return whole(judging_graph(graph)) if serialized is None else _judge_remembered(serialized)


@lru_cache(maxsize=PLANS_REMEMBERED_MAX)
def _judge_remembered(serialized: bytes) -> JudgedGraph:
    return whole(judging_graph(pb.TaskGraph.FromString(serialized)))


def judging_graph(graph: pb.TaskGraph) -> Work[JudgedGraph]:
    """Do what `judge_graph` does of a large plan, in parts."""
    findings = Findings()
    filled = pb.TaskGraph()
    filled.CopyFrom(graph)
    fill_policies(filled)
    check_policies(findings, "task_graph", filled)
    if not check_task_count(findings, "task_graph.tasks", len(filled.tasks)):
        return JudgedGraph(filled, findings)
    index = 0
    for part in parts_of(filled.tasks):
        for task in part:
            fill_task(task)
        check_tasks(findings, "task_graph.tasks", part, first_index=index)
        index += len(part)
        yield
    policies, tasks = yield from reading_graph(filled)
    new = Slice("task_graph.tasks", tasks, existing=lambda name: None)
    check_graph(findings, new)
    if not policies.growing:
        check_output(findings, "task_graph.output", policies.output, new)
    return JudgedGraph(filled, findings)


def reading_ahead(event: Message) -> Work[None]:
    """Read the tasks that a recorded fact brings: the fold finds them read."""
    match event:
        case ev.RunStarted():
            yield from reading_graph(event.plan)
        case ev.TasksAdded():
            yield from reading_tasks(event.tasks)
