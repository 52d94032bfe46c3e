"""Runs and their tasks as of a moment, from views: nothing is folded and nothing executed again.

A moment is found in the committed log; the views must have reached its event, which is awaited for
a moment. What one version shows never changes, so pages of it fit together whatever comes after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import run_pb2
from stretto_core.clock import Clock
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, RunId, StreamId

from stretto_kernel.app.moments import AtVersion, Moment, Then, find_moment
from stretto_kernel.app.view_reach import reached
from stretto_kernel.domain.run.refusals import RunNotFound
from stretto_kernel.projections.run_phases import RunPhaseRow
from stretto_kernel.projections.task_states import TaskKind, counts_of, task_then
from stretto_kernel.projections.tasks import TaskRow


class RunRows(NamedTuple):
    """A run as of a version: what it did to its tasks, and how many there were of each kind."""

    position: int
    phase: RunPhaseRow | None = None
    kinds: Mapping[TaskKind, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """Which tasks of a run, as of a version of it (None: the newest that the views have).

    judged_ns: the instant that says which waits are over; 0 = that of the version. state: None =
    any. queue, executor: "" = any. after: the place of the task before the first; None = from the
    beginning.
    """

    run_id: RunId
    version: int | None = None
    judged_ns: int = 0
    state: run_pb2.TaskState.ValueType | None = None
    queue: str = ""
    executor: str = ""
    clean_up: bool | None = None
    newest_first: bool = False
    after: int | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether it asks for anything but all tasks in their order."""
        narrow = (self.state, self.clean_up) != (None, None) or self.queue or self.executor
        return bool(narrow) or self.newest_first


class TaskRows(NamedTuple):
    """Some tasks as of a version, and whether there are more."""

    position: int
    version: int = 0
    phase: RunPhaseRow | None = None
    rows: Sequence[TaskRow] = ()
    more: bool = False


class TasksThen(NamedTuple):
    """Some tasks as of a version of their run: each with its place, and whether there are more."""

    version: int
    judged_ns: int
    tasks: list[tuple[int, run_pb2.Task]]
    more: bool


class PastViews(Protocol):
    """The views `run_phases` and `tasks`. Every method raises Unavailable.

    Views that have not reached the position asked for say only where they are.
    """

    async def run_as_of(self, run_id: RunId, then: Then) -> RunRows:
        """Return the run as of a moment."""
        ...

    async def tasks_as_of(self, query: TaskQuery, position: int, count_max: int) -> TaskRows:
        """Return tasks as of a version."""
        ...


class PastRuns:
    """Reads runs of one partition as they were."""

    def __init__(self, log: EventLog, codec: Codec, views: PastViews, clock: Clock) -> None:
        self._log = log
        self._codec = codec
        self._views = views
        self._clock = clock

    async def get_run(self, namespace: Namespace, run_id: RunId, moment: Moment) -> run_pb2.Run:
        """Return the run as of a moment. Raises RunNotFound, OutOfRange, ViewBehind, StoreDown."""
        then = await self._find(namespace, run_id, moment)
        found = await reached(then.position, lambda: self._views.run_as_of(run_id, then))
        assert found.phase is not None, "a view that has the event has its run"
        shown = run_pb2.Run.FromString(found.phase.shown)
        shown.task_counts.CopyFrom(counts_of(found.kinds, found.phase))
        shown.version = then.version
        shown.update_time.FromNanoseconds(then.time_ns)
        first = await self._log.read_stream(StreamId(run_id), limit=1)
        started = self._codec.decode(first.events[0].stored_bytes).recorded.event
        assert isinstance(started, ev.RunStarted), "a run begins with its start"
        if started.HasField("input"):
            shown.input.CopyFrom(started.input)
        return shown

    async def list_tasks(
        self, namespace: Namespace, query: TaskQuery, moment: Moment, *, count_max: int
    ) -> TasksThen:
        """Return tasks as of a moment. Raises what `get_run` does."""
        then = await self._find(namespace, query.run_id, moment)
        judged_ns = query.judged_ns or then.judged_ns
        asked = replace(query, version=then.version, judged_ns=judged_ns)
        found = await reached(
            then.position, lambda: self._views.tasks_as_of(asked, then.position, count_max)
        )
        return _shown(asked, found)

    async def list_newest(
        self, namespace: Namespace, query: TaskQuery, least_position: int, *, count_max: int
    ) -> TasksThen:
        """Return tasks as the views know them, from that position on.

        Raises RunNotFound, ViewBehind, StoreDown.
        """
        began = await self._find(namespace, query.run_id, AtVersion(1))
        asked = replace(query, version=None, judged_ns=self._clock.now_ns())
        position = max(least_position, began.position)
        found = await reached(position, lambda: self._views.tasks_as_of(asked, position, count_max))
        return _shown(asked, found)

    async def _find(self, namespace: Namespace, run_id: RunId, moment: Moment) -> Then:
        then = await find_moment(self._log, StreamId(run_id), moment, self._clock.now_ns())
        if then.namespace != namespace:
            raise RunNotFound("no such run", run_id=run_id)
        return then


def _shown(asked: TaskQuery, found: TaskRows) -> TasksThen:
    phase = found.phase
    assert phase is not None, "a view that has the event has its run"
    tasks = [(row.number, task_then(row, phase, asked.judged_ns)) for row in found.rows]
    return TasksThen(found.version, asked.judged_ns, tasks, found.more)
