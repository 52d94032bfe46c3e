"""WfCommons WfFormat 1.5 and 1.6 as a plan: each task sleeps as long as it once took.

Takes the graph from `workflow.specification.tasks[].parents` and the runtimes (seconds) from
`workflow.execution.tasks[].runtimeInSeconds`; files, machines and commands are left out. A task
without a measured runtime takes none. Pure. Source: the schema at github wfcommons/WfFormat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from stretto_sdk.durations import SPAN_NS_MAX
from stretto_sdk.fields import Fields, Mistakes
from stretto_sdk.imports import Imported
from stretto_sdk.imports.sleeping import plan_form, sleeping_task
from stretto_sdk.imports.task_names import task_names
from stretto_sdk.task_order import cycle_beside, ordered

VERSIONS = ("1.5", "1.6")
SCALED_S_MAX = SPAN_NS_MAX / 1e9
_TASKS_AT = "workflow.specification.tasks"


@dataclass(slots=True)
class _Traced:
    """A task as the document has it; `at` is its path there."""

    id: str
    at: str
    parents: list[str]
    children: list[str] | None
    runtime_s: float = 0.0
    measured: bool = False


@dataclass(slots=True)
class _Trace:
    """What was read of a document."""

    mistakes: Mistakes
    tasks: dict[str, _Traced] = field(default_factory=dict)


def plan_of_wfformat(
    document: object, *, time_scale: float = 1.0, source: str = "the workflow"
) -> Imported:
    """Return the plan of a parsed WfFormat document.

    time_scale: what each runtime is multiplied with, >= 0; 0 = no task sleeps.
    source: what the document is, as a person calls it; it opens the message.
    Raises InvalidArgument with every mistake, each with its path.
    """
    mistakes = Mistakes()
    if not (math.isfinite(time_scale) and time_scale >= 0):
        mistakes.add("time_scale", "must be a number >= 0")
        mistakes.raise_if_any(source)
    trace = _Trace(mistakes)
    top = Fields(document, "", mistakes)
    _check_version(top)
    workflow = _inner(top, "workflow", required=True)
    if workflow is not None:
        specification = _inner(workflow, "specification", required=True)
        if specification is not None:
            _read_tasks(trace, specification)
            _read_runtimes(trace, workflow)
            _check_relations(trace)
            _check_spans(trace, time_scale)
    mistakes.raise_if_any(source)
    return _imported(trace, top.text("name"), time_scale)


def _check_version(top: Fields) -> None:
    version = top.text("schemaVersion")
    if version not in VERSIONS:
        said = f"not {version!r}" if version else "and it is missing"
        top.wrong("schemaVersion", f"must be {' or '.join(VERSIONS)}, {said}")


def _inner(fields: Fields, name: str, *, required: bool) -> Fields | None:
    if fields.has(name):
        value = fields.value(name)
        within = Fields(value, fields.at(name), fields.mistakes)
        return within if isinstance(value, Mapping) else None
    if required:
        fields.wrong(name, "is required")
    return None


def _read_tasks(trace: _Trace, specification: Fields) -> None:
    if not specification.value("tasks"):
        specification.wrong("tasks", "is required: a list of at least one task")

    def read(value: object, at: str, mistakes: Mistakes) -> None:
        fields = Fields(value, at, mistakes)
        if not isinstance(value, Mapping):
            return
        name = fields.text("id", required=True)
        children = fields.texts("children") if fields.has("children") else None
        task = _Traced(name, at, fields.texts("parents"), children)
        if name in trace.tasks:
            fields.wrong("id", f"{name!r} is there twice, first as {trace.tasks[name].at}")
        elif name:
            trace.tasks[name] = task

    specification.each("tasks", read)


def _read_runtimes(trace: _Trace, workflow: Fields) -> None:
    execution = _inner(workflow, "execution", required=False)
    if execution is None:
        return

    def read(value: object, at: str, mistakes: Mistakes) -> None:
        fields = Fields(value, at, mistakes)
        if not isinstance(value, Mapping):
            return
        name = fields.text("id", required=True)
        runtime_s = fields.number("runtimeInSeconds")
        if runtime_s is not None and not (math.isfinite(runtime_s) and runtime_s >= 0):
            fields.wrong("runtimeInSeconds", f"must be a number >= 0, not {runtime_s}")
            runtime_s = None
        task = trace.tasks.get(name)
        if task is None:
            if name:
                fields.wrong("id", f"no task of {_TASKS_AT} has the id {name!r}")
        elif task.measured:
            fields.wrong("id", f"{name!r} is there twice")
        else:
            task.measured = True
            task.runtime_s = runtime_s or 0.0

    execution.each("tasks", read)


def _check_relations(trace: _Trace) -> None:
    mistakes = trace.mistakes
    for task in trace.tasks.values():
        seen: set[str] = set()
        for index, parent in enumerate(task.parents):
            at = f"{task.at}.parents[{index}]"
            if parent == task.id:
                mistakes.add(at, "a task cannot be its own parent")
            elif parent in seen:
                mistakes.add(at, f"{parent!r} is there twice")
            elif parent not in trace.tasks:
                mistakes.add(at, f"no task has the id {parent!r}")
            seen.add(parent)
    _check_children(trace)
    names = list(trace.tasks)
    numbers = {name: number for number, name in enumerate(names)}
    waits_for = [
        {numbers[each] for each in task.parents if each in numbers and each != task.id}
        for task in trace.tasks.values()
    ]
    if cycle := cycle_beside(ordered(waits_for), waits_for):
        round_trip = " -> ".join(names[number] for number in cycle)
        mistakes.add(_TASKS_AT, f"the parents form a cycle: {round_trip}")


def _check_children(trace: _Trace) -> None:
    """Note where a list of children says another graph than the lists of parents."""
    edges = {(parent, task.id) for task in trace.tasks.values() for parent in task.parents}
    for task in trace.tasks.values():
        for index, child in enumerate(task.children or ()):
            at = f"{task.at}.children[{index}]"
            if child not in trace.tasks:
                trace.mistakes.add(at, f"no task has the id {child!r}")
            elif (task.id, child) not in edges:
                trace.mistakes.add(at, f"{child!r} does not name {task.id!r} among its parents")


def _check_spans(trace: _Trace, time_scale: float) -> None:
    for task in trace.tasks.values():
        if task.runtime_s * time_scale > SCALED_S_MAX:
            trace.mistakes.add(
                task.at, f"would sleep longer than {SCALED_S_MAX:.0f} s: scale the time down"
            )


def _imported(trace: _Trace, name: str, time_scale: float) -> Imported:
    names = dict(zip(trace.tasks, task_names(trace.tasks), strict=True))
    tasks = [
        sleeping_task(
            names[task.id],
            sleep_s=task.runtime_s * time_scale,
            after=[names[parent] for parent in task.parents],
        )
        for task in trace.tasks.values()
    ]
    remarks = []
    if unmeasured := sum(not task.runtime_s for task in trace.tasks.values()):
        remarks.append(f"{unmeasured} of {len(tasks)} tasks have no runtime: they take no time")
    if renamed := sum(each != name for each, name in names.items()):
        remarks.append(f"{renamed} ids are no task names and were rewritten")
    return Imported(plan_form(name, tasks), remarks)
