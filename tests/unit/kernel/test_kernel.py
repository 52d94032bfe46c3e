"""The whole kernel on the memory log: runs from start to end."""

from __future__ import annotations

from stretto.run.v1 import run_pb2

from tests.unit.kernel.harness import FrameWorker, get, new_store, start, start_kernel
from tests.waiting import until


async def test_a_one_task_run_is_four_facts_in_two_groups() -> None:
    store = new_store()
    kernel = await start_kernel(store)
    worker = FrameWorker(kernel)
    run = (await start(kernel)).answer
    await until(lambda: len(worker.assignments) == 1)
    worker.acknowledge()
    worker.succeed(worker.assignments[0].token, '{"x": 1}')
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].status.code == 0
    ended = await get(kernel, run.run_id)
    assert ended.state == run_pb2.RUN_STATE_SUCCEEDED
    types = [event.type.rpartition(".")[2] for event in store.events]
    assert types == ["RunStarted", "AttemptLeased", "AttemptSucceeded", "RunSucceeded"]
    await kernel.stop()
