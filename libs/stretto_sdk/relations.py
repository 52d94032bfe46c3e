"""What lies between the tasks of a plan: names, edges, cycles, and what a binding may read.

The kernel judges the same of every plan that it sees at once; this is for what it does not see: a
file on its way to it, to which all mistakes are named before anything is sent, and a plan in
slices. Pure. The cost is the tasks' and their edges'; what is above whom is told by sets of bits,
and only for plans that bind to more than their direct dependencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from stretto.run.v1 import plan_pb2 as pb

from stretto_sdk.fields import Mistakes, nearest
from stretto_sdk.plan_files.places import step_text
from stretto_sdk.task_order import cycle_beside, ordered

TASK_COUNT_DEFAULT_MAX = 10_000
ANCESTRY_TASKS_MAX = 20_000
"""Of a larger plan the kernel judges the bindings to far ancestors, slice by slice."""
_CYCLES_MAX = 20
_COMPARISONS_MAX = 40_000
"""Of names with names, for suggestions; a second of work. What comes after has none."""


def check_relations(graph: pb.TaskGraph, mistakes: Mistakes) -> list[list[int]]:
    """Note every unknown, doubled, crossing or circular relation, by the paths of the form.

    Returns what each task waits for, by numbers.
    """
    relations = _Relations(graph, mistakes)
    for number, task in enumerate(graph.tasks):
        if relations.numbers.setdefault(task.name, number) != number and task.name:
            mistakes.add(f"tasks[{number}].name", f"{task.name!r} is there twice; rename one")
    count_max = graph.task_count_max or TASK_COUNT_DEFAULT_MAX
    if len(graph.tasks) > count_max:
        mistakes.add(
            "task_count_max",
            f"the plan has {len(graph.tasks)} tasks and allows {count_max}: raise it",
        )
    output = graph.output.task_output.task or graph.output.subtree_outputs.task
    # A spawned task comes to be below the task its name starts with.
    if output and output.split("/", 1)[0] not in relations.numbers and not graph.growing:
        mistakes.add("output.task", relations.unknown(output))
    waits_for = [relations.edges(number) for number in range(len(graph.tasks))]
    order = _check_cycles(graph, waits_for, mistakes)
    if len(order) == len(waits_for):
        relations.check_bindings(waits_for, order)
    return waits_for


def _check_cycles(
    graph: pb.TaskGraph, waits_for: Sequence[Sequence[int]], mistakes: Mistakes
) -> list[int]:
    """Note cycles that share no task; returns the tasks in order without those on or after one."""
    order = ordered(waits_for)
    left = [list(each) for each in waits_for]
    within = order
    for _ in range(_CYCLES_MAX):
        cycle = cycle_beside(within, left)
        if not cycle:
            break
        names = " -> ".join(graph.tasks[number].name for number in cycle)
        mistakes.add(
            _place_of(cycle, graph, mistakes),
            f"the dependencies form a cycle: {names}; take one of these edges away",
        )
        left = [
            [] if number in cycle else [each for each in above if each not in cycle]
            for number, above in enumerate(left)
        ]
        within = ordered(left)
    return order


def _place_of(cycle: Sequence[int], graph: pb.TaskGraph, mistakes: Mistakes) -> str:
    """Return the path of an edge of a cycle that is not mistaken otherwise, else of them all."""
    taken = {path for path, _, _ in mistakes.found()}
    for number, following in pairwise(cycle):
        edges = [edge.task for edge in graph.tasks[number].dependencies]
        path = f"tasks[{number}].after[{edges.index(graph.tasks[following].name)}]"
        if path not in taken:
            return path
    return f"tasks[{cycle[0]}].after"


@dataclass(slots=True)
class _Relations:
    graph: pb.TaskGraph
    mistakes: Mistakes
    numbers: dict[str, int] = field(default_factory=dict)
    comparisons: int = 0

    def unknown(self, name: str) -> str:
        """Describe a name that leads nowhere, with the nearest one that would."""
        near = ""
        if self.comparisons < _COMPARISONS_MAX:
            self.comparisons += len(self.numbers)
            near = nearest(name, self.numbers)
        return f"no task is named {name!r}{near}"

    def edges(self, number: int) -> list[int]:
        """Return what a task waits for; note what is wrong with its edges."""
        task = self.graph.tasks[number]
        above: dict[int, None] = {}
        for index, edge in enumerate(task.dependencies):
            found = self.numbers.get(edge.task)
            if not edge.task:
                continue
            if why := self._wrong_edge(task, edge.task, found, above):
                self.mistakes.add(f"tasks[{number}].after[{index}]", why)
            if found is not None and edge.task != task.name:
                above[found] = None
        return list(above)

    def _wrong_edge(
        self, task: pb.TaskSpec, name: str, found: int | None, above: dict[int, None]
    ) -> str:
        if name == task.name:
            return "a task cannot depend on itself"
        if found is None:
            return self.unknown(name)
        if found in above:
            return f"{name!r} is there twice"
        target = self.graph.tasks[found]
        if target.clean_up and not task.clean_up:
            return f"{name!r} is a clean-up task and this one is not"
        if task.clean_up and not target.clean_up:
            return "a clean-up task may depend on clean-up tasks only; it runs after all others"
        return ""

    def check_bindings(self, waits_for: Sequence[Sequence[int]], order: Sequence[int]) -> None:
        """Note inputs that read what does not come before."""
        far: list[tuple[int, str, int]] = []
        for number, task in enumerate(self.graph.tasks):
            for key, binding in task.inputs.items():
                at = f"tasks[{number}].inputs{step_text(key)}.task"
                output, subtree = binding.task_output.task, binding.subtree_outputs.task
                name = output or subtree
                found = self.numbers.get(name)
                if not name:
                    continue
                if found is None:
                    self.mistakes.add(at, self.unknown(name))
                elif task.clean_up:
                    continue  # It runs after every ordinary task, so it may read any of them.
                elif output and found not in waits_for[number]:
                    far.append((number, at, found))
                elif subtree and not any(
                    edge.task == subtree and edge.scope == pb.DEPENDENCY_SCOPE_SUBTREE
                    for edge in task.dependencies
                ):
                    self.mistakes.add(
                        at,
                        f"needs the whole subtree of {subtree!r} to come before: add "
                        f'{{"task": "{subtree}", "scope": "subtree"}} to after',
                    )
        if far and len(order) <= ANCESTRY_TASKS_MAX:
            above = _ancestors(waits_for, order)
            for number, at, found in far:
                if not above[number] >> found & 1:
                    name = self.graph.tasks[found].name
                    self.mistakes.add(
                        at, f"{name!r} does not come before this task: add it to after"
                    )


def _ancestors(waits_for: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Return who is above each task, as sets of bits."""
    above = [0] * len(waits_for)
    for number in order:
        for each in waits_for[number]:
            above[number] |= above[each] | 1 << each
    return above
