"""Durable timers: the instants that follow from the facts of the runs in memory, on the wall clock.

Owns no rule: the domain says what a run and its tasks wait for, and each timer carries what it was
armed for, so one that fires late, early or twice is recognised by `decide`. Nothing here is stored:
after a restart the folded runs arm their timers again. Each run has a heap of its own, and stands
in one of all runs by its earliest: a run that ends takes its timers with it, however many they are,
and what they took of the memory is given back a part at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from stretto_core.ids import RunId, TaskName

from stretto_kernel.domain.run.commands import Timer
from stretto_kernel.domain.run.queries import Due
from stretto_kernel.timers.heap import TimerHeap

RUN_ITSELF = TaskName("")
"""Stands for the run in place of one of its tasks."""

FREED_PER_LOOK = 1_000
"""Of so many timers of an ended run is the memory given back at once: that takes its time, too."""

TimerKey = tuple[RunId, Timer]


@dataclass(slots=True)
class _RunTimers:
    """The timers of a run. by_task: those its tasks were armed with last, due ones included."""

    heap: TimerHeap[Timer, None] = field(default_factory=TimerHeap)
    by_task: dict[TaskName, tuple[Timer, ...]] = field(default_factory=dict)

    def free(self) -> bool:
        """Let go of some; whether none are left."""
        self.heap.drop(FREED_PER_LOOK)
        for _ in range(min(FREED_PER_LOOK, len(self.by_task))):
            self.by_task.popitem()
        return not (self.heap or self.by_task)


class DurableTimers:
    """The armed timers of all runs in memory."""

    def __init__(self) -> None:
        self._runs: dict[RunId, _RunTimers] = {}
        self._earliest: TimerHeap[RunId, None] = TimerHeap()
        self._forgotten: list[_RunTimers] = []

    def __len__(self) -> int:
        return sum(len(run.heap) for run in self._runs.values())

    def arm(self, run_id: RunId, task: TaskName, dues: Iterable[Due]) -> None:
        """Replace all timers of the task (or of the run itself) by `dues`."""
        dues = tuple(dues)
        run = self._runs.get(run_id)
        before = run.by_task.get(task, ()) if run else ()
        if not dues and not before:
            return
        if run is None:
            run = self._runs[run_id] = _RunTimers()
        for due in dues:
            run.heap.arm(due.timer, due.at_ns, None)
        kept = tuple(due.timer for due in dues)
        for timer in before:
            if timer not in kept:
                run.heap.disarm(timer)
        if kept:
            run.by_task[task] = kept
        else:
            del run.by_task[task]
        if run.by_task:
            self._note(run_id, run)
        else:
            self.forget_run(run_id)

    def forget_run(self, run_id: RunId) -> None:
        """Disarm every timer of the run."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._earliest.disarm(run_id)
            if len(run.by_task) > FREED_PER_LOOK:
                self._forgotten.append(run)

    def next_due_ns(self) -> int | None:
        """When the next timer is due, UTC nanoseconds."""
        if self._forgotten and self._forgotten[-1].free():
            self._forgotten.pop()
        return self._earliest.next_due()

    def take_due(self, now_ns: int, limit: int) -> list[TimerKey]:
        """Disarm and return up to `limit` timers that are due, earliest first."""
        taken: list[TimerKey] = []
        while len(taken) < limit and (found := self._earliest.take_due(now_ns, 1)):
            run_id = found[0][0]
            run = self._runs[run_id]
            taken += ((run_id, timer) for timer, _ in run.heap.take_due(now_ns, 1))
            self._note(run_id, run)
        return taken

    def _note(self, run_id: RunId, run: _RunTimers) -> None:
        """Let the run stand where its earliest timer is due."""
        due_ns = run.heap.next_due()
        if due_ns is None:
            self._earliest.disarm(run_id)
        else:
            self._earliest.arm(run_id, due_ns, None)
