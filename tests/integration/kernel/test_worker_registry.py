"""WorkerRegistryService: who is connected, who was, and asking a process to end."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from stretto.registry.v1 import worker_registry_service_pb2 as pb
from stretto.registry.v1.worker_registry_service_pb2_grpc import WorkerRegistryServiceStub
from stretto.work.v1 import work_pb2, work_service_pb2
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub

from tests.integration.kernel.serving import IDS, Served, StreamWorker, reason_of, task
from tests.waiting import until


async def listed(kernel: Served, connected_only: bool = False) -> list[pb.Worker]:
    stub = WorkerRegistryServiceStub(kernel.channel)
    return list(
        (await stub.ListWorkers(pb.ListWorkersRequest(connected_only=connected_only))).workers
    )


async def get(kernel: Served, worker_id: str) -> pb.GetWorkerResponse:
    stub = WorkerRegistryServiceStub(kernel.channel)
    return await stub.GetWorker(pb.GetWorkerRequest(worker_id=worker_id))


async def drain(kernel: Served, worker_id: str, reason: str = "") -> pb.Worker:
    stub = WorkerRegistryServiceStub(kernel.channel)
    request = pb.DrainWorkerRequest(worker_id=worker_id, reason=reason)
    return (await stub.DrainWorker(request)).worker


async def test_a_worker_and_what_it_holds(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    await kernel.start(task("a"), task("b"))
    await until(lambda: len(worker.assignments) == 2)
    (shown,) = await listed(kernel)
    assert (shown.worker_id, shown.session_id) == ("w1", worker.session_id)
    assert shown.state == pb.WORKER_STATE_CONNECTED
    assert shown.transport == pb.WORKER_TRANSPORT_STREAM
    assert (list(shown.queues), list(shown.executors)) == (["default"], ["test.body"])
    assert shown.lease_count == 2
    assert shown.seen_time.seconds >= shown.connect_time.seconds > 0
    found = await get(kernel, "w1")
    assert {lease.work_item for lease in found.leases} == {
        assignment.token.work_item for assignment in worker.assignments
    }
    assert await reason_of(get(kernel, "w2")) == "NOT_FOUND"
    assert await reason_of(get(kernel, "")) == "INVALID_ARGUMENT"


async def test_one_that_is_lost_and_one_that_left_are_remembered(kernel: Served) -> None:
    lost = StreamWorker(kernel.channel, worker_id="lost")
    left = StreamWorker(kernel.channel, worker_id="left")
    await until(lambda: bool(lost.answers and left.answers))
    await lost.cut()
    left.say(goodbye={})
    await left.ended
    shown = {one.worker_id: one.state for one in await listed(kernel)}
    assert shown == {"left": pb.WORKER_STATE_GONE, "lost": pb.WORKER_STATE_LOST}
    assert await listed(kernel, connected_only=True) == []
    assert await reason_of(drain(kernel, "lost")) == "WORKER_NOT_CONNECTED"
    back = StreamWorker(kernel.channel, worker_id="left")
    await until(lambda: bool(back.answers))
    assert (await get(kernel, "left")).worker.state == pb.WORKER_STATE_CONNECTED


async def test_workers_come_in_pages(kernel: Served) -> None:
    workers = [StreamWorker(kernel.channel, worker_id=f"w{number}") for number in range(5)]
    await until(lambda: all(worker.answers for worker in workers))
    stub = WorkerRegistryServiceStub(kernel.channel)
    seen: list[str] = []
    token = ""
    while not seen or token:
        page = await stub.ListWorkers(pb.ListWorkersRequest(page_size=2, page_token=token))
        seen += [worker.worker_id for worker in page.workers]
        token = page.next_page_token
    assert seen == [f"w{number}" for number in range(5)]
    wrong = stub.ListWorkers(pb.ListWorkersRequest(page_token="guess"))
    assert await reason_of(wrong) == "INVALID_ARGUMENT"


async def test_a_drained_worker_is_told_and_leased_nothing_more(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    await kernel.start()
    await until(lambda: len(worker.assignments) == 1)
    shown = await drain(kernel, "w1", "for the disk")
    assert (shown.state, shown.reason) == (pb.WORKER_STATE_DRAINING, "for the disk")
    assert (await drain(kernel, "w1", "again")).reason == "for the disk"
    await until(lambda: any(answer.drain.leave for answer in worker.answers))
    other = StreamWorker(kernel.channel, worker_id="w2", credit_count=0)
    await kernel.start()
    worker.succeed(worker.assignments[0].token)
    await until(lambda: bool(worker.receipts))
    await worker.acknowledged()
    assert len(worker.assignments) == 1
    other.say(credit_total_count=1)
    await until(lambda: len(other.assignments) == 1)
    await worker.cut()
    again = StreamWorker(kernel.channel, session_id=worker.session_id)
    await until(lambda: any(answer.drain.leave for answer in again.answers))
    successor = StreamWorker(kernel.channel)
    await until(lambda: bool(successor.answers))
    assert (await get(kernel, "w1")).worker.state == pb.WORKER_STATE_CONNECTED


async def test_a_worker_without_a_stream_appears_too(kernel: Served) -> None:
    hello = work_pb2.Hello(
        worker_id="unary", session_id=IDS.uuid7(), executors=["test.body"], version="mine/1"
    )

    def lease() -> work_service_pb2.LeaseWorkRequest:
        return work_service_pb2.LeaseWorkRequest(
            worker=hello, request_id=IDS.uuid7(), wait_timeout=Duration(seconds=5)
        )

    stub = WorkServiceStub(kernel.channel)
    await kernel.start()
    assert len((await stub.LeaseWork(lease())).assignments) == 1
    (shown,) = await listed(kernel)
    assert shown.transport == pb.WORKER_TRANSPORT_UNARY
    assert (shown.state, shown.lease_count) == (pb.WORKER_STATE_CONNECTED, 1)
    assert shown.version == "mine/1"
    await drain(kernel, "unary")
    assert await reason_of(stub.LeaseWork(lease())) == "WORKER_DRAINED"
