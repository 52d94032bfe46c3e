"""WorkService without a stream, over gRPC: the calls of a worker in any language, each code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as run_pb
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as pb
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.errors import Refusal
from stretto_core.rpc.channel import open_channel
from stretto_core.rpc.status import from_rpc_error, from_status
from stretto_core.telemetry.metrics import Gauge, Registry
from stretto_kernel.kernel_metrics import add_metrics

from tests.integration.kernel.serving import IDS, Served, StreamWorker, served, task
from tests.waiting import until

if TYPE_CHECKING:
    from stretto.work.v1.work_service_pb2_grpc import WorkServiceAsyncStub

LONG = Duration(seconds=60)


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database, polls_max=20) as kernel:
        yield kernel


class UnaryWorker:
    """One worker process that makes unary calls."""

    def __init__(self, channel: grpc.aio.Channel, worker_id: str = "w1") -> None:
        self.work: WorkServiceAsyncStub = WorkServiceStub(channel)
        self.session_id = IDS.uuid7()
        self.worker_id = worker_id

    def lease(
        self,
        request_id: str = "",
        *,
        count: int = 1,
        wait: Duration = LONG,
        timeout: float | None = 30,
    ) -> Any:
        worker = work_pb2.Hello(
            worker_id=self.worker_id, session_id=self.session_id, executors=["test.body"]
        )
        request = pb.LeaseWorkRequest(
            worker=worker,
            request_id=request_id or IDS.uuid7(),
            count_max=count,
            wait_timeout=wait,
        )
        return self.work.LeaseWork(request, timeout=timeout)

    async def leased(self, request_id: str = "", *, count: int = 1) -> list[work_pb2.Assignment]:
        return list((await self.lease(request_id, count=count)).assignments)

    async def renew(self, *tokens: LeaseToken) -> pb.RenewLeasesResponse:
        renewals = [work_pb2.Renewal(token=token) for token in tokens]
        return await self.work.RenewLeases(pb.RenewLeasesRequest(renewals=renewals))

    async def succeed(self, *tokens: LeaseToken, json: str = "1") -> list[str]:
        succeeded = work_pb2.OutcomeSucceeded(result=Payload(json=json))
        outcomes = [work_pb2.Outcome(token=token, succeeded=succeeded) for token in tokens]
        answer = await self.work.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes))
        return reasons(answer.receipts)

    async def release(self, **parts: Any) -> list[str]:
        answer = await self.work.ReleaseWork(pb.ReleaseWorkRequest(**parts))
        return reasons(answer.receipts)


def reasons(receipts: Any) -> list[str]:
    return [
        from_status(receipt.status).reason_word if receipt.status.code else ""
        for receipt in receipts
    ]


async def refusal_of(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def facts_of(kernel: Served, run_id: str) -> list[str]:
    request = log_pb.ReadStreamRequest(stream=run_id)
    events = (await kernel.events.ReadStream(request)).events
    return [event.event.type.rpartition(".")[2] for event in events]


async def test_a_run_from_start_to_end_without_a_stream(kernel: Served) -> None:
    worker = UnaryWorker(kernel.channel)
    poll = worker.lease()
    name = (await kernel.start()).run.name
    (assignment,) = (await poll).assignments
    assert not (await worker.renew(assignment.token)).receipts
    assert await worker.succeed(assignment.token, json='{"x": 1}') == [""]
    run = (await kernel.get(name)).run
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert await worker.succeed(assignment.token, json='{"x": 1}') == [""]
    assert await worker.succeed(assignment.token, json="2") == ["RESULT_CONFLICT"]


async def test_a_poll_ends_empty_before_its_callers_deadline(kernel: Served) -> None:
    worker = UnaryWorker(kernel.channel)
    assert not (await worker.lease(timeout=0.5)).assignments
    assert not (await worker.lease(wait=Duration(nanos=1), timeout=None)).assignments


async def test_calls_cut_at_any_moment_leave_no_lease_with_nobody(kernel: Served) -> None:
    """Each task ends in its first try, whatever was granted to calls that went away.

    What had left the kernel when its call was cut comes back after its TTL, a second here.
    """
    run_count = 40
    once = plan_pb2.RetryPolicy(max_attempts=1)
    short = plan_pb2.Timeouts(heartbeat=Duration(seconds=1))
    ended: set[str] = set()
    runs: list[str] = []
    async with open_channel(kernel.address) as channel:
        worker = UnaryWorker(kernel.channel)
        fickle = UnaryWorker(channel, "fickle")
        for number in range(run_count):
            poll = fickle.lease()
            asyncio.get_running_loop().call_later(number * 0.0003, poll.cancel)
            runs.append((await kernel.start(task("a", retry=once, timeouts=short))).run.run_id)
            with suppress(asyncio.CancelledError):
                for assignment in (await poll).assignments:
                    # Delivered, not begun: it gives it back.
                    assert await fickle.release(tokens=[assignment.token]) == [""]
        while len(ended) < run_count:
            for assignment in await worker.leased(count=10):
                await worker.renew(assignment.token)
                assert assignment.attempt == 1
                assert await worker.succeed(assignment.token) == [""]
                ended.add(assignment.run)
    for run_id in runs:
        facts = await facts_of(kernel, run_id)
        assert facts[-1] == "RunSucceeded"
        assert facts.count("AttemptLeased") == facts.count("AttemptReleased") + 1


async def test_a_call_whose_connection_breaks_leaves_no_lease_with_nobody(kernel: Served) -> None:
    async with open_channel(kernel.address) as channel:
        poll = asyncio.ensure_future(UnaryWorker(channel, "gone").lease())
        await until(lambda: kernel.kernel.partition.polls.poll_count == 1)
    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await poll
    await until(lambda: kernel.kernel.partition.polls.poll_count == 0)
    await kernel.start()
    assert len(await UnaryWorker(kernel.channel).leased()) == 1


async def test_the_same_call_is_answered_the_same(kernel: Served) -> None:
    await kernel.start(task("a"), task("b"))
    worker = UnaryWorker(kernel.channel)
    first = await worker.leased("r1", count=2)
    assert await worker.leased("r1", count=2) == first
    await worker.renew(*(one.token for one in first))
    assert (await refusal_of(worker.lease("r1"))).reason_word == "REQUEST_ID_REUSED"
    waiting = asyncio.ensure_future(worker.lease("r2"))
    await until(lambda: kernel.kernel.partition.polls.poll_count == 1)
    assert (await refusal_of(worker.lease("r2", count=9))).reason_word == "REQUEST_ID_REUSED"
    await worker.release(session_id=worker.session_id, lease_request_ids=["r2"])
    assert not (await waiting).assignments


async def test_every_wrong_field_is_named(kernel: Served) -> None:
    worker = UnaryWorker(kernel.channel)
    hello = work_pb2.Hello(held=[LeaseToken(epoch=1)])
    wrong = pb.LeaseWorkRequest(worker=hello, count_max=-1, wait_timeout=Duration(seconds=-1))
    refusal = await refusal_of(worker.work.LeaseWork(wrong))
    assert {violation.field for violation in refusal.violations} == {  # type: ignore[attr-defined]
        "request_id",
        "count_max",
        "wait_timeout",
        "worker.held",
        "worker.worker_id",
        "worker.session_id",
        "worker.executors",
    }
    token = LeaseToken(work_item="namespaces/default/runs/r/tasks/a", epoch=1)
    many = [token] * 1_001
    renewals = [work_pb2.Renewal(token=token) for token in many]
    outcomes = [work_pb2.Outcome(token=token) for token in many]
    for call in (
        worker.work.RenewLeases(pb.RenewLeasesRequest(renewals=renewals)),
        worker.work.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes)),
        worker.work.ReleaseWork(pb.ReleaseWorkRequest(tokens=many)),
        worker.work.ReleaseWork(pb.ReleaseWorkRequest(lease_request_ids=["r"])),
        worker.work.ReleaseWork(pb.ReleaseWorkRequest(reason="x" * 1_001)),
    ):
        assert (await refusal_of(call)).reason_word == "INVALID_ARGUMENT"
    assert await worker.succeed(LeaseToken(work_item="nothing")) == ["INVALID_ARGUMENT"]
    answer = await worker.renew(LeaseToken(work_item="nothing"), token)
    assert reasons(answer.receipts) == ["INVALID_ARGUMENT", "LEASE_LOST"]


async def test_a_count_beyond_the_limit_is_taken_for_the_limit(kernel: Served) -> None:
    await kernel.start(task("a"), task("b"))
    worker = UnaryWorker(kernel.channel)
    answer = await worker.lease(count=1_000_000, wait=Duration(seconds=3_600))
    assert len(answer.assignments) == 2
    assert answer.renew_interval.seconds > 0


async def test_a_token_under_another_secret_is_refused(kernel: Served) -> None:
    await kernel.start()
    worker = UnaryWorker(kernel.channel)
    (assignment,) = await worker.leased()
    forged = LeaseToken(work_item=assignment.token.work_item, epoch=1, secret=b"x" * 16)
    assert reasons((await worker.renew(forged)).receipts) == ["WRONG_SECRET"]
    assert await worker.release(tokens=[forged, assignment.token]) == ["WRONG_SECRET", ""]
    (again,) = await worker.leased()
    assert (again.token.epoch, again.attempt) == (2, 1)


async def test_an_older_process_is_refused_whatever_carries_the_newer(kernel: Served) -> None:
    await kernel.start()
    older = UnaryWorker(kernel.channel)
    (assignment,) = await older.leased()
    await older.renew(assignment.token)
    stream = StreamWorker(kernel.channel)
    await until(lambda: len(stream.assignments) == 1)
    assert (await refusal_of(older.lease())).reason_word == "SESSION_REPLACED"
    assert reasons((await older.renew(assignment.token)).receipts) == ["LEASE_LOST"]


async def test_calls_are_bounded_with_a_time_to_come_again(kernel: Served) -> None:
    workers = [UnaryWorker(kernel.channel, f"w{number}") for number in range(21)]
    polls = [asyncio.ensure_future(worker.lease()) for worker in workers[:20]]
    await until(lambda: kernel.kernel.partition.polls.poll_count == 20)
    refusal = await refusal_of(workers[20].lease())
    assert refusal.reason_word == "OVERLOADED"
    assert refusal.retry_delay_ms is not None
    for poll in polls:
        poll.cancel()
    await until(lambda: kernel.kernel.partition.polls.poll_count == 0)


async def test_a_draining_kernel_says_so(kernel: Served) -> None:
    await kernel.start()
    worker = UnaryWorker(kernel.channel)
    (assignment,) = await worker.leased()
    waiting = asyncio.ensure_future(worker.lease())
    await until(lambda: kernel.kernel.partition.polls.poll_count == 1)
    draining = asyncio.ensure_future(kernel.kernel.drain("the kernel is ending", 30))
    assert not (await waiting).assignments
    refusal = await refusal_of(worker.lease())
    assert refusal.reason_word == "DRAINING"
    assert refusal.retry_delay_ms is not None
    answer = await worker.renew(assignment.token)
    assert (answer.drain.reason, list(answer.receipts)) == ("the kernel is ending", [])
    assert await worker.succeed(assignment.token) == [""]
    await draining


async def test_a_cancel_reaches_a_worker_without_a_stream(kernel: Served) -> None:
    name = (await kernel.start()).run.name
    worker = UnaryWorker(kernel.channel)
    (assignment,) = await worker.leased()
    await kernel.runs.CancelRun(run_pb.CancelRunRequest(name=name, request_id="c", reason="no"))
    (signal,) = (await worker.renew(assignment.token)).signals
    assert (signal.kind, signal.reason) == (work_pb2.SIGNAL_KIND_CANCEL, "no")
    cancelled = work_pb2.Outcome(token=assignment.token, cancelled=work_pb2.OutcomeCancelled())
    await worker.work.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=[cancelled]))
    assert (await kernel.get(name)).run.state == run_pb2.RUN_STATE_CANCELLED


async def test_a_task_spawns_with_its_result_or_before(kernel: Served) -> None:
    name = (await kernel.start(task("a", may_spawn=True))).run.name
    worker = UnaryWorker(kernel.channel)
    (assignment,) = await worker.leased()
    spawn = work_pb2.Spawn(token=assignment.token, request_id="s", tasks=[task("early")])
    refused = work_pb2.Spawn(
        token=assignment.token, request_id="t", tasks=[task("early", priority=1)]
    )
    succeeded = work_pb2.OutcomeSucceeded(spawned=[task("late")])
    outcome = work_pb2.Outcome(token=assignment.token, succeeded=succeeded)
    answer = await worker.work.ReportOutcomes(
        pb.ReportOutcomesRequest(spawns=[spawn, refused], outcomes=[outcome])
    )
    assert reasons(answer.receipts) == ["", "TASK_CONFLICT", ""]
    assert [receipt.request_id for receipt in answer.receipts] == ["s", "t", ""]
    children = await worker.leased(count=2)
    while len(children) < 2:
        children += await worker.leased(count=2)
    assert {child.task for child in children} == {"a/early", "a/late"}
    assert await worker.succeed(*(child.token for child in children)) == ["", ""]
    assert (await kernel.get(name)).run.state == run_pb2.RUN_STATE_SUCCEEDED
    (plain,) = [await one_lease_of(kernel, worker)]
    forbidden = work_pb2.Spawn(token=plain.token, request_id="u", tasks=[task("x")])
    answer = await worker.work.ReportOutcomes(pb.ReportOutcomesRequest(spawns=[forbidden]))
    assert reasons(answer.receipts) == ["SPAWN_NOT_ALLOWED"]


async def one_lease_of(kernel: Served, worker: UnaryWorker) -> work_pb2.Assignment:
    await kernel.start(task("plain"))
    (assignment,) = await worker.leased()
    return assignment


async def test_polls_are_counted(kernel: Served) -> None:
    registry = Registry()
    add_metrics(registry, kernel.kernel)
    worker = UnaryWorker(kernel.channel)
    await worker.lease(wait=Duration())
    await kernel.start()
    await worker.leased()
    waiting = asyncio.ensure_future(worker.lease())
    await until(lambda: kernel.kernel.partition.polls.poll_count == 1)
    shown = {
        family.name.removeprefix("stretto_kernel_"): metric.current()
        for family in registry.families()
        for metric in family.by_labels.values()
        if isinstance(metric, Gauge)
    }
    names = ("polls_waiting", "polls_granted", "polls_empty", "polled_leases_undelivered")
    assert [shown[name] for name in names] == [1, 1, 1, 0]
    waiting.cancel()
