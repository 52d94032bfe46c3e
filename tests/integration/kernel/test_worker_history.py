"""Workers that are long gone are known from the record, page by page with those that are there."""

from __future__ import annotations

import grpc
import pytest
from stretto.registry.v1 import worker_registry_service_pb2 as pb
from stretto.registry.v1.worker_registry_service_pb2_grpc import WorkerRegistryServiceStub
from stretto_core.errors import InvalidArgument
from stretto_core.rpc.status import from_rpc_error

from tests.integration.kernel.serving import Served, StreamWorker, served
from tests.integration.kernel.test_views import following, projecting
from tests.waiting import until


async def work_as(kernel: Served, worker_id: str, run_count: int) -> StreamWorker:
    """Let a worker do so many runs of one task; it stays connected."""
    worker = StreamWorker(kernel.channel, worker_id=worker_id, credit_count=run_count)
    for _ in range(run_count):
        await kernel.start()
    await until(lambda: len(worker.assignments) == run_count)
    for assignment in worker.assignments:
        worker.succeed(assignment.token)
    await until(lambda: len(worker.receipts) == run_count)
    return worker


async def listed(kernel: Served, **asked: bool) -> list[pb.Worker]:
    """Return all workers, two a page."""
    stub = WorkerRegistryServiceStub(kernel.channel)
    request = pb.ListWorkersRequest(page_size=2, **asked)  # type: ignore[arg-type]
    found: list[pb.Worker] = []
    while True:
        page = await stub.ListWorkers(request)
        found += page.workers
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_workers_of_before_are_listed_with_what_the_record_knows(fresh_database: str) -> None:
    counts = {"a": 1, "c": 3, "e": 2}
    async with served(fresh_database) as kernel:
        for worker_id, run_count in counts.items():
            await (await work_as(kernel, worker_id, run_count)).cut()
    async with served(fresh_database) as kernel, projecting(kernel, fresh_database):
        there = await work_as(kernel, "b", 1)
        await following(kernel)
        assert [worker.worker_id for worker in await listed(kernel)] == ["b"]
        found = await listed(kernel, with_history=True)
        assert [worker.worker_id for worker in found] == ["a", "b", "c", "e"]
        assert {w.worker_id: w.granted_lease_count for w in found} == {**counts, "b": 1}
        states = {worker.worker_id: worker.state for worker in found}
        gone, connected = pb.WORKER_STATE_GONE, pb.WORKER_STATE_CONNECTED
        assert states == {"a": gone, "b": connected, "c": gone, "e": gone}
        assert all(w.first_lease_time.ToNanoseconds() for w in found)
        assert all(w.seen_time.ToNanoseconds() >= w.first_lease_time.ToNanoseconds() for w in found)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await listed(kernel, with_history=True, connected_only=True)
        assert isinstance(from_rpc_error(refused.value), InvalidArgument)
        await there.cut()
