"""What must hold of a run, said a second time and without counting: slow, plain, from the facts.

The oracle reads the log and the phases; it never calls the rules it judges, but for `fold`.
"""

from __future__ import annotations

from collections import Counter

from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto.run.v1 import run_pb2 as pb
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import RunEvent, RunState, queries
from stretto_kernel.domain.run.ending import conclude
from stretto_kernel.domain.run.fingerprint import fingerprint
from stretto_kernel.domain.run.plan import TaskSpec
from stretto_kernel.domain.run.task import Blocked, Failed, Leased, Open, Succeeded, TaskRecord

from tests.model.runs import Story, fold

TERMINAL = (ev.RunSucceeded, ev.RunFailed, ev.RunCancelled, ev.RunKilled)
STOPS = (ev.RunCancelRequested, ev.RunTimedOut, ev.PlanExpired)


class LogOracle:
    """Judges each fact against those before it."""

    def __init__(self) -> None:
        self.epochs: Counter[str] = Counter()
        self.activations: Counter[str] = Counter()
        self.succeeded: set[tuple[str, int]] = set()
        self.holds: set[str] = set()
        self.stopped = False
        self.terminal: RunEvent | None = None

    def take(self, event: RunEvent, spec: TaskSpec | None, *, stopping: bool) -> None:
        """Judge one fact. spec: its task's; stopping: the run was, before it."""
        after_end = (ev.WriteRefused, ev.RunRetried)
        assert self.terminal is None or isinstance(event, after_end), "after the end"
        match event:
            case ev.AttemptLeased():
                assert spec is not None
                assert event.epoch == self.epochs[event.task] + 1, "epochs rise by one"
                self.epochs[event.task] = event.epoch
                assert event.activation >= self.activations[event.task], "activations rise"
                self.activations[event.task] = event.activation
                assert spec.clean_up or not (self.stopped or stopping), "leased while stopping"
                assert not self.holds or (spec.clean_up and stopping), "leased while held"
            case ev.AttemptSucceeded():
                assert event.epoch == self.epochs[event.task], "a result of a stale epoch"
                activation = (event.task, self.activations[event.task])
                assert activation not in self.succeeded, "two results"
                self.succeeded.add(activation)
            case ev.AttemptFailed() | ev.AttemptLost() | ev.AttemptTimedOut():
                assert event.epoch == self.epochs[event.task], "the end of a stale attempt"
            case ev.RunRetried():
                assert self.terminal is not None, "only an ended run is retried"
                assert not isinstance(self.terminal, ev.RunSucceeded), "retried after success"
                self.terminal, self.stopped = None, False
            case ev.HoldPlaced():
                self.holds.add(event.hold_id)
            case ev.HoldLifted():
                self.holds.remove(event.hold_id)
        if isinstance(event, STOPS):
            self.stopped = True
        if isinstance(event, TERMINAL):
            self.terminal = event


def check_fold(story: Story) -> None:
    """Judge invariant 2: the state is what its log tells."""
    assert fingerprint(fold(story.log)) == fingerprint(story.state), "state == fold(log)"


def check_state(story: Story) -> None:
    """Judge the state as it stands: invariant 5, counts, joins, and that nothing is left undone."""
    state = story.state
    assert conclude(state) == (), "the end comes with the fact that ended the last task"
    assert (queries.wake_up(state) is None) == (state.end is not None), "a named wake-up"
    _check_counts(state, story.now_ns)
    stopped = state.stopping is not None or state.end is not None
    # Joins are judged last when a run is re-opened; a stop may come before that.
    interrupted = state.reopening is not None or (state.retry_count > 0 and stopped)
    for record in state.tasks.values():
        if record.spec.clean_up and state.cleaning_up is None:
            assert isinstance(record.phase, Blocked), "clean-up before its time"
        elif isinstance(record.phase, Blocked) and not interrupted:
            assert verdict(state, record) is None, f"{record.name} should have been decided"
        elif isinstance(record.phase, Open | Leased):
            assert record.spec.dependencies == () or verdict(state, record) is not False


def verdict(state: RunState, record: TaskRecord) -> bool | None:
    """Whether the join holds, counted afresh over everything it counts."""
    counted: list[TaskRecord] = []
    for edge in record.spec.dependencies:
        if edge.subtree:
            counted += [
                other
                for name, other in state.tasks.items()
                if name == edge.task or name.startswith(f"{edge.task}/")
            ]
        else:
            counted.append(state.tasks[edge.task])
    waiting = [each for each in counted if not each.ended]
    good = [each for each in counted if isinstance(each.phase, Succeeded)]
    join = record.spec.join
    if join.kind == plan.JOIN_KIND_ALL_DONE:
        return True if not waiting else None
    if join.kind == plan.JOIN_KIND_ALL_SUCCEEDED:
        for each in counted:
            tolerated = isinstance(each.phase, Failed) and each.spec.failure_ignored
            if each.ended and not isinstance(each.phase, Succeeded) and not tolerated:
                return False
        return True if not waiting else None
    if len(good) >= join.count:
        return True
    return False if len(good) + len(waiting) < join.count else None


def _check_counts(state: RunState, now_ns: int) -> None:
    shown = queries.task_counts(state, now_ns)
    states = Counter(queries.task_state(state, TaskName(name), now_ns) for name in state.tasks)
    assert shown.total_count == len(state.tasks) == state.task_count
    assert shown.pending_count == states[pb.TASK_STATE_PENDING]
    assert shown.ready_count == states[pb.TASK_STATE_READY]
    assert shown.running_count == states[pb.TASK_STATE_RUNNING]
    assert shown.waiting_count == states[pb.TASK_STATE_WAITING]
    assert shown.succeeded_count == states[pb.TASK_STATE_SUCCEEDED]
    assert shown.failed_count == states[pb.TASK_STATE_FAILED]
    assert shown.cancelled_count == states[pb.TASK_STATE_CANCELLED]
    assert shown.skipped_count == states[pb.TASK_STATE_SKIPPED]
    if state.end is not None:
        unended = ("pending", "ready", "running", "waiting")
        assert all(getattr(shown, f"{word}_count") == 0 for word in unended)
