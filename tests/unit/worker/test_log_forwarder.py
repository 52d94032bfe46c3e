"""What becomes of outcomes and logs when the kernel takes no logs, or no more of one."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from stretto.common.v1 import lease_pb2
from stretto.tasklog.v1.task_log_pb2 import LOG_STREAM_STDOUT
from stretto.work.v1 import work_service_pb2 as wire
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal, Unavailable
from stretto_core.testing.virtual_loop import VirtualLoop
from stretto_sdk.worker.log_forwarder import FLUSH_S, LogForwarder

from tests.waiting import until


class Sink:
    """Answers once it is open: with `refusal`, or that it has enough of every log."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.open = asyncio.Event()
        self.refusal = refusal
        self.requests: list[wire.AppendLogsRequest] = []

    async def append_logs(self, request: wire.AppendLogsRequest) -> wire.AppendLogsResponse:
        self.requests.append(request)
        await self.open.wait()
        if self.refusal is not None:
            raise self.refusal
        response = wire.AppendLogsResponse()
        for _ in request.leases:
            response.results.add(truncated=True)
        return response


async def _refused() -> None:
    sink = Sink(Unavailable("down", retry_delay_ms=60_000))
    forwarder = LogForwarder(sink, SystemClock())
    told: list[str] = []
    ended = asyncio.Event()
    for name in ("a", "b"):
        writer = forwarder.open(lease_pb2.LeaseToken(work_item=name, epoch=1))
        writer.write(LOG_STREAM_STDOUT, b"line\n")
        forwarder.ended(writer.log, partial(told.append, name))
    third = forwarder.open(lease_pb2.LeaseToken(work_item="c", epoch=1))
    third.write(LOG_STREAM_STDOUT, b"line\n")
    forwarder.ended(third.log, ended.set)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    assert told == [], "it may still be taken"
    sink.open.set()
    await ended.wait()
    assert told == ["a", "b"]
    assert loop.time() - begun_s < FLUSH_S, "not only when patience with a slow kernel is over"
    await forwarder.close()


def test_no_outcome_waits_for_a_kernel_that_takes_no_logs() -> None:
    loop = VirtualLoop(random.Random(1))
    try:
        loop.run_until_complete(_refused())
    finally:
        loop.close()


async def test_nothing_more_is_sent_of_a_log_that_the_kernel_has_enough_of() -> None:
    sink = Sink()
    sink.open.set()
    forwarder = LogForwarder(sink, SystemClock())
    writer = forwarder.open(lease_pb2.LeaseToken(work_item="a", epoch=1))
    writer.write(LOG_STREAM_STDOUT, b"first\n")
    await until(lambda: writer.log.cut)
    writer.write(LOG_STREAM_STDOUT, b"x" * 10_000_000)
    assert not writer.is_full, "whoever writes is not held back for nothing"
    await forwarder.close()
    assert len(sink.requests) == 1
