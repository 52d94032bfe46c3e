"""Relations between the tasks of a slice: names, edges, cycles, and what a binding may read.

A slice is judged as a whole against the tasks that exist: it may depend on its own and on those.
The cost is the slice's, its edges' and, for a binding to a far ancestor of an earlier slice, at
most ANCESTORS_MAX tasks: depend on such a task directly instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from stretto_core.ids import TaskName

from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.domain.run.plan import Binding, SubtreeOutputs, TaskOutput, TaskSpec

ANCESTORS_MAX = 10_000
SUGGESTIONS_MAX = 5


@dataclass(slots=True)
class Slice:
    """Tasks to judge, and the paths of the fields they came from.

    existing: a task of the run by full name, or None.
    allowed: what an edge may lead to besides the slice itself; None = whatever exists.
    """

    path: str
    tasks: Sequence[TaskSpec]
    existing: Callable[[TaskName], TaskSpec | None]
    allowed: Callable[[TaskName], bool] | None = None
    own: dict[TaskName, TaskSpec] = field(default_factory=dict)
    suggestions: int = 0

    def find(self, name: TaskName) -> TaskSpec | None:
        """Return the task an edge or binding may name, or None."""
        if name in self.own:
            return self.own[name]
        return self.existing(name)

    def unknown(self, name: TaskName) -> str:
        """Describe a name that leads nowhere, with the nearest one that would."""
        if self.suggestions < SUGGESTIONS_MAX:
            self.suggestions += 1
            if near := get_close_matches(name, list(self.own), n=1):
                return f"no task is named {name!r}; did you mean {near[0]!r}?"
        return f"no task is named {name!r}"


def check_graph(findings: Findings, new: Slice) -> None:
    """Note every unknown, doubled, crossing or circular relation of the slice."""
    for index, task in enumerate(new.tasks):
        if task.name in new.own:
            findings.wrong(f"{new.path}[{index}].name", f"{task.name!r} is there twice")
        new.own[task.name] = task
    for index, task in enumerate(new.tasks):
        _check_edges(findings, f"{new.path}[{index}].dependencies", task, new)
    if cycle := _find_cycle(new):
        findings.wrong(f"{new.path}", f"the dependencies form a cycle: {' -> '.join(cycle)}")
        return
    ancestors = _Ancestors(new)
    for index, task in enumerate(new.tasks):
        for key, binding in task.inputs:
            _check_input(findings, f"{new.path}[{index}].inputs[{key!r}]", binding, task, ancestors)


def check_output(findings: Findings, path: str, output: Binding | None, new: Slice) -> None:
    """Note an output that reads a task which a plan that does not grow will never have."""
    if isinstance(output, TaskOutput | SubtreeOutputs):
        root = TaskName(output.task.split("/", 1)[0])  # A spawned task comes to be below its root.
        if root not in new.own:
            findings.wrong(f"{path}.task", new.unknown(root))


def _check_edges(findings: Findings, path: str, task: TaskSpec, new: Slice) -> None:
    seen: set[TaskName] = set()
    for index, edge in enumerate(task.dependencies):
        field_path = f"{path}[{index}].task"
        target = new.find(edge.task)
        if edge.task == task.name:
            findings.wrong(field_path, "a task cannot depend on itself")
        elif edge.task in seen:
            findings.wrong(field_path, f"{edge.task!r} is there twice")
        elif target is None:
            findings.wrong(field_path, new.unknown(edge.task))
        elif edge.task not in new.own and new.allowed and not new.allowed(edge.task):
            findings.wrong(
                field_path, "a spawned task depends on its siblings and its spawner's dependencies"
            )
        elif target.clean_up and not task.clean_up:
            findings.wrong(field_path, f"{edge.task!r} is a clean-up task and this one is not")
        elif task.clean_up and not target.clean_up:
            findings.wrong(field_path, "a clean-up task may depend on clean-up tasks only")
        seen.add(edge.task)


def _find_cycle(new: Slice) -> list[TaskName]:
    """Return the tasks of one cycle, the first named again at its end, or []."""
    open_counts = {
        name: sum(edge.task in new.own and edge.task != name for edge in task.dependencies)
        for name, task in new.own.items()
    }
    dependents: dict[TaskName, list[TaskName]] = {}
    for name, task in new.own.items():
        for edge in task.dependencies:
            if edge.task != name:  # Named as such already.
                dependents.setdefault(edge.task, []).append(name)
    free = [name for name, count in open_counts.items() if count == 0]
    while free:
        name = free.pop()
        del open_counts[name]
        for dependent in dependents.get(name, ()):
            open_counts[dependent] -= 1
            if open_counts[dependent] == 0:
                free.append(dependent)
    if not open_counts:
        return []
    # Every task left waits for another one left, so following those must come back.
    path = [next(iter(open_counts))]
    seen_at = {path[0]: 0}
    while True:
        edges = new.own[path[-1]].dependencies
        following = next(
            edge.task for edge in edges if edge.task in open_counts and edge.task != path[-1]
        )
        path.append(following)
        if following in seen_at:
            return path[seen_at[following] :]
        seen_at[following] = len(path) - 1


class _Ancestors:
    """Who is above whom: sets of bits inside the slice, walked on demand beyond its border."""

    def __init__(self, new: Slice) -> None:
        self.new = new
        self._bits: dict[TaskName, int] = {}
        self._names: list[TaskName] = []
        self._above: dict[TaskName, int] = {}

    def has(self, task: TaskSpec, wanted: TaskName) -> bool:
        """Whether `wanted` is reached from `task` by dependencies."""
        if task.name not in self._above:
            self._walk(task.name)
        above = self._above[task.name]
        if wanted in self._bits and above >> self._bits[wanted] & 1:
            return True
        return wanted not in self.new.own and self._is_beyond(above, wanted)

    def _walk(self, name: TaskName) -> None:
        """Note what is above a task of the slice, and above those of the slice on the way."""
        own = self.new.own
        path = [name]
        while path:
            name = path[-1]
            edges = [edge.task for edge in own[name].dependencies if edge.task != name]
            if name not in self._above:
                self._above[name] = 0  # Seen: each is opened once, whatever leads to it.
                path.extend(each for each in edges if each in own and each not in self._above)
                continue
            path.pop()
            for each in edges:
                self._above[name] |= self._above.get(each, 0) | self._bit(each)

    def _bit(self, name: TaskName) -> int:
        if name not in self._bits:
            self._bits[name] = len(self._names)
            self._names.append(name)
        return 1 << self._bits[name]

    def _is_beyond(self, above: int, wanted: TaskName) -> bool:
        """Whether `wanted`, of an earlier slice, is above one that this slice depends on."""
        path = [
            name
            for index, name in enumerate(self._names)
            if above >> index & 1 and name not in self.new.own
        ]
        seen = set(path)
        while path and len(seen) < ANCESTORS_MAX:
            above_it = self.new.existing(path.pop())
            for edge in above_it.dependencies if above_it else ():
                if edge.task == wanted:
                    return True
                if edge.task not in seen:
                    seen.add(edge.task)
                    path.append(edge.task)
        return False


def _check_input(
    findings: Findings, path: str, binding: Binding, task: TaskSpec, ancestors: _Ancestors
) -> None:
    if not isinstance(binding, TaskOutput | SubtreeOutputs):
        return
    if ancestors.new.find(binding.task) is None:
        findings.wrong(path, ancestors.new.unknown(binding.task))
    elif task.clean_up:
        return  # It runs after every ordinary task, so it may read any of them.
    elif isinstance(binding, TaskOutput):
        if not ancestors.has(task, binding.task):
            findings.wrong(path, f"{binding.task!r} is not an ancestor by dependencies")
    elif not any(edge.subtree and edge.task == binding.task for edge in task.dependencies):
        findings.wrong(path, f"needs a dependency of scope SUBTREE on {binding.task!r}")
