"""The batch projector: nothing lost and nothing repeated around a store that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stretto.run.v1 import run_pb2
from stretto_core.eventlog.memory import MemoryLog
from stretto_core.eventlog.port import StoreDown
from stretto_core.ids import RunId
from stretto_kernel.app.recovery import ActiveRun, ActiveRuns, find_active_runs
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import PositionMoved, Projector
from stretto_kernel.projections.run_index import RunIndexFold, RunRow

from tests.unit.kernel.harness import FrameWorker, graph, new_store, start, start_kernel, task
from tests.waiting import until


class RowStore:
    """Keeps rows in memory; fails as often as told, before anything is stored."""

    def __init__(self) -> None:
        self.rows: dict[str, RunRow] = {}
        self.at = 0
        self.failures: list[Exception] = []

    async def prepare(self) -> None:
        pass

    async def position(self) -> int:
        return self.at

    async def save(self, rows: Sequence[RunRow], *, after: int, position: int) -> None:
        if self.failures:
            raise self.failures.pop()
        if after != self.at:
            raise PositionMoved
        self.rows |= {row.run_id: row for row in rows}
        self.at = position

    async def active_runs(self) -> ActiveRuns:
        active = [
            ActiveRun(row.run_id, limited_queues=row.queues)
            for row in self.rows.values()
            if not row.ended
        ]
        return ActiveRuns(self.at, tuple(active))


async def test_rows_survive_a_store_that_fails_and_a_small_cache() -> None:
    store, rows = new_store(), RowStore()
    kernel = await start_kernel(store)
    log = MemoryLog(store, exclusive=False)
    rows.failures = [StoreDown("planned"), PositionMoved(), StoreDown("planned")]
    projecting = asyncio.create_task(
        Projector(log, rows, RunIndexFold(RUN_CODEC, runs_max=1)).run()
    )
    for number in range(4):
        await start(kernel, graph(task("a", queue=f"q{number}"), growing=number == 3))
    worker = FrameWorker(kernel, queues=["q0", "q1", "q3"])
    await until(lambda: len(worker.assignments) == 3)
    for assignment in worker.assignments:
        worker.succeed(assignment.token)
    await until(lambda: len(worker.receipts) == 3)
    await until(lambda: rows.at == store.events[-1].position)
    projecting.cancel()
    states = [row.state for row in sorted(rows.rows.values(), key=lambda row: row.queues)]
    assert states == [
        run_pb2.RUN_STATE_SUCCEEDED,
        run_pb2.RUN_STATE_SUCCEEDED,
        run_pb2.RUN_STATE_RUNNING,
        run_pb2.RUN_STATE_RUNNING,
    ]
    assert {row.queues for row in rows.rows.values()} == {("q0",), ("q1",), ("q2",), ("q3",)}
    await kernel.stop()


async def test_the_active_runs_are_the_view_and_the_log_after_it() -> None:
    store, rows = new_store(), RowStore()
    kernel = await start_kernel(store)
    log = MemoryLog(store, exclusive=False)
    ended = (await start(kernel)).answer.run_id
    grown = (await start(kernel, graph(task("b", queue="q", may_spawn=True)))).answer.run_id
    fold = RunIndexFold(RUN_CODEC)
    for event in store.events:
        fold.apply(event)
    await rows.save(fold.take_rows(), after=0, position=store.events[-1].position)
    worker = FrameWorker(kernel, queues=["default"])
    await until(lambda: len(worker.assignments) == 1)
    worker.succeed(worker.assignments[0].token)
    await until(lambda: len(worker.receipts) == 1)
    fresh = (await start(kernel, graph(task("c", queue="q")))).answer.run_id
    active = {run.run_id: run for run in await find_active_runs(log, rows)}
    assert ended not in active
    assert active[RunId(grown)].limited_queues == ("q",)
    assert active[RunId(fresh)].limited_queues is None, "what the view does not know may be any"
    await kernel.stop()
