"""The view `queues`: settings and work in one row, and settings that are damaged stop it alone."""

from __future__ import annotations

from typing import Any

import pytest
from stretto.common.v1.principal_pb2 import Principal
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import StreamId
from stretto_kernel.domain.queue import Change
from stretto_kernel.projections.queues import QUEUES, QueueRow
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.store import Target

from tests.simulation.sim_views import MemoryViews, rebuilt
from tests.unit.kernel.harness import (
    USER,
    FrameWorker,
    graph,
    new_store,
    start,
    start_kernel,
    task,
)
from tests.unit.kernel.test_projector import altered, caught_up, projecting, worked
from tests.unit.kernel.test_queue_settings import update
from tests.waiting import until

OTHERS = [view for view in VIEWS if view is not QUEUES]


async def settings_changed(store: MemoryStore, *limits: int | None) -> None:
    """Set the concurrency limit of a queue, one value after the other."""
    kernel = await start_kernel(store)
    for limit in limits:
        await update(kernel, limit=Change(limit))
    await kernel.stop()


def queue_row(views: MemoryViews, queue: str = "default") -> QueueRow:
    return QueueRow(*views.tables[Target(QUEUES)][(queue,)])


async def test_settings_and_work_of_a_queue_make_one_row() -> None:
    store, views = new_store(), MemoryViews()
    async with projecting(store, views):
        await settings_changed(store, 3, None)
        kernel = await start_kernel(store)
        await start(kernel, graph(*(task(name) for name in "abc"), task("d", queue="other")))
        worker = FrameWorker(kernel, queues=["default"])
        await until(lambda: len(worker.assignments) == 3)
        worker.succeed(worker.assignments[0].token)
        await until(lambda: len(worker.receipts) == 1)
        await update(kernel, limit=Change(5))
        await kernel.stop()
        await caught_up(store, views)
    row, other = queue_row(views), queue_row(views, "other")
    assert (row.task_count, row.lease_count, row.succeeded_count, row.failed_count) == (3, 3, 1, 0)
    assert (row.limit_version, row.concurrency_limit) == (3, 5)
    assert Principal.FromString(row.changed_by) == USER
    assert row.first_ns < row.last_lease_ns < row.changed_ns == row.last_ns
    assert (other.task_count, other.lease_count, other.changed_ns) == (1, 0, 0)
    assert views.tables == (await rebuilt(store)).tables


@pytest.mark.parametrize(
    ("damage", "word", "version"),
    [
        ({"stored_bytes": b"\xff"}, "not a recorded event", 2),
        ({"type": "stretto.queue.v1.NotKnown"}, "its envelope says", 2),
        ({"envelope": {"type": "stretto.queue.v1.NotKnown"}}, "unknown event type", 2),
        ({"envelope": {"body": b"\xff"}}, "body", 2),
        ({"envelope": {"previous_hash": bytes(32)}}, "previous hash", 2),
        ({"envelope": {"request_id": "another"}}, "previous hash", 3),
    ],
)
async def test_a_damaged_setting_stops_the_view_that_reads_it(
    damage: dict[str, Any], word: str, version: int
) -> None:
    store, views = new_store(), MemoryViews()
    await settings_changed(store, 1, 2, 3)
    settings = [event for event in store.events if event.stream == "p0-queues"]
    whole, broken = settings[1], settings[version - 1]
    index = store.events.index(whole)
    envelope = damage.pop("envelope", {})
    store.events[index] = altered(whole, **envelope)._replace(**damage)
    async with projecting(store, views):
        await caught_up(store, views, OTHERS)
        await until(lambda: Target(QUEUES) in views.stops)
    stop = views.stops[Target(QUEUES)]
    assert (stop.position, stop.reason) == (broken.position, "UNREADABLE_EVENT")
    assert word in stop.message
    store.events[index] = whole
    async with projecting(store, views):
        await caught_up(store, views)
    assert not views.stops, "the end of the stream is read again from the log"
    assert views.tables == (await rebuilt(store)).tables


async def test_a_setting_that_is_lost_is_missed() -> None:
    store, views = new_store(), MemoryViews()
    await settings_changed(store, 1, 2, 3)
    settings = store.stream_events(StreamId("p0-queues"))
    lost = settings.pop(1)
    store.events.remove(lost)
    async with projecting(store, views):
        await until(lambda: Target(QUEUES) in views.stops)
    stop = views.stops[Target(QUEUES)]
    assert (stop.position, stop.reason) == (settings[1].position, "UNREADABLE_EVENT")
    assert "no version 2" in stop.message


async def test_a_stream_that_no_view_reads_may_hold_anything() -> None:
    store, views = new_store(), MemoryViews()
    await settings_changed(store, 1)
    await worked(store, 2)
    index, one = next(
        (at, each) for at, each in enumerate(store.events) if each.stream == "p0-queues"
    )
    store.events[index] = one._replace(stored_bytes=b"nothing")
    async with projecting(store, views, OTHERS):
        await caught_up(store, views, OTHERS)
    assert not views.stops
