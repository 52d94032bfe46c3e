"""The projector: nothing lost and nothing repeated around a store that fails or a log that lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.run.v1 import run_pb2
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import RunId
from stretto_kernel.app.recovery import find_active_runs
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.artifacts import ARTIFACTS
from stretto_kernel.projections.cohort import Cohort
from stretto_kernel.projections.lead import Lead
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.run_folds import RunFolds
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.store import Change, PositionMoved, Target
from stretto_kernel.projections.tasks import TASKS
from stretto_kernel.projections.view import View

from tests.simulation.sim_views import MemoryViews, rebuilt
from tests.unit.kernel.harness import FrameWorker, graph, new_store, start, start_kernel, task
from tests.waiting import until


class FailingViews(MemoryViews):
    """Fails as often as told, before anything is stored."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.failures = list(failures)

    async def save(
        self, changes: Sequence[Change], *, after: int, position: int, event_count: int
    ) -> None:
        if self.failures:
            raise self.failures.pop()
        await super().save(changes, after=after, position=position, event_count=event_count)


@asynccontextmanager
async def projecting(
    store: MemoryStore, views: MemoryViews, kinds: Sequence[View] = VIEWS
) -> AsyncIterator[None]:
    log = MemoryLog(store, exclusive=False)
    running = asyncio.create_task(Projector(log, views, kinds, RUN_CODEC, tasks_max=1).run())
    yield
    running.cancel()
    await asyncio.wait([running])


async def caught_up(store: MemoryStore, views: MemoryViews, kinds: Sequence[View] = VIEWS) -> None:
    targets = [Target(view) for view in kinds]
    last = store.events[-1].position
    await until(lambda: all(views.positions.get(target) == last for target in targets))
    assert {views.counts[target] for target in targets} == {len(store.events)}


def altered(stored: StoredEvent, **fields: Any) -> StoredEvent:
    """Return the event with some fields of its envelope changed, as the log would give it."""
    envelope = RecordedEvent.FromString(stored.stored_bytes)
    for name, value in fields.items():
        setattr(envelope, name, value)
    stored_bytes = envelope.SerializeToString(deterministic=True)
    return stored._replace(type=envelope.type, stored_bytes=stored_bytes)


async def worked(store: MemoryStore, run_count: int = 1) -> None:
    """Start runs of one task, and work all of them but the last."""
    kernel = await start_kernel(store)
    for number in range(run_count):
        await start(kernel, graph(task("a", queue=f"q{number}"), growing=number == run_count - 1))
    worker = FrameWorker(kernel, queues=[f"q{number}" for number in range(run_count - 1)])
    await until(lambda: len(worker.assignments) == run_count - 1)
    for assignment in worker.assignments:
        worker.succeed(assignment.token)
    await until(lambda: len(worker.receipts) == run_count - 1)
    await kernel.stop()


async def test_rows_survive_a_store_that_fails_and_a_small_cache() -> None:
    store = new_store()
    views = FailingViews(StoreDown("planned"), PositionMoved(), StoreDown("planned"))
    async with projecting(store, views):
        await worked(store, 4)
        await caught_up(store, views)
    states = [row.state for row in sorted(views.runs, key=lambda row: row.queues)]
    assert states == [run_pb2.RUN_STATE_SUCCEEDED] * 3 + [run_pb2.RUN_STATE_RUNNING]
    assert {row.queues for row in views.runs} == {"q0", "q1", "q2", "q3"}
    assert views.tables == (await rebuilt(store)).tables


async def test_a_view_that_is_new_catches_up_beside_the_others() -> None:
    store, views = new_store(), MemoryViews()
    await worked(store, 2)
    async with projecting(store, views, [RUN_INDEX]):
        await caught_up(store, views, [RUN_INDEX])
    async with projecting(store, views):
        await worked(store, 2)
        await caught_up(store, views)
    assert views.tables == (await rebuilt(store)).tables


async def test_a_copy_waits_for_views_that_were_lost_beside_it() -> None:
    store, views = new_store(), MemoryViews()
    await worked(store, 2)
    log = MemoryLog(store, exclusive=False)

    def cohort(target: Target) -> Cohort:
        return Cohort(log, views, RunFolds(RUN_CODEC), [target], views.positions.get(target, 0))

    copy, live = Target(TASKS, is_copy=True), Target(TASKS)
    await views.prepare([copy, live])
    ahead = cohort(copy)
    await ahead.project((await log.read_all()).events)
    await ahead.settle()
    lead = Lead(log, cohort(live))
    joining = asyncio.create_task(lead.join(cohort(copy)))
    for _ in range(100):  # As far as it goes by itself.
        await asyncio.sleep(0)
    following = asyncio.create_task(lead.follow())
    await joining
    await worked(store, 2)
    last = store.events[-1].position
    await until(lambda: views.positions[live] == views.positions[copy] == last or following.done())
    assert not following.done(), "nobody was in the way"
    following.cancel()
    assert views.tables[live] == views.tables[copy] == (await rebuilt(store)).tables[live]


async def test_a_view_that_is_resumed_while_it_catches_up_is_followed_once() -> None:
    store, views = new_store(), MemoryViews()
    await worked(store, 2)
    log = MemoryLog(store, exclusive=False)

    def cohort(target: Target) -> Cohort:
        return Cohort(log, views, RunFolds(RUN_CODEC), [target], 0)

    copy, live = Target(TASKS, is_copy=True), Target(TASKS)
    await views.prepare([copy, live])
    first = cohort(copy)
    await first.project((await log.read_all()).events)
    await first.settle()
    lead = Lead(log, first)
    async with lead.between:  # As the exchange does that ends a rebuild.
        joining = asyncio.create_task(lead.join(cohort(live)))
        await until(lambda: views.positions[live] == views.positions[copy])
        lead.leave([copy])
        lead.resume([live])
    await joining
    assert lead.cohort.targets == [live]


async def test_an_event_that_cannot_be_read_stops_the_views_that_read_it() -> None:
    store, views = new_store(), MemoryViews()
    await worked(store, 3)
    leased = next(event for event in store.events if event.type.endswith("AttemptLeased"))
    index = store.events.index(leased)
    store.events[index] = leased._replace(stored_bytes=leased.stored_bytes[:-9])
    async with projecting(store, views):
        await caught_up(store, views, [ARTIFACTS])
        await until(lambda: Target(TASKS) in views.stops)
        stop = views.stops[Target(TASKS)]
        assert (stop.position, stop.reason) == (leased.position, "UNREADABLE_EVENT")
        assert leased.stream in stop.message
    assert Target(ARTIFACTS) not in views.stops, "it does not read that event"
    assert views.positions[Target(TASKS)] == store.events[index - 1].position
    store.events[index] = leased
    async with projecting(store, views):
        await caught_up(store, views)
    assert not views.stops, "once it can be read the views go on"
    assert views.tables == (await rebuilt(store)).tables


async def test_an_event_that_does_not_follow_by_its_hash_stops_the_views_of_runs() -> None:
    store, views = new_store(), MemoryViews()
    await worked(store, 2)
    first = next(event for event in store.events if event.type.endswith("RunStarted"))
    store.events[store.events.index(first)] = altered(first, request_id="another")
    async with projecting(store, views):
        await until(lambda: Target(TASKS) in views.stops)
    stop = views.stops[Target(TASKS)]
    of_run = [event for event in store.events if event.stream == first.stream]
    assert stop.position == of_run[1].position
    assert "previous hash" in stop.message


async def test_an_unknown_type_stops_every_view_and_one_that_fails_stops_alone() -> None:
    store, views = new_store(), MemoryViews()
    await worked(store, 2)

    def fails(step: object) -> list[tuple[object, ...]]:
        raise ValueError("planned")

    broken = View(name="broken", version=1, row=TASKS.row, key_count=3, of_event=fails)
    async with projecting(store, views, [*VIEWS, broken]):
        await caught_up(store, views)
        assert list(views.stops) == [Target(broken)]
        assert views.stops[Target(broken)].reason == "INTERNAL"
        newest = store.events[-1]
        store.events[-1] = altered(newest, type="stretto.run.v1.NotKnown")
    fresh = MemoryViews()
    async with projecting(store, fresh):
        await until(lambda: len(fresh.stops) == len(VIEWS))
    assert {stop.position for stop in fresh.stops.values()} == {newest.position}


async def test_the_active_runs_are_the_view_and_the_log_after_it() -> None:
    store = new_store()
    kernel = await start_kernel(store)
    log = MemoryLog(store, exclusive=False)
    ended = (await start(kernel)).answer.run_id
    grown = (await start(kernel, graph(task("b", queue="q", may_spawn=True)))).answer.run_id
    views = await rebuilt(store)
    worker = FrameWorker(kernel, queues=["default"])
    await until(lambda: len(worker.assignments) == 1)
    worker.succeed(worker.assignments[0].token)
    await until(lambda: len(worker.receipts) == 1)
    fresh = (await start(kernel, graph(task("c", queue="q")))).answer.run_id
    active = {run.run_id: run for run in await find_active_runs(log, views)}
    assert ended not in active
    assert active[RunId(grown)].limited_queues == ("q",)
    assert active[RunId(fresh)].limited_queues is None, "what the view does not know may be any"
    await kernel.stop()
