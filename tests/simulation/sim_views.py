"""Every view in memory: what the database keeps for the projector, the recovery and the lists.

Rows and positions are stored together and outlive the processes, like tables. A reader may find a
view at any earlier moment: it trails the log as far as the projector does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, RunId, StreamId
from stretto_core.testing.process import Process
from stretto_kernel.app.artifact_listing import ArtifactFilter, ArtifactPage
from stretto_kernel.app.attempt_listing import AttemptFilter, AttemptPage
from stretto_kernel.app.background_folds import NO_DEADLINE_NS
from stretto_kernel.app.moments import Then
from stretto_kernel.app.recovery import ActiveRun, ActiveRuns
from stretto_kernel.app.run_listing import ListedRun, RunFilter, RunListPage
from stretto_kernel.app.snapshots import Snapshot, Snapshots
from stretto_kernel.app.usage_reading import UsageSums
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.cohort import Cohort
from stretto_kernel.projections.past_queues import QueuesSeen
from stretto_kernel.projections.past_runs import (
    ChangeQuery,
    ChangeRows,
    RunRows,
    TaskQuery,
    TaskRows,
)
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.queues import QUEUES, QueueRow
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.run_folds import RunFolds
from stretto_kernel.projections.run_index import RUN_INDEX, RunRow
from stretto_kernel.projections.run_phases import RUN_PHASES, RunPhaseRow
from stretto_kernel.projections.store import Change, PositionMoved, Stop, Target
from stretto_kernel.projections.task_states import TaskKind
from stretto_kernel.projections.tasks import TASKS, TaskRow
from stretto_kernel.projections.view import Key, Row

SNAPSHOT_EVENTS_MIN = 6
INDEX = Target(RUN_INDEX)
PAST = (INDEX, Target(RUN_PHASES), Target(TASKS))


class MemorySnapshots:
    """Implements SnapshotStore."""

    def __init__(self) -> None:
        self.kept: dict[StreamId, Snapshot] = {}

    async def load(self, stream: StreamId) -> Snapshot | None:
        """See `SnapshotStore`."""
        return self.kept.get(stream)

    async def save(self, snapshot: Snapshot) -> None:
        """See `SnapshotStore`."""
        self.kept[snapshot.stream] = snapshot

    def on(self, log: EventLog) -> Snapshots:
        """Return them as whoever reads `log` uses them: small runs have some, too."""
        return Snapshots(self, log, RUN_CODEC, events_min=SNAPSHOT_EVENTS_MIN)


class MemoryViews:
    """Implements ViewStore, ViewPlaces, RunIndex, RunList, PastViews and QueueRows."""

    def __init__(self) -> None:
        self.tables: dict[Target, dict[Key, Row]] = {}
        self.positions: dict[Target, int] = {}
        self.counts: dict[Target, int] = {}
        self.stops: dict[Target, Stop] = {}
        self.snapshots = MemorySnapshots()

    async def prepare(self, targets: Collection[Target]) -> Mapping[Target, int]:
        """See `ViewStore`."""
        for target in targets:
            self.tables.setdefault(target, {})
            self.positions.setdefault(target, 0)
        return {target: self.positions[target] for target in targets}

    async def empty(self, targets: Collection[Target]) -> None:
        """See `ViewStore`."""
        for target in targets:
            self.tables.pop(target, None)
            self.positions.pop(target, None)
            self.counts.pop(target, None)

    async def save(
        self, changes: Sequence[Change], *, after: int, position: int, event_count: int
    ) -> None:
        """See `ViewStore`."""
        if any(self.positions[change.target] != after for change in changes):
            raise PositionMoved
        for target, rows in changes:
            self.positions[target] = position
            self.counts[target] = self.counts.get(target, 0) + event_count
            table, view = self.tables[target], target.view
            for row in rows:
                kept = table.get(view.key(row))
                table[view.key(row)] = row if kept is None else view.merge(kept, row)

    async def note_stop(self, target: Target, stop: Stop) -> None:
        """See `ViewStore`."""
        self.stops[target] = stop

    async def note_following(self, targets: Collection[Target]) -> None:
        """See `ViewStore`."""
        for target in targets:
            self.stops.pop(target, None)

    async def places(self) -> Mapping[str, int]:
        """See `ViewPlaces`."""
        return {target.table: position for target, position in self.positions.items()}

    @property
    def runs(self) -> list[RunRow]:
        """The rows of the view `run_index`."""
        return [RunRow(*row) for row in self.tables.get(INDEX, {}).values()]

    async def active_runs(self) -> ActiveRuns:
        """See `RunIndex`."""
        runs = tuple(
            ActiveRun(
                row.run_id,
                NO_DEADLINE_NS if row.next_due_ns is None else row.next_due_ns,
                tuple(row.queues.split(",")),
            )
            for row in self.runs
            if not row.ended
        )
        return ActiveRuns(self.positions.get(INDEX, 0), runs)

    async def list_runs(self, found: RunFilter, *, count_max: int) -> RunListPage:
        """See `RunList`: the newest runs, whatever else is asked."""
        rows = sorted(self.runs, key=lambda row: (-row.create_ns, row.run_id))
        listed = [ListedRun(RunId(row.run_id), row.create_ns, row.shown) for row in rows]
        position = self.positions.get(INDEX, 0)
        return RunListPage(position, listed[:count_max], more=len(rows) > count_max)

    async def run_as_of(self, run_id: RunId, then: Then) -> RunRows:
        """See `PastViews`."""
        position = min(self.positions.get(target, 0) for target in PAST)
        if position < then.position:
            return RunRows(position)
        rows = self.task_rows(run_id, then.version)
        backs_off = (row.not_before_ns > then.judged_ns for row in rows)
        kinds = Counter(
            TaskKind(row.phase, row.clean_up, waits)
            for row, waits in zip(rows, backs_off, strict=True)
        )
        return RunRows(position, self.phase_row(run_id, then.version), kinds)

    async def tasks_as_of(self, query: TaskQuery, position: int, count_max: int) -> TaskRows:
        """See `PastViews`: all of them, whatever else is asked."""
        reached = min(self.positions.get(target, 0) for target in PAST)
        newest = {row.run_id: row.version for row in self.runs}.get(query.run_id, 0)
        if reached < position or not newest:
            return TaskRows(min(reached, position - 1))
        version = query.version or newest
        phase, rows = self.phase_row(query.run_id, version), self.task_rows(query.run_id, version)
        return TaskRows(reached, version, phase, rows[:count_max], more=len(rows) > count_max)

    async def changes(self, query: ChangeQuery, position: int, count_max: int) -> ChangeRows:
        """See `PastViews`: all of them at once."""
        reached = min(self.positions.get(target, 0) for target in PAST)
        if reached < position:
            return ChangeRows(reached)
        tasks = (TaskRow(*row) for row in self.tables[Target(TASKS)].values())
        phases = (RunPhaseRow(*row) for row in self.tables[Target(RUN_PHASES)].values())
        rows = [row for row in tasks if row.run_id == query.run_id]
        found = sorted(
            (row for row in rows if query.after < (row.from_version, row.number)),
            key=lambda row: (row.from_version, row.number),
        )
        of_run = sorted(
            (row for row in phases if row.run_id == query.run_id), key=lambda row: row.from_version
        )
        until = query.until_version
        return ChangeRows(
            reached,
            [row for row in of_run if row.from_version <= until],
            [row for row in found if row.from_version <= until],
        )

    def phase_row(self, run_id: RunId, version: int) -> RunPhaseRow:
        """What the run did to its tasks as of a version."""
        rows = (RunPhaseRow(*row) for row in self.tables[Target(RUN_PHASES)].values())
        of_run = (row for row in rows if row.run_id == run_id and row.from_version <= version)
        return max(of_run, key=lambda row: row.from_version)

    def task_rows(self, run_id: RunId, version: int) -> list[TaskRow]:
        """The run's tasks as of a version, in the order they came to be."""
        newest: dict[int, TaskRow] = {}
        for row in sorted(self.tables[Target(TASKS)].values(), key=lambda row: row[2]):
            task = TaskRow(*row)
            if task.run_id == run_id and task.from_version <= version:
                newest[task.number] = task
        return [newest[number] for number in sorted(newest)]

    async def list_attempts(self, found: AttemptFilter, *, count_max: int) -> AttemptPage:
        """See `AttemptList`: nobody asks in the simulator."""
        raise NotImplementedError

    async def list_artifacts(self, found: ArtifactFilter, *, count_max: int) -> ArtifactPage:
        """See `ArtifactList`: nobody asks in the simulator."""
        raise NotImplementedError

    async def usage_of(
        self, namespace: Namespace, run_id: RunId | None, *, count_max: int
    ) -> UsageSums:
        """See `UsageView`: nobody asks in the simulator."""
        raise NotImplementedError

    async def queues_named(self, queues: Sequence[str]) -> QueuesSeen:
        """See `QueueRows`."""
        rows = [QueueRow(*row) for row in self.tables.get(Target(QUEUES), {}).values()]
        found = {row.queue: row for row in rows if row.queue in queues}
        return QueuesSeen(self.positions.get(Target(QUEUES), 0), found)

    async def queues_after(self, queue: str, *, count_max: int) -> QueuesSeen:
        """See `QueueRows`: nobody asks in the simulator."""
        raise NotImplementedError


def start_projector(process: Process, store: MemoryStore, views: MemoryViews) -> None:
    """Let `process` keep the views."""
    # Few runs are kept folded, so that they are folded again from the log now and then.
    log = MemoryLog(store)
    snapshots = views.snapshots.on(log)
    projector = Projector(log, views, VIEWS, RUN_CODEC, tasks_max=5, snapshots=snapshots)
    process.spawn(projector.run())


async def rebuilt(store: MemoryStore) -> MemoryViews:
    """Return the views as one pass over the whole log makes them."""
    fresh = MemoryViews()
    targets = [Target(view) for view in VIEWS]
    await fresh.prepare(targets)
    cohort = Cohort(MemoryLog(store), fresh, RunFolds(RUN_CODEC), targets, 0)
    await cohort.project(list(store.events))
    await cohort.settle()
    return fresh
