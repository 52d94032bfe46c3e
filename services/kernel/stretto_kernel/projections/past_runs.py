"""Runs and their tasks as of a moment, from views: nothing is folded and nothing executed again.

A moment is found in the committed log; the views must have reached its event, which is awaited for
a moment. What one version shows never changes, so pages of it fit together whatever comes after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.clock import Clock
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, RunId, StreamId

from stretto_kernel.app.moments import AtTime, AtVersion, Moment, Then, find_moment
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.run_phases import RUN_PHASES, RunPhaseRow
from stretto_kernel.projections.task_states import TaskKind, counts_of, task_then
from stretto_kernel.projections.tasks import TASKS, TaskRow
from stretto_kernel.projections.view_reach import ViewReach


class Place(NamedTuple):
    """A task's row in the order of changes: the version that made it, and its number in the run."""

    version: int
    number: int


READ = (TASKS, RUN_PHASES, RUN_INDEX)
"""The views that the past is read from, as of one transaction."""
TIMES_READ_EVENTS = 100
"""So many events are read at once at most to learn when some of them were recorded."""
WHOLE_VERSION = (1 << 31) - 1
"""The number after those of all tasks."""


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


class ChangeQuery(NamedTuple):
    """Which changes of a run: after the task at a place of a version, up to a version."""

    run_id: RunId
    after: Place
    until_version: int


class ChangeRows(NamedTuple):
    """Rows of tasks, and of the run from the one that held before them on.

    last: the place behind which there is more; None: there is not.
    """

    position: int
    phases: Sequence[RunPhaseRow] = ()
    rows: Sequence[TaskRow] = ()
    last: Place | None = None


class RunChanges(NamedTuple):
    """What some versions changed, up to a place (None: to the end)."""

    until_version: int
    changes: list[pb.RunChange]
    last: Place | None


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

    async def changes(self, query: ChangeQuery, position: int, count_max: int) -> ChangeRows:
        """Return what versions changed."""
        ...


class PastRuns:
    """Reads runs of one partition as they were."""

    def __init__(
        self, log: EventLog, codec: Codec, views: PastViews, reach: ViewReach, clock: Clock
    ) -> None:
        self._log = log
        self._codec = codec
        self._views = views
        self._reach = reach
        self._clock = clock

    async def get_run(self, namespace: Namespace, run_id: RunId, moment: Moment) -> run_pb2.Run:
        """Return the run as of a moment. Raises RunNotFound, OutOfRange, ViewBehind, StoreDown."""
        then = await self._find(namespace, run_id, moment)
        found = await self._reach.read(
            then.position, READ, lambda: self._views.run_as_of(run_id, then)
        )
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
        found = await self._reach.read(
            then.position,
            READ,
            lambda: self._views.tasks_as_of(asked, then.position, count_max),
        )
        return _shown(asked, found)

    async def list_newest(
        self, namespace: Namespace, query: TaskQuery, least_position: int, *, count_max: int
    ) -> TasksThen:
        """Return tasks as the views know them, from that position on.

        Raises RunNotFound, BeyondTheLog, ViewBehind, StoreDown.
        """
        began = await self._find(namespace, query.run_id, AtVersion(1))
        asked = replace(query, version=None, judged_ns=self._clock.now_ns())
        position = max(least_position, began.position)
        found = await self._reach.read(
            position, READ, lambda: self._views.tasks_as_of(asked, position, count_max)
        )
        return _shown(asked, found)

    async def list_changes(
        self, namespace: Namespace, query: ChangeQuery, *, count_max: int
    ) -> RunChanges:
        """Return what versions changed, up to one (0: the newest). Raises what `get_run` does."""
        newest = AtTime(self._clock.now_ns())
        moment: Moment = AtVersion(query.until_version) if query.until_version else newest
        then = await self._find(namespace, query.run_id, moment)
        asked = query._replace(until_version=then.version)
        found = await self._reach.read(
            then.position, READ, lambda: self._views.changes(asked, then.position, count_max)
        )
        times = await self._times_of(asked, found)
        return RunChanges(then.version, _changes(asked, found, times), found.last)

    async def _times_of(self, asked: ChangeQuery, found: ChangeRows) -> dict[int, int]:
        """When the versions were recorded that let tasks wait: whether they do is judged by it.

        Reads those and what lies close between them, not the log over the page's whole span.
        """
        wanted = deque(sorted({row.from_version for row in found.rows if row.not_before_ns}))
        times: dict[int, int] = {}
        while wanted:
            first = wanted[0]
            last = max(each for each in wanted if each < first + TIMES_READ_EVENTS)
            page = await self._log.read_stream(
                StreamId(asked.run_id), after_version=first - 1, limit=last - first + 1
            )
            for stored in page.events:
                if stored.version == wanted[0]:
                    envelope = RecordedEvent.FromString(stored.stored_bytes)
                    times[wanted.popleft()] = envelope.time.ToNanoseconds()
                    if not wanted:
                        break
            assert first in times, "the log has what views tell of"
        return times

    async def _find(self, namespace: Namespace, run_id: RunId, moment: Moment) -> Then:
        return await find_moment(self._log, namespace, run_id, moment, self._clock.now_ns())


def _shown(asked: TaskQuery, found: TaskRows) -> TasksThen:
    phase = found.phase
    assert phase is not None, "a view that has the event has its run"
    tasks = [(row.number, task_then(row, phase, asked.judged_ns)) for row in found.rows]
    return TasksThen(found.version, asked.judged_ns, tasks, found.more)


def _changes(asked: ChangeQuery, found: ChangeRows, times: Mapping[int, int]) -> list[pb.RunChange]:
    """Put the rows of tasks and of the run together, by version."""
    last = asked.until_version if found.last is None else found.last.version
    changes: dict[int, pb.RunChange] = {}
    for phase in found.phases:
        if asked.after.version < phase.from_version <= last:
            run = run_pb2.Run.FromString(phase.shown)
            run.version = phase.from_version
            changes[phase.from_version] = pb.RunChange(version=phase.from_version, run=run)
    following = deque(found.phases)
    for row in found.rows:
        version = row.from_version
        while len(following) > 1 and following[1].from_version <= version:
            following.popleft()
        change = changes.setdefault(version, pb.RunChange(version=version))
        change.tasks.append(task_then(row, following[0], times.get(version, 0)))
    return [changes[version] for version in sorted(changes)]
