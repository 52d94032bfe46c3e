"""Cuts a plan that is too large for one message into slices the kernel takes one after another.

Pure. Tasks go level by level, so that each slice depends only on itself and on earlier ones, and
the first of them can run while the last are still on their way. What the kernel judges of a plan as
a whole (unknown names, cycles) is judged here for the whole that it never sees at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import InvalidArgument

from stretto_sdk.fields import Mistakes
from stretto_sdk.plan_form import form_path
from stretto_sdk.task_order import cycle_beside, ordered

MESSAGE_TASKS_MAX = 1_000
"""The most the kernel takes at once."""
SLICE_TASKS_MAX = 500
"""Of a plan that is sliced: what the kernel takes in without keeping others waiting for long."""
SLICE_BYTES_MAX = 512 << 10
"""Of a slice's tasks: half of what the kernel records as one fact; defaults and the run's input
come beside them."""
TASK_COUNT_DEFAULT_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Slice:
    """Some tasks of a plan. numbers: where each stands in the plan's own list."""

    numbers: Sequence[int]
    tasks: Sequence[pb.TaskSpec]

    def in_the_plan(self, refused: InvalidArgument, path: str) -> InvalidArgument:
        """Return the kernel's refusal of this slice with the paths of the plan it was cut from.

        path: what the kernel calls the slice's list of tasks.
        """
        mistakes = Mistakes()
        for each in refused.violations:
            mistakes.add(form_path(self._path_in_the_plan(each.field, path)), each.description)
        try:
            mistakes.raise_if_any("the plan")
        except InvalidArgument as named:
            return named
        return refused

    def _path_in_the_plan(self, field: str, path: str) -> str:
        number, bracket, rest = field.removeprefix(f"{path}[").partition("]")
        if not (bracket and number.isdecimal() and int(number) < len(self.numbers)):
            return field
        return f"tasks[{self.numbers[int(number)]}]{rest}"


def is_sliced(graph: pb.TaskGraph) -> bool:
    """Whether the plan is more than one message takes."""
    return len(graph.tasks) > MESSAGE_TASKS_MAX or graph.ByteSize() > SLICE_BYTES_MAX


def slices_of(graph: pb.TaskGraph) -> list[Slice]:
    """Return the plan's tasks in slices. Raises InvalidArgument for what is wrong between them."""
    mistakes = Mistakes()
    waits_for = _relations(graph, mistakes)
    order = ordered(waits_for)
    if cycle := cycle_beside(order, waits_for):
        names = " -> ".join(graph.tasks[number].name for number in cycle)
        mistakes.add("tasks", f"the dependencies form a cycle: {names}")
    mistakes.raise_if_any("the plan")
    slices: list[list[int]] = [[]]
    size_bytes = 0
    for number in order:
        task_bytes = graph.tasks[number].ByteSize()
        full = len(slices[-1]) == SLICE_TASKS_MAX or size_bytes + task_bytes > SLICE_BYTES_MAX
        if full and slices[-1]:
            slices.append([])
            size_bytes = 0
        slices[-1].append(number)
        size_bytes += task_bytes
    return [Slice(each, [graph.tasks[number] for number in each]) for each in slices]


def alone(piece: Slice) -> list[pb.TaskSpec]:
    """Return copies of a slice's tasks without what leads out of it: to check it by itself."""
    own = {task.name for task in piece.tasks}
    copies = []
    for task in piece.tasks:
        copy = pb.TaskSpec()
        copy.CopyFrom(task)
        del copy.dependencies[:]
        copy.dependencies.extend(edge for edge in task.dependencies if edge.task in own)
        if len(copy.dependencies) < len(task.dependencies):
            copy.ClearField("join")  # It counts what is no longer there.
        for key, binding in task.inputs.items():
            source = binding.task_output.task or binding.subtree_outputs.task
            if source and source not in own:
                del copy.inputs[key]
        copies.append(copy)
    return copies


def _relations(graph: pb.TaskGraph, mistakes: Mistakes) -> list[list[int]]:
    """Return what each task waits for, by numbers; unknown names, doubles and loops are noted."""
    numbers: dict[str, int] = {}
    for number, task in enumerate(graph.tasks):
        if numbers.setdefault(task.name, number) != number:
            mistakes.add(f"tasks[{number}].name", f"{task.name!r} is there twice")
    count_max = graph.task_count_max or TASK_COUNT_DEFAULT_MAX
    if len(graph.tasks) > count_max:
        mistakes.add(
            "task_count_max",
            f"the plan has {len(graph.tasks)} tasks and allows {count_max}: raise it",
        )
    output = graph.output.task_output.task or graph.output.subtree_outputs.task
    # A spawned task comes to be below the task its name starts with.
    if output and output.split("/", 1)[0] not in numbers:
        mistakes.add("output.task", f"no task is named {output!r}")
    waits_for: list[list[int]] = []
    for number, task in enumerate(graph.tasks):
        above: dict[int, None] = {}
        for index, edge in enumerate(task.dependencies):
            at = f"tasks[{number}].after[{index}]"
            found = numbers.get(edge.task)
            if edge.task == task.name:
                mistakes.add(at, "a task cannot depend on itself")
            elif found is None:
                mistakes.add(at, f"no task is named {edge.task!r}")
            else:
                above[found] = None
        waits_for.append(list(above))
    return waits_for
