"""What a kernel does that gets more than it can take: refusals with a time, and work that goes on.

The writer is held by a lock on the table of events, as a slow disk would; no time is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import psycopg
import pytest
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as work
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.clock import NS_PER_S
from stretto_core.errors import Exhausted
from stretto_core.ids import RunId
from stretto_core.rpc.retry import Caller, RetryPolicy
from stretto_core.rpc.status import from_rpc_error
from stretto_kernel.dispatch import session
from stretto_kernel.dispatch.session import DECISIONS_PER_WORD_MAX
from stretto_kernel.dispatch.work_stream import WorkStream
from stretto_kernel.servicers import work_servicer
from stretto_sdk import Client, Plan

from tests.integration.kernel.serving import IDS, Served, StreamWorker, reason_of, served, task
from tests.waiting import until

WEIGHT_MAX = 4
OUTCOMES_COUNT = 500
STARTS_COUNT = 400


@asynccontextmanager
async def held_writer(dsn: str) -> AsyncIterator[None]:
    """Nothing can be appended meanwhile."""
    async with await psycopg.AsyncConnection.connect(dsn) as holding:
        await holding.execute("LOCK TABLE stretto_p0.events IN EXCLUSIVE MODE")
        yield
        await holding.rollback()


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database, begun_weight_max=WEIGHT_MAX) as kernel:
        yield kernel


async def filled(kernel: Served) -> list[asyncio.Task[Any]]:
    """As many starts as are admitted, none of them answered."""
    starts = [asyncio.create_task(kernel.start()) for _ in range(WEIGHT_MAX)]
    await until(lambda: kernel.kernel.admission.weight == WEIGHT_MAX)
    return starts


async def test_one_start_too_many_is_told_when_to_come_again(
    kernel: Served, fresh_database: str
) -> None:
    run = (await kernel.start()).run
    async with held_writer(fresh_database):
        starts = await filled(kernel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kernel.start()
        refusal = from_rpc_error(caught.value)
        assert isinstance(refusal, Exhausted)
        assert (refusal.reason_word, refusal.retry_delay_ms) == ("OVERLOADED", 1_000)
        batch = pb.StartRunsRequest(requests=[pb.StartRunRequest(request_id=IDS.uuid7())])
        assert await reason_of(kernel.runs.StartRuns(batch)) == "OVERLOADED"
        more = pb.AddTasksRequest(name=run.name, request_id=IDS.uuid7(), tasks=[task("b")])
        assert await reason_of(kernel.runs.AddTasks(more)) == "OVERLOADED"
        retry = pb.RetryRunRequest(name=run.name, request_id=IDS.uuid7())
        assert await reason_of(kernel.runs.RetryRun(retry)) == "OVERLOADED"
        # Who wants less of it is heard all the same.
        kill = asyncio.create_task(_kill(kernel, run.name))
        await until(lambda: _is_decided_to_end(kernel, run.name))
        assert not kill.done()
    assert len({start.run.name for start in await asyncio.gather(*starts)}) == WEIGHT_MAX
    assert (await kill).run.state == run_pb2.RUN_STATE_KILLED
    assert kernel.kernel.admission.weight == 0
    await kernel.start()


async def test_who_starts_too_much_keeps_no_other_namespace_out(
    kernel: Served, fresh_database: str
) -> None:
    async with held_writer(fresh_database):
        starts = await filled(kernel)
        for number in range(WEIGHT_MAX // 2):
            starts.append(asyncio.create_task(kernel.start(parent="namespaces/meek")))
            await until(partial(_weighs, kernel, WEIGHT_MAX + number + 1))
        assert await reason_of(kernel.start(parent="namespaces/meek")) == "OVERLOADED"
        assert await reason_of(kernel.start(parent="namespaces/default")) == "OVERLOADED"
    await asyncio.gather(*starts)


def _weighs(kernel: Served, weight: int) -> bool:
    return kernel.kernel.admission.weight == weight


def _is_decided_to_end(kernel: Served, name: str) -> bool:
    run = kernel.kernel.partition.host.find(RunId(name.rpartition("/")[2]))
    return run is not None and run.has_ended


async def _kill(kernel: Served, name: str) -> pb.KillRunResponse:
    return await kernel.runs.KillRun(pb.KillRunRequest(name=name, request_id=IDS.uuid7()))


async def test_renewals_and_outcomes_do_not_stand_behind_starts(
    kernel: Served, fresh_database: str
) -> None:
    await kernel.start()
    worker = StreamWorker(kernel.channel)
    await until(lambda: bool(worker.assignments))
    token = worker.assignments[0].token
    holder = WorkServiceStub(kernel.channel)
    async with held_writer(fresh_database):
        starts = await filled(kernel)
        renewed = await holder.RenewLeases(
            work.RenewLeasesRequest(renewals=[work_pb2.Renewal(token=token)])
        )
        assert not renewed.receipts  # Answered, and not refused, while nothing can be stored.
        succeeded = work_pb2.OutcomeSucceeded(result=Payload(json="1"))
        outcome = work_pb2.Outcome(token=token, succeeded=succeeded)
        reported = holder.ReportOutcomes(work.ReportOutcomesRequest(outcomes=[outcome]))
        await until(lambda: kernel.kernel.partition.lease_count == 0)
    (receipt,) = (await reported).receipts
    assert receipt.status.code == 0
    await asyncio.gather(*starts)
    await worker.cut()


async def test_a_renewal_does_not_wait_for_the_handlers_of_starts(kernel: Served) -> None:
    """Hundreds of starts came before it, and only then its own call."""
    await kernel.start()
    worker = StreamWorker(kernel.channel)
    await until(lambda: bool(worker.assignments))
    renewal = work_pb2.Renewal(token=worker.assignments[0].token)
    answered: list[str] = []

    async def start() -> None:
        await reason_of(kernel.start())
        answered.append("start")

    async def renew() -> None:
        await WorkServiceStub(kernel.channel).RenewLeases(
            work.RenewLeasesRequest(renewals=[renewal])
        )
        answered.append("renewal")

    await asyncio.gather(*(start() for _ in range(STARTS_COUNT)), renew())
    assert answered.index("renewal") < STARTS_COUNT / 2
    await worker.cut()


async def test_callers_that_try_again_all_come_in(kernel: Served, fresh_database: str) -> None:
    """More than ten times as many as are admitted at once, within one budget."""
    caller = Caller(policy=RetryPolicy(budget_ms=60_000), wait=_as_soon_as_others_ran)

    async def start(_: int) -> str:
        request = pb.StartRunRequest(
            request_id=IDS.uuid7(), task_graph=plan_pb2.TaskGraph(tasks=[task("a")])
        )
        return (await caller.call(kernel.runs.StartRun, request)).run.name

    async with held_writer(fresh_database):
        starts = [asyncio.create_task(start(n)) for n in range(50)]
        await until(lambda: kernel.kernel.admission.refused_count > 50)
        assert kernel.kernel.admission.weight == WEIGHT_MAX
    assert len(set(await asyncio.gather(*starts))) == 50


async def test_clients_come_in_by_themselves(kernel: Served, fresh_database: str) -> None:
    """Their starts go alone and in batches; a batch that is refused is sent again as one."""
    plan = Plan("of-one")
    plan.task("a", executor="test.body")
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(kernel.address)) for _ in range(WEIGHT_MAX)
        ]
        async with held_writer(fresh_database):
            starts = [
                asyncio.create_task(client.start(plan)) for client in clients for _ in range(20)
            ]
            await until(lambda: kernel.kernel.admission.refused_count >= WEIGHT_MAX)
        assert len({run.run_id for run in await asyncio.gather(*starts)}) == len(starts)


async def _as_soon_as_others_ran(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_a_worker_that_does_not_read_is_cut_off_and_holds_no_memory(
    kernel: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_servicer, "WAITING_BYTES_MAX", 1024 * 1024)
    monkeypatch.setattr(work_servicer, "LAST_WORD_S", 0.0)
    # It says nothing either, and is not to be given up for that.
    monkeypatch.setattr(session, "IDLE_TIMEOUT_NS", 3_600 * NS_PER_S)
    large = Payload(json='"' + "x" * 60_000 + '"')
    graph = [task(f"t{at}", inputs={"large": plan_pb2.Binding(literal=large)}) for at in range(15)]
    for _ in range(6):
        await kernel.start(*graph)
    hello = work_pb2.Hello(worker_id="deaf", session_id=IDS.uuid7(), executors=["test.body"])
    call = WorkServiceStub(kernel.channel).Work()
    await call.write(work.WorkRequest(hello=hello, credit_total_count=1_000))
    streams = kernel.kernel.partition.streams
    await until(lambda: streams.stream_count == 1)
    await until(lambda: streams.stream_count == 0)
    call.cancel()


async def test_a_worker_that_says_more_than_is_decided_is_not_read_ahead(
    kernel: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kernel.start()
    worker = StreamWorker(kernel.channel)
    await until(lambda: bool(worker.assignments))
    streams = kernel.kernel.partition.streams
    waiting: list[int] = []
    receive = streams.receive

    def noted(stream: WorkStream, frame: work.WorkRequest) -> None:
        receive(stream, frame)
        waiting.append(len(stream.heard))

    monkeypatch.setattr(streams, "receive", noted)
    stale = LeaseToken(work_item=worker.assignments[0].token.work_item, epoch=99)
    succeeded = work_pb2.OutcomeSucceeded(result=Payload(json="1"))
    outcomes = [work_pb2.Outcome(token=stale, succeeded=succeeded)] * OUTCOMES_COUNT
    for _ in range(4):
        worker.say(outcomes=outcomes)
    await until(lambda: len(worker.receipts) == 4 * OUTCOMES_COUNT)
    assert max(waiting) <= OUTCOMES_COUNT // DECISIONS_PER_WORD_MAX
    await worker.cut()
