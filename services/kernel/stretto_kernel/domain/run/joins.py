"""What the end of a task means for those that depend on it: the join rules, by counting.

Each waiting task counts what its join counts: not ended, succeeded, broken. The end of one task
costs its dependents (and those of the subtrees it lies in, 16 levels at most), so a join over a
thousand parents costs the same per parent as a join over two. Called by `evolve` only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from stretto.run.v1 import plan_pb2 as pb
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.plan import Dependency, TaskSpec
from stretto_kernel.domain.run.state import RunState
from stretto_kernel.domain.run.task import (
    Blocked,
    Cancelled,
    Ended,
    Failed,
    Leased,
    Open,
    Phase,
    Skipped,
    Succeeded,
    TaskRecord,
)


class Settling:
    """One fact's consequences among tasks, carried out until nothing follows any more.

    Walks a queue, never the call stack: a chain may be a hundred thousand tasks long.
    """

    def __init__(self, state: RunState, time_ns: int) -> None:
        self.state = state
        self.time_ns = time_ns
        self._ended: deque[TaskName] = deque()

    def end(self, record: TaskRecord, phase: Ended) -> None:
        """Put an edited record into its final phase; dependents follow with `run`."""
        self.state.move(record, phase)
        record.details = None
        self._ended.append(record.name)

    def run(self) -> None:
        """Tell dependents of everything that ended, and of what ends by that."""
        while self._ended:
            ended = self.state.tasks[self._ended.popleft()]
            for name in dependents_of(self.state, ended):
                self._count_end(name, ended)

    def link(self, record: TaskRecord) -> None:
        """Count what a new task's dependencies have come to already, and judge its join."""
        count_again(self.state, record)
        self.judge(record)

    def _count_end(self, name: TaskName, ended: TaskRecord) -> None:
        if not isinstance(self.state.tasks[name].phase, Blocked):
            return  # Its join was decided before everything it counts had ended.
        record = self.state.own(name)
        count_end(record, ended.spec, ended.phase)
        self.judge(record)

    def judge(self, record: TaskRecord) -> None:
        """Open or skip an owned, blocked task whose join is decided."""
        match verdict(record):
            case True:
                if may_open(self.state, record):
                    self.open(record)
            case False:
                self.end(record, Skipped(self.time_ns))

    def open_clean_up(self) -> None:
        """Let the clean-up tasks start whose joins hold."""
        for name in self.state.clean_up_tasks:
            record = self.state.tasks[name]
            if isinstance(record.phase, Blocked) and verdict(record):
                self.open(self.state.edit(name))

    def open(self, record: TaskRecord) -> None:
        """Make a task leasable whose join holds, and drop the rest its join no longer needs."""
        self.state.move(record, Open(self.time_ns, self.time_ns))
        record.ready_ns = self.time_ns
        if record.spec.join.cancels_rest:
            for edge in record.spec.dependencies:
                for rest in list(_counted(self.state, edge)):
                    self._stop_unneeded(rest)

    def _stop_unneeded(self, rest: TaskRecord) -> None:
        if rest.ended or _is_needed(self.state, rest):
            return
        record = self.state.edit(rest.name)
        phase = record.phase
        if not isinstance(phase, Leased):
            self.end(record, Cancelled(self.time_ns, unneeded=True))
        elif phase.stop_deadline_ns is None:
            deadline_ns = self.time_ns + self.state.policies.cancel_grace_ns
            self.state.move(record, asked_to_stop(phase, deadline_ns))


def may_open(state: RunState, record: TaskRecord) -> bool:
    """Whether the run lets a task start whose join holds.

    Clean-up waits for its time, everything else until all is reset of a run that is re-opened.
    """
    if record.spec.clean_up:
        return state.cleaning_up is not None
    return state.reopening is None or not state.reopening.resetting


def asked_to_stop(lease: Leased, deadline_ns: int) -> Leased:
    """Return the lease with its holder asked to stop."""
    return lease._replace(stop_deadline_ns=deadline_ns)


def subtree(state: RunState, root: TaskName) -> Iterator[TaskRecord]:
    """Yield a task and everything spawned below it, each spawner before its children."""
    path = [root]
    while path:
        record = state.tasks[path.pop()]
        yield record
        path.extend(reversed(record.children))


def lineage(state: RunState, record: TaskRecord) -> Iterator[TaskRecord]:
    """Yield a task, its spawner, that one's spawner, and so on."""
    above: TaskRecord | None = record
    while above is not None:
        yield above
        above = state.tasks[above.spawner] if above.spawner is not None else None


def _counted(state: RunState, edge: Dependency) -> Iterable[TaskRecord]:
    return subtree(state, edge.task) if edge.subtree else (state.tasks[edge.task],)


def dependents_of(state: RunState, ended: TaskRecord) -> Iterator[TaskName]:
    """Yield every task whose join counts this one, as often as it counts it."""
    yield from ended.dependents
    for above in lineage(state, ended):
        yield from above.subtree_dependents


def count_again(state: RunState, record: TaskRecord) -> int:
    """Count afresh what an owned task's dependencies have come to; return how many it counts."""
    record.waiting_count = record.succeeded_count = record.broken_count = 0
    counted_count = 0
    for edge in record.spec.dependencies:
        for counted in _counted(state, edge):
            counted_count += 1
            record.waiting_count += 1
            if counted.ended:
                count_end(record, counted.spec, counted.phase)
    return counted_count


def count_end(record: TaskRecord, ended: TaskSpec, phase: Phase) -> None:
    """Count in an owned, blocked task that one it waited for ended so."""
    _add_end(record, ended, phase, +1)


def uncount_end(record: TaskRecord, ended: TaskSpec, phase: Phase) -> None:
    """Take back `count_end`: the task it waited for is waited for again."""
    _add_end(record, ended, phase, -1)


def _add_end(record: TaskRecord, ended: TaskSpec, phase: Phase, change: int) -> None:
    record.waiting_count -= change
    if isinstance(phase, Succeeded):
        record.succeeded_count += change
    elif not (isinstance(phase, Failed) and ended.failure_ignored):
        record.broken_count += change


def verdict(record: TaskRecord) -> bool | None:
    """Whether a blocked task's join holds; None while it is undecided."""
    join = record.spec.join
    match join.kind:
        case pb.JOIN_KIND_ALL_SUCCEEDED:
            if record.broken_count:
                return False
            return True if record.waiting_count == 0 else None
        case pb.JOIN_KIND_ALL_DONE:
            return True if record.waiting_count == 0 else None
        case _:
            if record.succeeded_count >= join.count:
                return True
            return False if record.succeeded_count + record.waiting_count < join.count else None


def _is_needed(state: RunState, rest: TaskRecord) -> bool:
    """Whether a task that has not been decided yet depends on this one."""
    return any(isinstance(state.tasks[name].phase, Blocked) for name in dependents_of(state, rest))
