"""What a watch knows of a run: its newest state and its tasks by what they do.

Pure, and made for runs of thousands of tasks: a change costs the tasks that changed, never those
that the run has. Which of them are worth a line is said here; how a line looks is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from stretto_sdk.runs import Run, RunChange, Task, TaskState

URGENCY = (
    TaskState.RUNNING,
    TaskState.VERIFYING,
    TaskState.FAILED,
    TaskState.WAITING,
    TaskState.READY,
    TaskState.CANCELLED,
    TaskState.PENDING,
    TaskState.SKIPPED,
    TaskState.SUCCEEDED,
    TaskState.UNKNOWN,
)
"""The states in the order in which a person wants to see them."""

ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED})
_URGENT = (TaskState.RUNNING, TaskState.FAILED, TaskState.WAITING)
_DEPENDENCIES_LOOKED_AT_MAX = 200


@dataclass(slots=True)
class RunBoard:
    """The newest of a run and its tasks."""

    run: Run | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    _by_state: dict[TaskState, dict[str, None]] = field(
        default_factory=lambda: {state: {} for state in URGENCY}
    )
    _children: dict[str, list[str]] = field(default_factory=dict)

    def take(self, change: RunChange) -> list[Task]:
        """Take a step of the watch; returns the tasks that are not as they were known."""
        self.run = change.run
        changed = []
        for task in change.tasks:
            before = self.tasks.get(task.name)
            if before == task:
                continue  # A watch that was resumed tells what is known already.
            changed.append(task)
            self.tasks[task.name] = task
            if before is None:
                self._children.setdefault(task.spawner, []).append(task.name)
            elif before.state is not task.state:
                del self._by_state[before.state][task.name]
            self._by_state[task.state].setdefault(task.name)
        return changed

    def count(self, state: TaskState) -> int:
        """Return how many tasks are in a state."""
        return len(self._by_state[state])

    def most_urgent(self, count_max: int) -> list[Task]:
        """Return the tasks to show when not all of them can be: what runs, failed, waits.

        However many run, a third is kept for what failed and a third for what waits.
        """
        share = max(1, count_max // 3)
        counts = {state: min(self.count(state), share) for state in _URGENT}
        rest = count_max - sum(counts.values())
        for state in URGENCY:
            more = min(rest, self.count(state) - counts.get(state, 0))
            counts[state] = counts.get(state, 0) + more
            rest -= more
        names = (name for state in URGENCY for name in islice(self._by_state[state], counts[state]))
        return [self.tasks[name] for name in islice(names, count_max)]

    def tree(self) -> Iterator[tuple[str, Task]]:
        """Yield every task after the one that spawned it, with the guide to draw before it."""
        yield from self._below("", "")

    def _below(self, spawner: str, indent: str) -> Iterator[tuple[str, Task]]:
        # Spawning is at most 16 deep.
        names = self._children.get(spawner, [])
        for number, name in enumerate(names, start=1):
            last = number == len(names)
            guide = "" if not spawner else f"{indent}{'└─ ' if last else '├─ '}"
            yield guide, self.tasks[name]
            inner = "" if not spawner else f"{indent}{'   ' if last else '│  '}"
            yield from self._below(name, inner)

    def awaited(self, task: Task, count_max: int) -> tuple[list[str], bool]:
        """Return some of the tasks a pending one comes after, and whether there are more."""
        looked_at = islice(task.dependencies, _DEPENDENCIES_LOOKED_AT_MAX)
        names = [name for name in looked_at if not self._has_ended(name)]
        more = len(names) > count_max or len(task.dependencies) > _DEPENDENCIES_LOOKED_AT_MAX
        return names[:count_max], more

    def _has_ended(self, name: str) -> bool:
        task = self.tasks.get(name)
        return task is not None and task.state in ENDED
