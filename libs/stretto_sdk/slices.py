"""Cuts a plan that is too large for one message into slices the kernel takes one after another.

Pure. Tasks go level by level, so that each slice depends only on itself and on earlier ones, and
the first of them can run while the last are still on their way. What lies between tasks is judged
by `relations` for the whole, which the kernel never sees at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import InvalidArgument

from stretto_sdk.fields import Mistakes
from stretto_sdk.form_paths import form_path
from stretto_sdk.relations import check_relations
from stretto_sdk.task_order import ordered

MESSAGE_TASKS_MAX = 1_000
"""The most the kernel takes at once."""
SLICE_TASKS_MAX = 250
"""Of a plan that is sliced: what the kernel takes in without keeping others waiting for long."""
SLICE_BYTES_MAX = 512 << 10
"""Of a slice's tasks: half of what the kernel records as one fact; defaults and the run's input
come beside them."""


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
    waits_for = check_relations(graph, mistakes)
    mistakes.raise_if_any("the plan")
    order = ordered(waits_for)
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
