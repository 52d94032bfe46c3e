"""What must hold of every committed event of a run, judged from the events alone.

Written without the decider on purpose: these are the invariants of the domain (numbers as on its
page), kept in the simplest form that can contradict a wrong fact. Of instants only what a failure
asks for matters here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import Message
from stretto.blackboard.v1.blackboard_pb2 import WRITER_KIND_WORKER, Writer
from stretto.common.v1.payload_pb2 import Payload
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.queue.v1 import events_pb2 as queue_ev
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.eventlog.seals import SEALED_TYPE
from stretto_core.testing.log_watch import InvariantBroken
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.app.confidential import decrypt
from stretto_kernel.app.data_key import DataKey

_PACKAGE = ev.DESCRIPTOR.package
EVENT_TYPES: dict[str, type[Message]] = {
    f"{_PACKAGE}.{name}": getattr(ev, name) for name in ev.DESCRIPTOR.message_types_by_name
}
NAMESPACES_STREAM = "p0-namespaces"
QUEUE_EVENT_TYPES: dict[str, type[Message]] = {
    message.DESCRIPTOR.full_name: message
    for message in (
        queue_ev.ConcurrencyLimitChanged,
        queue_ev.RateLimitChanged,
        queue_ev.QueuePaused,
        queue_ev.QueueResumed,
    )
}
_TERMINAL = (ev.RunSucceeded, ev.RunFailed, ev.RunCancelled, ev.RunKilled)
_STOPPING = (ev.RunCancelRequested, ev.RunTimedOut, ev.PlanExpired)
_CLOSING = (
    ev.AttemptSucceeded,
    ev.AttemptFailed,
    ev.AttemptLost,
    ev.AttemptReleased,
    ev.AttemptTimedOut,
    ev.AttemptCancelled,
)


@dataclass(slots=True)
class TaskFacts:
    """What the committed events say of one task; `open_epoch` 0 = not leased."""

    spec: plan_pb2.TaskSpec
    clean_up: bool
    epoch: int = 0
    open_epoch: int = 0
    attempts_begun: int = 0
    succeeded_in: set[int] = field(default_factory=set)
    activation: int = 0
    outcomes: dict[int, Message] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    not_before_ns: int = 0
    leased_ns: int = 0
    returns: int = 0

    @property
    def result(self) -> Payload | None:
        """The accepted result."""
        for outcome in self.outcomes.values():
            if isinstance(outcome, ev.AttemptSucceeded):
                return outcome.result
        return None


@dataclass(slots=True)
class RunFacts:
    """What the committed events say of one run."""

    run_id: str
    version: int = 0
    tasks: dict[str, TaskFacts] = field(default_factory=dict)
    holds: set[str] = field(default_factory=set)
    stopping: bool = False
    retry_count: int = 0
    end: Message | None = None
    request_ids: dict[str, int] = field(default_factory=dict)


class Laws:
    """Checks each committed event against all before it. Raises InvariantBroken.

    queue_limits: most open leases of a queue at once, until a fact says another.
    """

    def __init__(self, queue_limits: Mapping[str, int], keys: MemoryRunKeys | None = None) -> None:
        self._keys = keys or MemoryRunKeys()
        self.runs: dict[str, RunFacts] = {}
        self._queue_limits: dict[str, int | None] = {**queue_limits}
        self._queues_paused: set[str] = set()
        self._queue_open: Counter[str] = Counter()
        self._event_ids: set[str] = set()
        self._place = ""
        self._time_ns = 0

    def check(self, stored: StoredEvent) -> None:
        """Look at the next event of the log; seals have laws of their own, namespaces none."""
        if stored.type == SEALED_TYPE or stored.stream == NAMESPACES_STREAM:
            return
        envelope = RecordedEvent.FromString(stored.stored_bytes)
        kind = EVENT_TYPES.get(envelope.type) or QUEUE_EVENT_TYPES[envelope.type]
        event = kind.FromString(envelope.body)
        if (secret := self._keys.secret_of(envelope.key_id)) is not None:
            decrypt(event, DataKey(envelope.key_id, secret, bytes))
        self._place = f"{stored.stream} version {stored.version}: {type(event).__name__}"
        self._time_ns = envelope.time.ToNanoseconds()
        self._origin(envelope)
        if envelope.type in QUEUE_EVENT_TYPES:
            self._queue_event(event)
            return
        run = self.runs.get(stored.stream)
        if run is None:
            self._hold(isinstance(event, ev.RunStarted), "a run begins with RunStarted")
            run = self.runs[stored.stream] = RunFacts(stored.stream)
        else:
            self._hold(not isinstance(event, ev.RunStarted), "a run starts once")
        self._once(run, envelope)
        run.version = stored.version
        if run.end is not None:
            follows = (ev.WriteRefused, ev.RunRetried, ev.RunShredded)
            self._hold(isinstance(event, follows), "4: nothing follows a terminal event")
        self._run_event(run, event)
        self._task_event(run, event)

    def open_leases(self, queue: str) -> int:
        """How many leases of the queue are open in the log."""
        return self._queue_open[queue]

    def _origin(self, envelope: RecordedEvent) -> None:
        """Every fact says who made it true, and by which call or after which fact."""
        self._hold(envelope.principal.kind != 0, "a fact has a principal")
        self._hold(bool(envelope.correlation_id), "a fact belongs to the calls around it")
        by_call, after_fact = bool(envelope.request_id), bool(envelope.causation_id)
        self._hold(by_call is not after_fact, "a fact has a call, or a fact before it")
        self._hold(by_call is bool(envelope.request_digest), "a call is known by its digest")
        known = envelope.causation_id in self._event_ids
        self._hold(known or not after_fact, "the fact before it is in the log")
        self._event_ids.add(envelope.event_id)

    def _queue_event(self, event: Message) -> None:
        match event:
            case queue_ev.ConcurrencyLimitChanged():
                limit = event.limit if event.HasField("limit") else None
                self._queue_limits[event.queue] = limit
            case queue_ev.QueuePaused():
                self._queues_paused.add(event.queue)
            case queue_ev.QueueResumed():
                self._queues_paused.discard(event.queue)

    def _once(self, run: RunFacts, envelope: RecordedEvent) -> None:
        """1: a request takes effect in one append, however often it is sent."""
        if not envelope.request_id:
            return
        before = run.request_ids.get(envelope.request_id)
        self._hold(before in (None, run.version), f"{envelope.request_id} took effect twice")
        run.request_ids[envelope.request_id] = envelope.version

    def _run_event(self, run: RunFacts, event: Message) -> None:
        match event:
            case ev.RunStarted():
                self._add_tasks(run, event.plan.tasks)
            case ev.TasksAdded():
                self._add_tasks(run, event.tasks)
            case ev.HoldPlaced():
                self._hold(event.hold_id not in run.holds, "a hold is placed once")
                run.holds.add(event.hold_id)
            case ev.HoldLifted():
                self._hold(event.hold_id in run.holds, "what is lifted was placed")
                run.holds.discard(event.hold_id)
            case ev.RunGraceEnded():
                self._revoke(task for task in run.tasks.values() if not task.clean_up)
            case ev.RunCleanUpTimedOut():
                self._revoke(task for task in run.tasks.values() if task.clean_up)
            case ev.RunRetried():
                self._retried(run)
            case ev.RunKilled():
                self._revoke(run.tasks.values())
            case ev.BoardEntriesWritten():
                self._board_written(run, event.writer, [entry.key for entry in event.entries])
            case ev.BoardEntriesDeleted():
                self._board_written(run, event.writer, event.keys)
        if isinstance(event, _STOPPING):
            run.stopping = True
        if isinstance(event, _TERMINAL):
            open_tasks = [name for name, task in run.tasks.items() if task.open_epoch]
            self._hold(not open_tasks, f"4: a run ends without open leases, not {open_tasks}")
            run.end = event

    def _board_written(self, run: RunFacts, writer: Writer, keys: Iterable[str]) -> None:
        """9: a worker writes under the lease it holds, in its own task's scope."""
        if writer.kind != WRITER_KIND_WORKER:
            return
        self._current(run.tasks[writer.task], writer.epoch)
        foreign = [key for key in keys if not key.startswith(f"{writer.task}:")]
        self._hold(not foreign, f"9: {writer.task} wrote {foreign}")

    def _retried(self, run: RunFacts) -> None:
        failed = run.end is not None and not isinstance(run.end, ev.RunSucceeded)
        self._hold(failed, "4: only a run that ended without success is retried")
        run.end, run.stopping = None, False
        run.retry_count += 1
        for task in run.tasks.values():
            # Who retries a run does not ask what its failures asked for.
            task.not_before_ns = task.returns = 0

    def _task_event(self, run: RunFacts, event: Message) -> None:
        name = getattr(event, "task", None)
        if name is None or isinstance(event, _TERMINAL):
            return
        self._hold(name in run.tasks, f"{name} is a task of the plan")
        task = run.tasks[name]
        match event:
            case ev.AttemptLeased():
                self._leased(run, task, event)
            case ev.TasksSpawned():
                self._current(task, event.epoch)
                self._add_tasks(run, event.tasks, spawner=name)
            case ev.AttemptProgressed():
                self._current(task, event.epoch)
            case ev.TaskFailed():
                self._revoke([task])
            case ev.WriteRefused():
                self._hold(event.epoch not in task.refused, "a refusal is recorded once an epoch")
                self._hold(event.epoch <= task.epoch, "what was refused was granted once")
                task.refused.add(event.epoch)
        if isinstance(event, _CLOSING):
            self._closed(run, task, event)

    def _leased(self, run: RunFacts, task: TaskFacts, event: ev.AttemptLeased) -> None:
        self._hold(event.epoch == task.epoch + 1, f"3: epoch {event.epoch} follows {task.epoch}")
        self._hold(not task.open_epoch, "3: a leased task is not leased again")
        self._hold(
            self._time_ns >= task.not_before_ns,
            "a retry_after, or what is given back, is waited for",
        )
        self._hold(event.activation not in task.succeeded_in, "3: it has its result already")
        again = bool(task.succeeded_in) and not task.clean_up
        self._hold(not again, "3: what succeeded is not run again")
        highest = run.retry_count + 1
        self._hold(task.activation <= event.activation <= highest, "3: activations only rise")
        self._hold(
            event.attempt <= task.spec.retry.max_attempts,
            f"attempt {event.attempt} of at most {task.spec.retry.max_attempts}",
        )
        if not task.clean_up:
            self._hold(not run.holds, f"6: nothing is leased under holds {sorted(run.holds)}")
            self._hold(not run.stopping, "6: nothing but clean-up is leased while stopping")
        self._hold(bool(event.worker_id and event.session_id), "a lease names its holder")
        self._dependencies_met(run, task)
        task.epoch = task.open_epoch = event.epoch
        task.activation = event.activation
        task.leased_ns = self._time_ns
        self._count(task, +1)

    def _closed(self, run: RunFacts, task: TaskFacts, event: Message) -> None:
        epoch: int = event.epoch  # type: ignore[attr-defined]
        before = task.outcomes.get(epoch)
        if isinstance(event, ev.AttemptSucceeded) and _ended_unheard(before):
            # Late but current is fine, passed on is fenced.
            self._hold(epoch == task.epoch, "3: a result of a lease that was passed on")
        else:
            self._current(task, epoch)
            self._hold(before is None, "3: an attempt ends once")
        task.outcomes[epoch] = event
        self._revoke([task])
        if isinstance(event, ev.AttemptReleased):
            if event.cause == ev.RELEASE_CAUSE_RETURNED:
                self._given_back(task)
        elif not isinstance(event, ev.AttemptSucceeded):
            task.returns = 0
        if isinstance(event, ev.AttemptFailed):
            task.not_before_ns = self._time_ns + event.failure.retry_after.ToNanoseconds()
        if isinstance(event, ev.AttemptSucceeded):
            self._hold(task.activation not in task.succeeded_in, "3: one result per activation")
            task.succeeded_in.add(task.activation)
            self._add_tasks(run, event.spawned, spawner=event.task)

    def _given_back(self, task: TaskFacts) -> None:
        """Again and again, and never worked on for long: each time it waits twice as long."""
        worked_on = self._time_ns - task.leased_ns > 30 * NS_PER_S
        task.returns = 1 if worked_on else task.returns + 1
        wait_s = 0.0 if task.returns == 1 else min(0.1 * 2.0 ** (task.returns - 2), 30.0)
        task.not_before_ns = self._time_ns + round(wait_s * NS_PER_S)

    def _current(self, task: TaskFacts, epoch: int) -> None:
        self._hold(
            epoch == task.open_epoch,
            f"3: a write under epoch {epoch}; the newest is {task.epoch}, open {task.open_epoch}",
        )

    def _dependencies_met(self, run: RunFacts, task: TaskFacts) -> None:
        """Only the default join, which is simple enough to say twice."""
        if task.spec.join.kind not in (
            plan_pb2.JOIN_KIND_UNSPECIFIED,
            plan_pb2.JOIN_KIND_ALL_SUCCEEDED,
        ):
            return
        spawner = task.spec.name.rpartition("/")[0]
        for edge in task.spec.dependencies:
            sibling = f"{spawner}/{edge.task}"
            name = sibling if spawner and sibling in run.tasks else edge.task
            counted = [name]
            if edge.scope == plan_pb2.DEPENDENCY_SCOPE_SUBTREE:
                counted += [other for other in run.tasks if other.startswith(f"{name}/")]
            for other in counted:
                needed = run.tasks[other]
                ignored = needed.spec.on_failure == plan_pb2.ON_FAILURE_IGNORE
                ended = bool(needed.succeeded_in) or (ignored and not needed.open_epoch)
                self._hold(ended, f"leased before its dependency {other} succeeded")

    def _add_tasks(
        self, run: RunFacts, specs: Iterable[plan_pb2.TaskSpec], *, spawner: str = ""
    ) -> None:
        for spec in specs:
            full = plan_pb2.TaskSpec()
            full.CopyFrom(spec)
            full.name = f"{spawner}/{spec.name}" if spawner else spec.name
            self._hold(full.name not in run.tasks, f"{full.name} is added once")
            clean_up = spec.clean_up or (bool(spawner) and run.tasks[spawner].clean_up)
            run.tasks[full.name] = TaskFacts(full, clean_up)

    def _revoke(self, tasks: Iterable[TaskFacts]) -> None:
        for task in tasks:
            if task.open_epoch:
                task.open_epoch = 0
                self._count(task, -1)

    def _count(self, task: TaskFacts, change: int) -> None:
        queue = task.spec.queue or "default"
        self._queue_open[queue] += change
        if change < 0:
            return  # A limit lowered below what runs revokes nothing.
        limit = self._queue_limits.get(queue)
        self._hold(
            limit is None or self._queue_open[queue] <= limit,
            f"7: {self._queue_open[queue]} open leases in queue {queue}, limit {limit}",
        )
        self._hold(queue not in self._queues_paused, f"7: a lease of the paused queue {queue}")

    def _hold(self, holds: bool, law: str) -> None:
        if not holds:
            raise InvariantBroken(f"{law} ({self._place})")


def _ended_unheard(event: Message | None) -> bool:
    """Whether an attempt was ended without its holder's word, who may have worked on."""
    if isinstance(event, ev.AttemptReleased):
        return event.cause != ev.RELEASE_CAUSE_RETURNED
    return isinstance(event, ev.AttemptLost)
