"""Runs folded from the log, once for all views: a bounded cache, and the check of what is read.

Pure. A run that is not in the cache is folded again from its first event; ended runs leave at once.
What cannot be read, or does not follow from the event before it by its hash, is refused: a view
built over it would say what nobody recorded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.message import Message
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1.plan_pb2 import TaskSpec
from stretto_core.eventlog.chain import chain_hash, check_envelope, check_link
from stretto_core.eventlog.codec import Codec, Decoded
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Namespace, RunId, StreamId, TaskName, partition_of

from stretto_kernel.app.snapshots import FoundRun
from stretto_kernel.domain.run import evolve, new_run
from stretto_kernel.domain.run.evolve import EVOLVED
from stretto_kernel.domain.run.task import Phase
from stretto_kernel.projections.view import FoldedRun, Step

TASKS_MAX = 200_000
"""How many tasks the runs in the cache have together, about."""
DEFAULT_QUEUE = "default"


class RunFolds:
    """The runs at work."""

    def __init__(self, codec: Codec, *, tasks_max: int = TASKS_MAX) -> None:
        self._codec = codec
        self._tasks_max = tasks_max
        self._runs: OrderedDict[StreamId, FoldedRun] = OrderedDict()
        self._task_count = 0

    def forget_all(self) -> None:
        """Forget every run."""
        self._runs.clear()
        self._task_count = 0

    def is_of_run(self, stored: StoredEvent) -> bool:
        """Whether the event is a fact of a run: other streams have other folds."""
        return stored.stream in self._runs or partition_of(stored.stream) is not None

    def missing_after(self, stored: StoredEvent) -> int | None:
        """After which version of its run the events before this one are needed; None: none are."""
        folded = self._runs.get(stored.stream)
        version = 0 if folded is None else folded.state.version
        return version if version + 1 < stored.version else None

    def fold(self, stored: StoredEvent) -> Step:
        """Fold a run's next event. Raises UnreadableEvent, with nothing changed."""
        decoded = self.read(stored)
        folded = self._runs.get(stored.stream) or self._begin(stored, decoded)
        check_link(stored, decoded.envelope, folded.chain_hash)
        folded.chain_hash = chain_hash(folded.chain_hash, stored.stored_bytes)
        event = decoded.recorded.event
        before = _phase_of_named(folded, event)
        evolve(folded.state, decoded.recorded)
        queues = _queues(event)
        if queues:
            folded.queues.update(dict.fromkeys(queues))
        touched = folded.state.take_touched()
        numbers = folded.numbers
        for task in touched.tasks:
            if task not in numbers:
                numbers[task] = len(numbers)
        return Step(decoded.envelope, decoded.recorded, folded, touched, before, queues)

    def go_on_from(self, found: FoundRun) -> None:
        """Begin a run where its snapshot ends."""
        state = found.state
        queues = (record.spec.queue or DEFAULT_QUEUE for record in state.tasks.values())
        newest_hash = chain_hash(found.decoded.envelope.previous_hash, found.newest.stored_bytes)
        self._runs[StreamId(state.run_id)] = FoldedRun(
            state,
            found.first.principal,
            queues=dict.fromkeys(queues),
            numbers={name: number for number, name in enumerate(state.tasks)},
            chain_hash=newest_hash,
            snapshot_version=state.version,
        )

    def knows(self, type_name: str) -> bool:
        """Whether events of that type can be read."""
        return self._codec.knows(type_name)

    def read(self, stored: StoredEvent) -> Decoded:
        """Return the event taken apart. Raises UnreadableEvent."""
        decoded = self._codec.decode(stored.stored_bytes)
        check_envelope(stored, decoded.envelope)
        return decoded

    def trim(self, used: Iterable[FoldedRun]) -> None:
        """Forget the ended ones of the runs just used, and the longest unused beyond the bound."""
        for folded in used:
            stream = StreamId(folded.state.run_id)
            if stream not in self._runs:
                continue
            self._task_count -= folded.counted
            if folded.state.end is not None:
                del self._runs[stream]
            else:
                folded.counted = folded.state.task_count
                self._task_count += folded.counted
                self._runs.move_to_end(stream)
        while self._task_count > self._tasks_max:
            _, gone = self._runs.popitem(last=False)
            self._task_count -= gone.counted

    def _begin(self, stored: StoredEvent, first: Decoded) -> FoldedRun:
        run_id = RunId(stored.stream)
        namespace = Namespace(first.envelope.namespace)
        folded = FoldedRun(new_run(run_id, namespace), first.envelope.principal)
        self._runs[stored.stream] = folded
        return folded


def _phase_of_named(folded: FoldedRun, event: Any) -> Phase | None:
    if type(event) not in _OF_A_TASK:
        return None
    record = folded.state.tasks.get(TaskName(event.task))
    return None if record is None else record.phase


_OF_A_TASK = frozenset(kind for kind in EVOLVED if "task" in kind.DESCRIPTOR.fields_by_name)


def _queues(event: Message) -> Sequence[str]:
    tasks_of = _TASKS_OF.get(type(event))
    return () if tasks_of is None else [task.queue or DEFAULT_QUEUE for task in tasks_of(event)]


_TASKS_OF: dict[type[Message], Callable[[Any], Sequence[TaskSpec]]] = {
    ev.RunStarted: lambda started: started.plan.tasks,
    ev.TasksAdded: lambda added: added.tasks,
    ev.TasksSpawned: lambda spawned: spawned.tasks,
    ev.AttemptSucceeded: lambda succeeded: succeeded.spawned,
}
