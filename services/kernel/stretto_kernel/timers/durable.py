"""Durable timers: the instants that follow from the facts of the runs in memory, on the wall clock.

Owns no rule: the domain says what a run and its tasks wait for, and each timer carries what it was
armed for, so one that fires late, early or twice is recognised by `decide`. Nothing here is stored:
after a restart the folded runs arm their timers again.
"""

from __future__ import annotations

from collections.abc import Iterable

from stretto_core.ids import RunId, TaskName

from stretto_kernel.domain.run.commands import Timer
from stretto_kernel.domain.run.queries import Due
from stretto_kernel.timers.heap import TimerHeap

RUN_ITSELF = TaskName("")
"""Stands for the run in place of one of its tasks."""

TimerKey = tuple[RunId, Timer]


class DurableTimers:
    """The armed timers of all runs in memory."""

    def __init__(self) -> None:
        self._heap: TimerHeap[TimerKey, TaskName] = TimerHeap()
        self._armed: dict[RunId, dict[TaskName, tuple[Timer, ...]]] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, run_id: RunId, task: TaskName, dues: Iterable[Due]) -> None:
        """Replace all timers of the task (or of the run itself) by `dues`."""
        dues = tuple(dues)
        by_task = self._armed.get(run_id)
        before = by_task.get(task, ()) if by_task else ()
        if not dues and not before:
            return
        for due in dues:
            self._heap.arm((run_id, due.timer), due.at_ns, task)
        kept = tuple(due.timer for due in dues)
        for timer in before:
            if timer not in kept:
                self._heap.disarm((run_id, timer))
        if kept:
            self._armed.setdefault(run_id, {})[task] = kept
        elif by_task is not None:
            del by_task[task]
            if not by_task:
                del self._armed[run_id]

    def forget_run(self, run_id: RunId) -> None:
        """Disarm every timer of the run."""
        for timers in self._armed.pop(run_id, {}).values():
            for timer in timers:
                self._heap.disarm((run_id, timer))

    def next_due_ns(self) -> int | None:
        """When the next timer is due, UTC nanoseconds."""
        return self._heap.next_due()

    def take_due(self, now_ns: int, limit: int) -> list[TimerKey]:
        """Disarm and return up to `limit` timers that are due, earliest first."""
        return [key for key, _ in self._heap.take_due(now_ns, limit)]
