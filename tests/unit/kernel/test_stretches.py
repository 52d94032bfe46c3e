"""What is large is done in parts: others run in between, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.run.v1 import run_service_pb2 as run_pb
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.rpc.call import Call, begin_call
from stretto_kernel.app import stream_host
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.log_feed import LogFeed
from stretto_kernel.app.stream_host import FOLD_REOPENING_STEPS, StreamHost
from stretto_kernel.dispatch import ready_bucket
from stretto_kernel.dispatch.dispatcher import GRANTS_PER_STRETCH_MAX, Dispatcher
from stretto_kernel.dispatch.later_looks import TASKS_PER_STRETCH, LaterLooks
from stretto_kernel.dispatch.own_commands import DECIDED_PER_STRETCH_MAX
from stretto_kernel.domain.run import commands, plan_check
from stretto_kernel.domain.run import plan as plan_module
from stretto_kernel.domain.run.parts import PART_TASKS
from stretto_kernel.domain.run.plan_check import SLICE_TASKS_MAX
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers import event_log_servicer
from stretto_kernel.servicers.event_log_servicer import SHOWN_PER_STRETCH, EventLogServicer
from stretto_kernel.servicers.run_servicer import RunServicer

from tests.unit.kernel.harness import (
    IDS,
    USER,
    Dialer,
    FrameWorker,
    get,
    graph,
    new_store,
    start,
    start_kernel,
    task,
)
from tests.unit.kernel.test_kernel import steer, steering
from tests.unit.kernel.test_sealer import NEVER
from tests.waiting import until

TASKS = 2 * TASKS_PER_STRETCH + 50


@pytest.fixture
def store() -> MemoryStore:
    return new_store()


@pytest.fixture
async def kernel(store: MemoryStore) -> AsyncIterator[Kernel]:
    kernel = await start_kernel(store)
    yield kernel
    await kernel.stop()


@contextmanager
def calls_per_turn(
    monkeypatch: pytest.MonkeyPatch, kind: type | ModuleType, method: str
) -> Iterator[Counter[int]]:
    """Count how often a method is called in each turn of the loop."""
    counts: Counter[int] = Counter()
    plain = getattr(kind, method)
    loop = asyncio.get_running_loop()
    turn = 0

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        ticking.append(loop.call_soon(next_turn))
        del ticking[:-1]

    ticking = [loop.call_soon(next_turn)]

    def counted(*given: Any, **named: Any) -> Any:
        counts[turn] += 1
        return plain(*given, **named)

    monkeypatch.setattr(kind, method, counted)
    try:
        yield counts
    finally:
        ticking[0].cancel()
        monkeypatch.setattr(kind, method, plain)


def large() -> Any:
    return graph(*(task(f"t{number}") for number in range(TASKS)))


async def test_a_large_plan_is_offered_in_parts(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with calls_per_turn(monkeypatch, Dispatcher, "_look_at_task") as looks:
        await start(kernel, large())
        await until(lambda: kernel.partition.ready_count == TASKS)
    assert max(looks.values()) <= TASKS_PER_STRETCH


async def test_a_large_plan_is_taken_in_in_parts(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = await start_kernel(store)
    unused: Any = None
    runs = RunServicer(kernel, unused, unused)
    begin_call(Call("", USER, deadline_s=None, traceparent="", peer=""))
    plan = graph(*(task(f"a{number}") for number in range(SLICE_TASKS_MAX)), growing=True)
    with (
        calls_per_turn(monkeypatch, plan_check, "_check_task") as checked,
        calls_per_turn(monkeypatch, plan_module, "_read_task") as read,
    ):
        batch = run_pb.StartRunsRequest(
            requests=[run_pb.StartRunRequest(request_id=IDS.uuid7(), task_graph=plan)]
        )
        (started,) = (await runs.StartRuns(batch, None)).results
        name = started.started.run.name
        alone = run_pb.StartRunRequest(request_id=IDS.uuid7(), task_graph=plan)
        alone.task_graph.tasks[0].name = "another"
        assert (await runs.StartRun(alone, None)).run.name != name
        slice_ = [task(f"b{number}") for number in range(SLICE_TASKS_MAX)]
        more = run_pb.AddTasksRequest(name=name, request_id=IDS.uuid7(), tasks=slice_, sealed=True)
        added = await runs.AddTasks(more, None)
        assert added.run.task_counts.total_count == 2 * SLICE_TASKS_MAX
        await kernel.stop()
        plan_module._read_remembered.cache_clear()
        again = await start_kernel(store)
        await until(lambda: again.partition.ready_count == 3 * SLICE_TASKS_MAX)
        await again.stop()
    assert sum(checked.values()) == 3 * SLICE_TASKS_MAX
    assert max(checked.values()) <= PART_TASKS
    assert max(read.values()) <= 2 * PART_TASKS, "of two runs that are folded"


async def test_a_fold_and_a_lifted_hold_offer_in_parts(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_kernel(store)
    run_id = (await start(first, large())).answer.run_id
    await first.stop()
    kernel = await start_kernel(store)
    with calls_per_turn(monkeypatch, Dispatcher, "_look_at_task") as looks:
        await until(lambda: kernel.partition.ready_count == TASKS)
        await steer(kernel, run_id, steering(kernel, commands.PlaceHold, hold_id="h"))
        worker = FrameWorker(kernel)
        worker.grant(TASKS)
        await steer(kernel, run_id, steering(kernel, commands.LiftHold, hold_id="h"))
        await until(lambda: len(worker.assignments) == TASKS)
    # A lease is looked at by itself, as it is granted.
    assert max(looks.values()) <= TASKS_PER_STRETCH + GRANTS_PER_STRETCH_MAX
    assert len({each.token.work_item for each in worker.assignments}) == TASKS
    await kernel.stop()


async def test_a_fold_counts_what_was_opened_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_kernel(store)
    run_id = (await start(first, large())).answer.run_id
    await steer(first, run_id, steering(first, commands.Kill))
    await steer(first, run_id, steering(first, commands.Retry, step_count=100))
    await until(lambda: first.partition.ready_count == TASKS)
    await first.stop()
    steps = sum(each.type.endswith("TasksReopened") for each in store.events)
    monkeypatch.setattr(stream_host, "FOLD_SLICE_EVENTS", 100 // FOLD_REOPENING_STEPS + 1)
    evolve = import_module("stretto_kernel.domain.run.evolve")
    with calls_per_turn(monkeypatch, evolve, "go_on_reopening") as opened:
        kernel = await start_kernel(store)
        await until(lambda: kernel.partition.ready_count == TASKS)
    assert sum(opened.values()) == steps > 5
    assert max(opened.values()) == 1
    await kernel.stop()


async def test_what_an_ended_run_left_in_the_queues_is_skipped_in_parts(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready_bucket, "SKIPPED_MAX", 50)
    kernel = await start_kernel(store, seals=NEVER)  # Nothing else makes anybody look again.
    run_id = (await start(kernel, large())).answer.run_id
    await until(lambda: kernel.partition.ready_count == TASKS)
    await steer(kernel, run_id, steering(kernel, commands.Kill))
    await start(kernel, graph(task("next")))
    with calls_per_turn(monkeypatch, ready_bucket.Bucket, "_pop") as skipped:
        worker = FrameWorker(kernel)
        await until(lambda: len(worker.assignments) == 1)
    assert worker.assignments[0].token.work_item.endswith("/next")
    assert sum(skipped.values()) > TASKS // 2
    assert max(skipped.values()) <= 3 * 50, "for the hello, for the pump, for the next head"
    await kernel.stop()


async def test_a_run_that_ends_or_leaves_memory_is_looked_at_no_more(kernel: Kernel) -> None:
    seen: list[str] = []
    looks = LaterLooks(
        lambda run_id, name: seen.append(f"{run_id} {name}"), lambda *_: False, lambda: None
    )
    names: Any = [f"t{number}" for number in range(TASKS)]
    gone: Any = "gone"
    stays: Any = "stays"
    looks.add(gone, names)
    looks.add(stays, names)
    looks.forget_run(gone)
    await until(lambda: len(seen) == TASKS_PER_STRETCH + TASKS)
    assert Counter(line.split()[0] for line in seen) == {"gone": TASKS_PER_STRETCH, "stays": TASKS}
    run_id = (await start(kernel, large())).answer.run_id
    await steer(kernel, run_id, steering(kernel, commands.Kill))
    assert kernel.partition.ready_count == 0


async def test_a_worker_lost_with_many_leases_is_cleared_in_parts(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = await start_kernel(store, dialer=Dialer())
    worker = FrameWorker(kernel, session_id="01000000-0000-7000-8000-000000000001")
    worker.grant(TASKS)
    run_id = (await start(kernel, large())).answer.run_id
    await until(lambda: len(worker.assignments) == TASKS)
    worker.acknowledge()
    with calls_per_turn(monkeypatch, StreamHost, "take") as takes:
        successor = FrameWorker(kernel, session_id="02000000-0000-7000-8000-000000000001")
        successor.grant(TASKS)
        # What is not acknowledged within a second comes again.
        await until(lambda: len(successor.assignments) >= TASKS)
    # As many are lost as are granted anew in the same turn; in the first by the hello as well.
    assert max(takes.values()) <= DECIDED_PER_STRETCH_MAX + 2 * GRANTS_PER_STRETCH_MAX
    assert (await get(kernel, run_id)).task_counts.running_count == TASKS
    assert {each.token.epoch for each in successor.assignments} == {2}
    await kernel.stop()


async def test_a_page_of_events_is_shown_in_parts(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_count = 2 * SHOWN_PER_STRETCH + 10
    for _ in range(run_count):
        await start(kernel, graph(task("a")))
    log = kernel.ports.log
    servicer = EventLogServicer(log, LogFeed(log, FollowLimits()), kernel)
    request = log_pb.ReadAllRequest(page_size=1_000, form=log_pb.EventForm(body_json=True))
    with calls_per_turn(monkeypatch, event_log_servicer, "_logged") as shown:
        page = await servicer.ReadAll(request, None)
    assert len(page.events) >= run_count
    assert max(shown.values()) <= SHOWN_PER_STRETCH
