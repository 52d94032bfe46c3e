"""A run that cannot be read: its refusal is remembered for a while, and not for ever."""

from __future__ import annotations

from typing import Any

import pytest
from stretto_core.eventlog.chain import UnreadableEvent
from stretto_core.eventlog.recorded import Page
from stretto_core.ids import StreamId
from stretto_kernel.app import stream_host

from tests.unit.kernel.harness import get, new_store, start, start_kernel


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
