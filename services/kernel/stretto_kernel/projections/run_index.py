"""The view `run_index`: one row a run, folded with the kernel's own rules.

Pure: events in, changed rows out. A row follows from the folded run alone; nothing here decides.
The folded runs are kept in a bounded cache; ended ones leave it at once.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field

from google.protobuf.message import Message
from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import events_pb2 as ev
from stretto_core.eventlog.codec import Codec, Decoded
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Namespace, RunId

from stretto_kernel.domain.run import RunState, evolve, new_run
from stretto_kernel.domain.run.queries import run_due, run_state
from stretto_kernel.domain.run.resource import to_run

RUN_INDEX = "run_index_v1"
"""The follower's name in the tracking table; a new version of the view is a new follower."""
RUNS_MAX = 10_000
DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the view shows it.

    next_due_ns: the run's own next deadline; None = none. queues: every queue its tasks name.
    shown: the serialised Run resource without input and output.
    """

    run_id: RunId
    namespace: Namespace
    version: int
    state: int
    display_name: str
    labels: str
    create_ns: int
    ended: bool
    next_due_ns: int | None
    queues: tuple[str, ...]
    shown: bytes


@dataclass(slots=True)
class _Folded:
    state: RunState
    creator: Principal
    queues: dict[str, None] = field(default_factory=dict)


class RunIndexFold:
    """Folds runs event by event and says which rows changed."""

    def __init__(self, codec: Codec, *, runs_max: int = RUNS_MAX) -> None:
        self._codec = codec
        self._runs_max = runs_max
        self._runs: OrderedDict[RunId, _Folded] = OrderedDict()
        self._changed: dict[RunId, _Folded] = {}

    def forget_all(self) -> None:
        """Forget everything folded: what was changed may not have been stored."""
        self._runs.clear()
        self._changed.clear()

    def version_of(self, run_id: RunId) -> int:
        """Up to which version the run is folded; 0 when it is not in the cache."""
        folded = self._runs.get(run_id)
        return 0 if folded is None else folded.state.version

    def missing_after(self, stored: StoredEvent) -> int | None:
        """After which version the events before this one are needed first; None: none are."""
        version = self.version_of(RunId(stored.stream))
        return version if version + 1 < stored.version else None

    def apply(self, stored: StoredEvent) -> None:
        """Fold the run's next event; one that is folded already changes nothing."""
        run_id = RunId(stored.stream)
        known = self.version_of(run_id)
        if stored.version <= known:
            return
        assert stored.version == known + 1, "the events of a run are folded without a gap"
        decoded = self._codec.decode(stored.stored_bytes)
        folded = self._runs.get(run_id) or self._begin(run_id, decoded)
        evolve(folded.state, decoded.recorded)
        folded.queues.update(dict.fromkeys(_queues(decoded.recorded.event)))
        self._changed[run_id] = folded
        self._runs.move_to_end(run_id)

    def take_rows(self) -> list[RunRow]:
        """Return the rows changed since the last call, and forget what need not be kept."""
        rows = [_row(folded) for folded in self._changed.values()]
        for run_id, folded in self._changed.items():
            if folded.state.end is not None:
                self._runs.pop(run_id, None)
        self._changed = {}
        while len(self._runs) > self._runs_max:
            self._runs.popitem(last=False)
        return rows

    def _begin(self, run_id: RunId, first: Decoded) -> _Folded:
        namespace = Namespace(first.envelope.namespace)
        folded = _Folded(new_run(run_id, namespace), first.envelope.principal)
        self._runs[run_id] = folded
        return folded


def _queues(event: Message) -> list[str]:
    match event:
        case ev.RunStarted():
            tasks = event.plan.tasks
        case ev.TasksAdded() | ev.TasksSpawned():
            tasks = event.tasks
        case ev.AttemptSucceeded():
            tasks = event.spawned
        case _:
            return []
    return [task.queue or DEFAULT_QUEUE for task in tasks]


def _row(folded: _Folded) -> RunRow:
    state = folded.state
    assert state.start is not None, "a run begins with its start"
    state.take_touched()
    shown = to_run(state, state.time_ns, creator=folded.creator, with_input=False)
    shown.ClearField("output")
    return RunRow(
        run_id=state.run_id,
        namespace=state.namespace,
        version=state.version,
        state=run_state(state),
        display_name=state.start.display_name,
        labels=json.dumps(state.start.labels, sort_keys=True),
        create_ns=state.start.started_ns,
        ended=state.end is not None,
        next_due_ns=min((due.at_ns for due in run_due(state)), default=None),
        queues=tuple(sorted(folded.queues)),
        shown=shown.SerializeToString(deterministic=True),
    )
