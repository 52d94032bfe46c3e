"""QueueService over real gRPC and PostgreSQL: settings that take effect, last, and are shown."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stretto.queue.v1 import queue_pb2
from stretto.queue.v1 import queue_service_pb2 as pb
from stretto.queue.v1.queue_service_pb2_grpc import QueueServiceStub
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as run_pb
from stretto_core.telemetry.exposition import render
from stretto_core.telemetry.metrics import Registry
from stretto_kernel.kernel_metrics import add_metrics

from tests.integration.kernel.serving import IDS, Served, StreamWorker, reason_of, served, task
from tests.waiting import until


def updating(queue: str, *paths: str, request_id: str = "", **values: Any) -> pb.UpdateQueueRequest:
    return pb.UpdateQueueRequest(
        queue=queue_pb2.Queue(queue=queue, **values),
        update_mask=FieldMask(paths=paths),
        request_id=request_id or IDS.uuid7(),
    )


async def update(kernel: Served, *args: str, **values: Any) -> queue_pb2.Queue:
    stub = QueueServiceStub(kernel.channel)
    return (await stub.UpdateQueue(updating(*args, **values))).queue


async def get(kernel: Served, queue: str) -> queue_pb2.Queue:
    return (await QueueServiceStub(kernel.channel).GetQueue(pb.GetQueueRequest(queue=queue))).queue


async def wait_reason(kernel: Served, run: str) -> run_pb2.WaitReason.ValueType:
    page = await kernel.runs.ListTasks(run_pb.ListTasksRequest(parent=run))
    return page.tasks[0].wait_reason


async def test_a_paused_queue_leases_nothing_until_it_is_resumed(kernel: Served) -> None:
    paused = await update(kernel, "default", "paused", paused=True, pause_reason="for repair")
    assert (paused.paused, paused.pause_reason, paused.etag) == (True, "for repair", "1")
    worker = StreamWorker(kernel.channel)
    run = await kernel.start(task("a"))
    await until(lambda: bool(worker.answers))
    shown = await get(kernel, "default")
    assert (shown.ready_task_count, shown.running_task_count, shown.served) == (1, 0, True)
    assert shown.oldest_ready_time.seconds > 0
    assert await wait_reason(kernel, run.run.name) == run_pb2.WAIT_REASON_QUEUE_PAUSED
    assert not worker.assignments
    resumed = await update(kernel, "default", "paused")
    assert not resumed.paused and not resumed.pause_reason
    await until(lambda: len(worker.assignments) == 1)
    shown = await get(kernel, "default")
    assert (shown.ready_task_count, shown.running_task_count) == (0, 1)
    assert not shown.HasField("oldest_ready_time")


async def test_limits_are_heeded_by_the_next_lease_and_outlast_the_kernel(
    fresh_database: str,
) -> None:
    async with served(fresh_database) as kernel:
        worker = StreamWorker(kernel.channel, credit_count=10)
        await kernel.start(*(task(name) for name in "abcd"))
        await until(lambda: len(worker.assignments) == 4)
        await update(kernel, "default", "concurrency_limit", concurrency_limit=3)
        await kernel.start(task("e"))
        for assignment in worker.assignments[:1]:
            worker.succeed(assignment.token)
        await until(lambda: len(worker.receipts) == 1)
        shown = await get(kernel, "default")
        assert (shown.running_task_count, shown.ready_task_count) == (3, 1)
        assert len(worker.assignments) == 4
        worker.succeed(worker.assignments[1].token)
        await until(lambda: len(worker.assignments) == 5)
        await update(kernel, "mail", "rate_limit", rate_limit={"tokens_per_second": 2.5})
    async with served(fresh_database) as newer:
        assert (await get(newer, "default")).concurrency_limit == 3
        mail = await get(newer, "mail")
        assert (mail.rate_limit.tokens_per_second, mail.rate_limit.burst) == (2.5, 3)


async def test_a_rate_is_waited_for_and_then_gives(kernel: Served) -> None:
    await update(kernel, "default", "rate_limit", rate_limit={"tokens_per_second": 0.001})
    worker = StreamWorker(kernel.channel, credit_count=10)
    run = await kernel.start(task("a"))
    await until(lambda: bool(worker.answers))
    assert await wait_reason(kernel, run.run.name) == run_pb2.WAIT_REASON_QUEUE_RATE
    assert not worker.assignments
    # A faster one from here on: the alarm rings for its token, with nothing else going on.
    await update(kernel, "default", "rate_limit", rate_limit={"tokens_per_second": 20.0})
    await until(lambda: len(worker.assignments) == 1)


async def test_updates_are_repeatable_and_compared(kernel: Served) -> None:
    stub = QueueServiceStub(kernel.channel)
    request = updating("gpu", "concurrency_limit", concurrency_limit=2)
    first = await stub.UpdateQueue(request)
    assert await stub.UpdateQueue(request) == first
    other = updating("gpu", "concurrency_limit", request_id=request.request_id, concurrency_limit=3)
    assert await reason_of(stub.UpdateQueue(other)) == "REQUEST_ID_REUSED"
    stale = updating("gpu", "concurrency_limit", concurrency_limit=4, etag="0")
    assert await reason_of(stub.UpdateQueue(stale)) == "REVISION_MISMATCH"
    lifted = await update(kernel, "gpu", "concurrency_limit", etag=first.queue.etag)
    assert not lifted.HasField("concurrency_limit")


@pytest.mark.parametrize(
    "wrong",
    [
        updating("no such name", "paused"),
        updating("gpu"),
        updating("gpu", "etag"),
        updating("gpu", "concurrency_limit", concurrency_limit=0),
        updating("gpu", "rate_limit", rate_limit={"tokens_per_second": 0.0}),
        updating("gpu", "rate_limit", rate_limit={"tokens_per_second": float("nan")}),
        updating("gpu", "rate_limit", rate_limit={"tokens_per_second": 1.0, "burst": -1}),
        updating("gpu", "paused", paused=True, pause_reason="x" * 1_001),
    ],
)
async def test_wrong_settings_are_refused(kernel: Served, wrong: pb.UpdateQueueRequest) -> None:
    stub = QueueServiceStub(kernel.channel)
    assert await reason_of(stub.UpdateQueue(wrong)) == "INVALID_ARGUMENT"
    assert await reason_of(get(kernel, "gpu")) == "NOT_FOUND"


async def test_queues_come_in_pages_and_are_measured_within_bounds(kernel: Served) -> None:
    for number in range(5):
        await update(kernel, f"q{number}", "paused", paused=True)
    stub = QueueServiceStub(kernel.channel)
    seen: list[str] = []
    token = ""
    while not seen or token:
        page = await stub.ListQueues(pb.ListQueuesRequest(page_size=2, page_token=token))
        seen += [queue.queue for queue in page.queues]
        token = page.next_page_token
    assert seen == [f"q{number}" for number in range(5)]
    await kernel.start(task("a", queue="q1"))
    registry = Registry()
    add_metrics(registry, kernel.kernel)
    assert 'stretto_kernel_queue_tasks_ready{queue="q1"} 1' in render(registry)
    counts = kernel.kernel.partition.queues.counts(1)
    assert {name: count.ready_count for name, count in counts.items()} == {
        "q0": 0,
        "all others": 1,
    }
