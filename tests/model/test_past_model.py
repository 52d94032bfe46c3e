"""The past as views tell it, against the fold of the log up to there, for random histories.

Each history is stored, projected and read by what serves GetRun and ListTasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pytest
from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.clock.manual import ManualClock
from stretto_core.eventlog.chain import EMPTY_HEAD
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.port import OwnedLog
from stretto_core.eventlog.recorded import Page, Recorded, StreamHead
from stretto_core.ids import EventId, Partition, StreamId
from stretto_kernel.app.moments import AtPosition, AtTime, AtVersion, Moment
from stretto_kernel.domain.run import RunEvent, RunState, evolve, new_run
from stretto_kernel.domain.run.resource import to_run, to_task
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.past_runs import (
    WHOLE_VERSION,
    ChangeQuery,
    PastRuns,
    Place,
    TaskQuery,
)
from stretto_kernel.projections.store import Target
from stretto_kernel.projections.tasks import TASKS, TaskRow
from stretto_kernel.projections.view_reach import ViewReach

from tests.model.hands import Hands
from tests.model.runs import NAMESPACE, RUN_ID, started, task
from tests.simulation.sim_views import rebuilt

CREATOR = Principal(name="somebody")
HISTORIES = 40
STEPS = 40
RUN_WIDE = (ev.RunCancelRequested, ev.RunKilled, ev.HoldPlaced, ev.RunGraceEnded, ev.RunTimedOut)


class Truth(NamedTuple):
    """The run right after an event, as its fold shows it at an instant."""

    run: run_pb2.Run
    tasks: list[run_pb2.Task]


def history(seed: int) -> list[Recorded[RunEvent]]:
    """Whatever may happen to a run, to its end and over retries."""
    random = Random(seed)
    hands = Hands(random)
    for _ in range(STEPS):
        hands.step(random)
    hands.finish()
    return hands.story.log


class Record:
    """A log that facts are told to one by one."""

    def __init__(self) -> None:
        self.store = MemoryStore(Partition("p0"))
        self._owned: OwnedLog | None = None
        self._heads: dict[StreamId, StreamHead] = {}

    async def add(self, stream: StreamId, codec: Codec, fact: Recorded[Any]) -> None:
        """Append the next fact of a stream."""
        if self._owned is None:
            self._owned = await MemoryLog(self.store).acquire()
        new = codec.encode(
            fact.event,
            stream=stream,
            head=self._heads.get(stream, EMPTY_HEAD),
            event_id=EventId(f"{stream}-{fact.version}"),
            time_ns=fact.time_ns,
            cause=Cause(NAMESPACE, CREATOR, fact.request_id, fact.request_digest),
        )
        self._heads[stream] = next_head(new, fact.time_ns)
        await self._owned.append([new])


async def stored(log: list[Recorded[RunEvent]]) -> MemoryStore:
    """Return a log that holds it."""
    record = Record()
    for each in log:
        await record.add(StreamId(RUN_ID), RUN_CODEC, each)
    return record.store


async def past_of(store: MemoryStore, clock: Clock) -> PastRuns:
    """Return what views rebuilt from the log know."""
    log, views = MemoryLog(store), await rebuilt(store)
    return PastRuns(log, RUN_CODEC, views, ViewReach(log, views), clock)


def shown(state: RunState, judged_ns: int) -> Truth:
    run = to_run(state, judged_ns, creator=CREATOR)
    return Truth(run, [to_task(state, name, judged_ns) for name in state.tasks])


def truths(log: list[Recorded[RunEvent]]) -> Iterator[tuple[Moment, Truth]]:
    """Each version at its own time, and in the middle between it and the next fact."""
    state = new_run(RUN_ID, NAMESPACE)
    last_ns = log[-1].time_ns + 10 * NS_PER_S
    for each, next_ns in zip(log, [*(later.time_ns for later in log[1:]), last_ns], strict=True):
        evolve(state, each)
        yield AtVersion(each.version), shown(state, each.time_ns)
        if next_ns > each.time_ns:
            between_ns = (each.time_ns + next_ns) // 2
            yield AtTime(between_ns), shown(state, between_ns)


class CountingLog(MemoryLog):
    """Counts the events that are read of it."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.read_count = 0

    async def read_stream(self, *args: Any, **options: Any) -> Page:
        """See `EventLog`."""
        page = await super().read_stream(*args, **options)
        self.read_count += len(page.events)
        return page


async def test_what_lies_between_the_changes_of_a_page_is_not_read() -> None:
    """Two tries fail, and a thousand events lie between; when those two were is all one needs."""
    story = started(task("a", retry=plan.RetryPolicy(max_attempts=5)))
    versions = []
    for _ in range(2):
        story.lease("a")
        story.fail("a", retry_after_s=60)
        versions.append(story.state.version)
        for _ in range(500):
            story.hold()
            story.lift()
        story.wait(100)
    store = await stored(story.log)
    log, views = CountingLog(store), await rebuilt(store)
    past = PastRuns(log, RUN_CODEC, views, ViewReach(log, views), ManualClock(1 << 62))
    query = ChangeQuery(RUN_ID, Place(1, WHOLE_VERSION), 0)
    told = await past.list_changes(NAMESPACE, query, count_max=10_000)
    changes = {change.version: change for change in told.changes}
    for version in versions:
        (waiting,) = changes[version].tasks
        assert waiting.wait_reason == run_pb2.WAIT_REASON_BACKOFF
    assert log.read_count < 20, "to find the newest version takes some, by halving"


@pytest.mark.parametrize("block", range(2))
async def test_the_past_is_what_the_fold_was(block: int) -> None:
    for seed in range(block * HISTORIES // 2, (block + 1) * HISTORIES // 2):
        log = history(seed)
        store = await stored(log)
        clock = ManualClock(log[-1].time_ns + 20 * NS_PER_S)
        past = await past_of(store, clock)
        for moment, truth in truths(log):
            run = await past.get_run(NAMESPACE, RUN_ID, moment)
            assert run == truth.run, (seed, moment)
            query = TaskQuery(run_id=RUN_ID)
            found = await past.list_tasks(NAMESPACE, query, moment, count_max=10_000)
            assert [task for _, task in found.tasks] == truth.tasks, (seed, moment)
        position = store.events[len(log) // 2].position
        then = await past.get_run(NAMESPACE, RUN_ID, AtPosition(position))
        assert then.version == len(log) // 2 + 1


async def test_what_each_event_changed_is_what_the_fold_touched() -> None:
    for seed in range(HISTORIES):
        log = history(seed)
        store = await stored(log)
        past = await past_of(store, ManualClock(1 << 62))
        first = len(log) // 3
        query = ChangeQuery(RUN_ID, Place(first, WHOLE_VERSION), 0)
        told = await past.list_changes(NAMESPACE, query, count_max=10_000)
        changes = {change.version: change for change in told.changes}
        state = new_run(RUN_ID, NAMESPACE)
        for each in log:
            evolve(state, each)
            touched = state.take_touched()
            if each.version <= first:
                continue
            change = changes.get(each.version, pb.RunChange())
            names = [name for name in state.tasks if name in touched.tasks]
            assert list(change.tasks) == [to_task(state, name, each.time_ns) for name in names]
            assert change.HasField("run") == touched.run_wide, (seed, each)
            if touched.run_wide:
                assert change.run.state == to_run(state, each.time_ns).state


async def test_a_fact_about_the_run_changes_no_row_of_an_ordinary_task() -> None:
    seen: set[type] = set()
    for seed in range(HISTORIES):
        log = history(seed)
        views = await rebuilt(await stored(log))
        rows = [TaskRow(*row) for row in views.tables[Target(TASKS)].values()]
        ordinary = {row.from_version for row in rows if not row.clean_up}
        for each in log:
            if isinstance(each.event, RUN_WIDE):
                seen.add(type(each.event))
                assert each.version not in ordinary, (seed, each)
    assert seen >= {ev.RunCancelRequested, ev.RunKilled, ev.HoldPlaced}
