"""Following a run on virtual time: its changes are coalesced, its end is not."""

from __future__ import annotations

import random

import pytest
from stretto.run.v1 import run_pb2
from stretto_core.errors import Unavailable
from stretto_core.ids import RunId, StreamId
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
from tests.waiting import until


def test_the_end_is_told_at_once() -> None:
    loop = VirtualLoop(random.Random(1))
    told_s = loop.run(_told_s(loop))
    assert len(told_s) == 3
    assert told_s[1] - told_s[0] >= INTERVAL_S, "what happens in between is told together"
    assert told_s[2] == told_s[1]


async def test_a_replaced_owner_does_not_deny_what_a_newer_one_made() -> None:
    """A follower that comes back with a newer version must look elsewhere, not give up."""
    store = new_store()
    older = await start_kernel(store)
    run = (await start(older, graph(task("a")))).answer
    newer = await start_kernel(store, exclusive=False)
    worker = FrameWorker(newer)
    await until(lambda: bool(worker.assignments))
    worker.succeed(worker.assignments[0].token)
    name = RunId(run.run_id)
    ended = await newer.partition.calls.wait_ended(NAMESPACE, name, 10**9)
    assert ended.answer.state == run_pb2.RUN_STATE_SUCCEEDED
    followed = watch_run(
        older.partition.host,
        older.partition.calls,
        older.ports.clock,
        namespace=NAMESPACE,
        run_id=name,
        with_tasks=False,
        after_version=len(store.stream_events(StreamId(name))),
    )
    with pytest.raises(Unavailable) as refused:
        await anext(followed)
    assert refused.value.reason_word == "PARTITION_MOVED"
    await newer.stop()
    await older.stop()


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
