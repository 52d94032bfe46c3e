"""Following a run on virtual time: its changes are coalesced, its end is not."""

from __future__ import annotations

import random

from stretto.run.v1 import run_pb2
from stretto_core.ids import RunId
from stretto_core.testing.virtual_loop import VirtualLoop
from stretto_kernel.app.watching import INTERVAL_S, watch_run

from tests.unit.kernel.harness import (
    NAMESPACE,
    FrameWorker,
    graph,
    new_store,
    start,
    start_kernel,
    task,
)


def test_the_end_is_told_at_once() -> None:
    loop = VirtualLoop(random.Random(1))
    told_s = loop.run(_told_s(loop))
    assert len(told_s) == 3
    assert told_s[1] - told_s[0] >= INTERVAL_S, "what happens in between is told together"
    assert told_s[2] == told_s[1]


async def _told_s(loop: VirtualLoop) -> list[float]:
    """Return when each change of a run was told: it begins, its first task ends, its last ends."""
    kernel = await start_kernel(new_store())
    worker = FrameWorker(kernel)
    run = (await start(kernel, graph(task("a"), task("b")))).answer
    partition = kernel.partition
    told_s = []
    async for change in watch_run(
        partition.host,
        partition.calls,
        kernel.ports.clock,
        namespace=NAMESPACE,
        run_id=RunId(run.run_id),
        with_tasks=False,
    ):
        told_s.append(loop.time())
        worker.acknowledge()
        if not change.ended:
            worker.succeed(worker.assignments[len(told_s) - 1].token)
    assert change.run.state == run_pb2.RUN_STATE_SUCCEEDED
    await kernel.stop()
    return told_s
