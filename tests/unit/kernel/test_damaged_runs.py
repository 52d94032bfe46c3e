"""A run that cannot be read: what it may hold, and its refusal, for a while and not for ever."""

from __future__ import annotations

from typing import Any

import pytest
from stretto_core.eventlog.chain import UnreadableEvent
from stretto_core.eventlog.recorded import Page
from stretto_core.ids import StreamId
from stretto_kernel.app import background_folds, stream_host

from tests.unit.kernel.harness import (
    FrameWorker,
    get,
    graph,
    new_store,
    start,
    start_kernel,
    task,
)
from tests.unit.kernel.test_kernel import leased
from tests.waiting import until


@pytest.mark.parametrize("held_s", [0.0, 3_600.0])
async def test_a_limited_queue_waits_until_nobody_can_hold_a_damaged_runs_lease(
    monkeypatch: pytest.MonkeyPatch, held_s: float
) -> None:
    monkeypatch.setattr(background_folds, "DAMAGED_HELD_S", held_s)
    store, narrow = new_store(), {"narrow": 1}
    older = await start_kernel(store, queue_limits=narrow)
    run_id = (await start(older, graph(task("a", queue="narrow")))).answer.run_id
    await leased(FrameWorker(older, queues=["narrow"]))
    await start(older, graph(task("waits", queue="narrow")))
    older.abandon()
    events = store.stream_events(StreamId(run_id))
    events[-1] = events[-1]._replace(stored_bytes=b"\xff damaged")
    kernel = await start_kernel(store, queue_limits=narrow, exclusive=False)
    worker = FrameWorker(kernel, worker_id="other", queues=["narrow", "wide"])
    await until(lambda: kernel.partition.folds.damaged_count == 1)
    await until(lambda: kernel.partition.folds.recovery_streams_left == 1)  # The damaged one.
    if held_s:
        await start(kernel, graph(task("b", queue="wide")))
    await leased(worker)
    assert [one.task for one in worker.assignments] == ["b" if held_s else "waits"]
    await kernel.stop()


async def test_a_damaged_run_is_not_read_for_each_call_and_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = new_store()
    first = await start_kernel(store)
    run_id = (await start(first)).answer.run_id
    await first.stop()
    events = store.stream_events(StreamId(run_id))
    sound = events[0]
    events[0] = sound._replace(stored_bytes=b"\xff damaged")
    kernel = await start_kernel(store)
    reads: list[str] = []
    read_stream = kernel.ports.log.read_stream

    async def counted(stream: StreamId, **asked: Any) -> Page:
        reads.append(stream)
        return await read_stream(stream, **asked)

    monkeypatch.setattr(kernel.ports.log, "read_stream", counted)
    for _ in range(5):
        with pytest.raises(UnreadableEvent):
            await get(kernel, run_id)
    assert reads.count(run_id) <= 1
    events[0] = sound
    monkeypatch.setattr(stream_host, "DAMAGED_S", 0.0)
    kernel.partition.host._damaged.clear()
    assert (await get(kernel, run_id)).run_id == run_id
    await kernel.stop()
