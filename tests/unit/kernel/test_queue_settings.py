"""Settings of queues in a kernel whose store fails: decided again, and never half in force."""

from __future__ import annotations

import asyncio

from stretto.queue.v1 import queue_pb2
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.ids import RequestId
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.domain.queue import Change, Pause, RateLimit, UpdateQueue
from stretto_kernel.kernel import Kernel

from tests.unit.kernel.harness import (
    IDS,
    USER,
    FrameWorker,
    PlannedFaults,
    graph,
    new_store,
    start,
    start_kernel,
    task,
    types_of,
)
from tests.waiting import until


async def update(
    kernel: Kernel,
    *,
    limit: Change[int] | None = None,
    rate: Change[RateLimit] | None = None,
    pause: Change[Pause] | None = None,
) -> queue_pb2.Queue:
    request_id, digest = IDS.uuid7(), b"d" * 32
    command = UpdateQueue(
        now_ns=kernel.ports.clock.now_ns(),
        request_id=RequestId(request_id),
        request_digest=digest,
        queue="default",
        concurrency_limit=limit,
        rate_limit=rate,
        pause=pause,
    )
    caller = Caller(principal=USER, request_id=request_id, request_digest=digest)
    return (await kernel.partition.queues.update(command, caller)).answer


async def test_an_update_that_was_not_stored_is_decided_again() -> None:
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults, queue_limits={"default": 1})
    faults.next = [AppendFault(Fault.REFUSED), AppendFault(Fault.LOST_BEFORE)]
    shown = await update(kernel, limit=Change(2))
    assert (shown.concurrency_limit, shown.etag) == (2, "1")
    assert types_of(store) == ["ConcurrencyLimitChanged"]
    await start(kernel, graph(*(task(name) for name in "abc")))
    worker = FrameWorker(kernel)
    await until(lambda: len(worker.assignments) == 2)
    worker.succeed(worker.assignments[0].token)
    await until(lambda: len(worker.assignments) == 3)
    await kernel.stop()


async def test_what_a_dropped_setting_let_through_is_dropped_with_it() -> None:
    """The leases were decided after the limit was lifted: neither is stored without the other."""
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults, queue_limits={"default": 1})
    await start(kernel, graph(*(task(name) for name in "abc")))
    worker = FrameWorker(kernel)
    await until(lambda: len(worker.assignments) == 1)
    faults.next = [AppendFault(Fault.REFUSED)] * 9
    lifting = asyncio.create_task(update(kernel, limit=Change(3)))
    await asyncio.wait([lifting])
    assert lifting.exception() is not None, "it was refused as often as it was decided"
    faults.next = []
    await kernel.partition.facts.writer.barrier()
    assert types_of(store) == ["RunStarted", "AttemptLeased"]
    await update(kernel, limit=Change(2))
    await until(lambda: types_of(store).count("AttemptLeased") == 2)
    assert types_of(store)[2] == "ConcurrencyLimitChanged"
    assert kernel.partition.lease_count == 2
    await kernel.stop()


async def test_what_a_setting_kept_back_goes_once_it_is_lifted() -> None:
    kernel = await start_kernel(new_store())
    worker = FrameWorker(kernel)
    await update(kernel, rate=Change(RateLimit(50.0, 1)))
    await start(kernel)
    await until(lambda: len(worker.assignments) == 1)
    await update(kernel, pause=Change(Pause("")))
    await start(kernel)
    await update(kernel, pause=Change(None), rate=Change(None))
    await until(lambda: len(worker.assignments) == 2)
    await kernel.stop()
