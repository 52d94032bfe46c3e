"""The SDK's Worker against a kernel double over real gRPC: bodies, context, stream, drain."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import code_pb2
from stretto.common.v1 import payload_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire
from stretto.worker.v1 import worker_control_service_pb2 as messages
from stretto.worker.v1 import worker_control_service_pb2_grpc as control
from stretto_core.errors import Exhausted, Refusal, Unavailable
from stretto_sdk import RetryLater, SpawnRefused, TaskContext, TaskFailed, TaskResult, Worker
from stretto_sdk.worker.link import GrpcDialer
from stretto_sdk.worker.runtime import DrainLimits, Ended

from tests.integration.worker.kernel_double import KernelDouble, receipts

WAIT_S = 20.0


class Running:
    """A worker that serves in this process."""

    def __init__(self, served: asyncio.Task[Ended]) -> None:
        self.served = served


@asynccontextmanager
async def serving(kernel: KernelDouble, worker: Worker) -> AsyncIterator[Running]:
    running = Running(asyncio.create_task(worker.serve()))
    hello_count = len(kernel.hellos)
    await kernel.seen(lambda each: len(each.hellos) > hello_count)
    try:
        yield running
    finally:
        running.served.cancel()
        await asyncio.wait([running.served])


def a_worker(kernel: KernelDouble, **options: object) -> Worker:
    return Worker(kernel.address, name="w", **options)  # type: ignore[arg-type]


def calling(name: str) -> str:
    return json.dumps({"function": name})


async def test_a_stream_that_ended_is_a_refusal_to_whoever_reads_or_writes(
    kernel: KernelDouble,
) -> None:
    dialer = GrpcDialer(kernel.address)
    link = await dialer.dial()
    await link.send(wire.WorkRequest(hello=work_pb2.Hello()))
    await kernel.seen(lambda each: len(each.hellos) == 1)
    await link.receive()
    kernel.refusal = Exhausted("full", reason="SUBSCRIBER_TOO_SLOW")
    kernel.cut()
    with pytest.raises(Unavailable):
        await link.receive()
    with pytest.raises(Unavailable):
        await link.send(wire.WorkRequest())
    refused = await dialer.dial()
    with pytest.raises(Exhausted):
        await refused.receive()
    with pytest.raises(Refusal):
        await refused.send(wire.WorkRequest())
    await dialer.close()


async def test_a_function_gets_its_inputs_by_name_and_returns_the_result(
    kernel: KernelDouble,
) -> None:
    worker = a_worker(kernel)

    @worker.task
    async def greet(ctx: TaskContext, name: str, times: int = 1) -> list[str]:
        assert (ctx.run, ctx.task) == ("namespaces/default/runs/p0-1", "a")
        assert (ctx.attempt, ctx.activation, ctx.epoch) == (1, 1, 1)
        assert ctx.idempotency_key == "namespaces/default/runs/p0-1/tasks/a@1"
        return [f"Hello, {name}!"] * times

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("greet"), name='"Ann"', times="2")
        outcome = await kernel.outcome("a")
    assert json.loads(outcome.succeeded.result.json) == ["Hello, Ann!"] * 2


async def _fails_for_good(ctx: TaskContext) -> None:
    raise TaskFailed("CARD_DECLINED", "no", retryable=False, details={"code": 51})


async def _breaks(ctx: TaskContext) -> None:
    raise ZeroDivisionError("by zero")


async def _returns_no_json(ctx: TaskContext) -> object:
    return object()


async def _returns_much(ctx: TaskContext) -> str:
    return "x" * 70_000


async def _wants_more(ctx: TaskContext, more: int) -> None: ...


async def _exits(ctx: TaskContext) -> None:
    raise SystemExit(3)


async def _has_a_task_that_exits(ctx: TaskContext) -> None:
    await asyncio.create_task(_exits(ctx))


class _Unreadable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


async def _raises_what_cannot_be_read(ctx: TaskContext) -> None:
    raise _Unreadable


async def _says_what_is_no_text(ctx: TaskContext) -> None:
    raise TaskFailed("http 404 \ud800", ValueError("a cause"))  # type: ignore[arg-type]


async def _spawns_no_list(ctx: TaskContext) -> TaskResult:
    return TaskResult(spawn=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "reason", "retryable"),
    [
        (_fails_for_good, "CARD_DECLINED", False),
        (_breaks, "ZERO_DIVISION_ERROR", True),
        (_returns_no_json, "INVALID_RESULT", False),
        (_returns_much, "RESULT_NOT_STORED", False),  # The double keeps no blobs.
        (_wants_more, "INVALID_INPUTS", False),
        (_exits, "SYSTEM_EXIT", True),
        (_has_a_task_that_exits, "SYSTEM_EXIT", True),
        (_raises_what_cannot_be_read, "UNREADABLE", True),
        (_says_what_is_no_text, "HTTP_404", True),
        (_spawns_no_list, "TYPE_ERROR", True),
        (None, "FUNCTION_UNKNOWN", False),
    ],
)
async def test_failures_say_why_and_whether_to_retry(
    kernel: KernelDouble, function: object, reason: str, retryable: bool
) -> None:
    worker = a_worker(kernel)
    if function is not None:
        worker.task(name="f")(function)  # type: ignore[type-var]
    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("f"))
        failed = (await kernel.outcome("a")).failed
        kernel.assign("b", arguments=calling("f"))
        again = (await kernel.outcome("b")).failed  # It cost the worker nothing.
    assert (failed.reason, failed.retryable) == (reason, retryable)
    assert again.reason == reason


async def test_a_traceback_begins_with_the_body(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)
    worker.task(name="f")(_breaks)
    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("f"))
        failed = (await kernel.outcome("a")).failed
    traceback = json.loads(failed.details.json)["traceback"].splitlines()
    assert "in _breaks" in traceback[1]
    assert traceback[-1].startswith("ZeroDivisionError")


async def test_a_body_may_say_when_to_come_back(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)

    @worker.task
    async def used_up(ctx: TaskContext) -> None:
        raise RetryLater(after="1m30s", message="The quota is used up.")

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("used_up"))
        failed = (await kernel.outcome("a")).failed
    assert (failed.reason, failed.retryable) == ("RETRY_LATER", True)
    assert failed.retry_after.ToSeconds() == 90


async def test_an_unknown_field_or_executor_fails_for_good(kernel: KernelDouble) -> None:
    async with serving(kernel, a_worker(kernel)):
        kernel.assign("a", arguments='{"funktion": "f"}')
        kernel.assign("b", executor="python3")
        first, second = await kernel.outcome("a"), await kernel.outcome("b")
    assert first.failed.reason == "INVALID_ARGUMENTS"
    assert 'did you mean "function"?' in first.failed.message
    assert second.failed.reason == "UNKNOWN_EXECUTOR"


async def test_a_body_that_blocks_starves_no_renewal_and_no_control_answer(
    kernel: KernelDouble,
) -> None:
    worker = a_worker(kernel)
    blocked, release = threading.Event(), threading.Event()

    @worker.task
    async def block(ctx: TaskContext) -> str:
        blocked.set()
        assert release.wait(WAIT_S)  # Blocks the bodies' loop, as a careless body does.
        return "done"

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("block"), ttl_s=1)
        await kernel.seen(lambda _: blocked.is_set())
        seen_count = len(kernel.renewals)
        await kernel.seen(lambda each: len(each.renewals) >= seen_count + 2)
        async with grpc.aio.insecure_channel(kernel.hellos[0].control_address) as channel:
            stub = control.WorkerControlServiceStub(channel)
            answer = await stub.Identify(messages.IdentifyRequest())
            assert answer.session_id == kernel.hellos[0].session_id
        assert not kernel.outcomes
        release.set()
        await kernel.outcome("a")


async def test_heartbeat_details_travel_and_the_last_come_back(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)
    ended = threading.Event()

    @worker.task
    async def count(ctx: TaskContext) -> object:
        ctx.heartbeat({"row": 41})
        assert await asyncio.to_thread(ended.wait, WAIT_S)
        return ctx.last_details

    async with serving(kernel, worker):
        frame = wire.WorkResponse()
        assignment = frame.assignments.add(kind=1, executor="python", task="a")
        assignment.token.work_item, assignment.token.epoch = "a", 2
        assignment.arguments_json = calling("count")
        assignment.last_details.CopyFrom(payload_pb2.Payload(json='{"row":40}'))
        kernel.say(frame)
        await kernel.seen(lambda each: any(r.HasField("details") for r in each.renewals))
        ended.set()
        outcome = await kernel.outcome("a")
    details = next(each.details for each in kernel.renewals if each.HasField("details"))
    assert json.loads(details.json) == {"row": 41}
    assert json.loads(outcome.succeeded.result.json) == {"row": 40}


async def test_spawned_tasks_are_awaited_or_come_with_the_result(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)
    spec = {"name": "child", "executor": "python", "arguments": {"function": "f"}}

    @worker.task
    async def fan(ctx: TaskContext) -> TaskResult:
        await ctx.spawn([spec])
        try:
            await ctx.spawn([spec])
        except SpawnRefused as refusal:
            return TaskResult(refusal.reason_word, spawn=[{**spec, "name": "late"}])
        raise AssertionError("the second spawn was not refused")

    def answer(code: int) -> None:
        spawn = kernel.spawns[-1]
        frame = wire.WorkResponse()
        receipt = frame.receipts.add(token=spawn.token, request_id=spawn.request_id)
        receipt.kind, receipt.status.code = work_pb2.RECEIPT_KIND_SPAWN, code
        kernel.say(frame)

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("fan"))
        await kernel.seen(lambda each: len(each.spawns) == 1)
        assert kernel.spawns[0].tasks[0].name == "child"
        answer(0)
        await kernel.seen(lambda each: len(each.spawns) == 2)
        answer(code_pb2.ALREADY_EXISTS)
        succeeded = (await kernel.outcome("a")).succeeded
    assert succeeded.result.json == '"ALREADY_EXISTS"'
    assert [task.name for task in succeeded.spawned] == ["late"]


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (work_pb2.SIGNAL_KIND_CANCEL, "cancelled"),
        (work_pb2.SIGNAL_KIND_INTERRUPT, "released"),
    ],
)
async def test_a_stopped_body_cleans_up_and_reports_it(
    kernel: KernelDouble, kind: work_pb2.SignalKind.ValueType, result: str
) -> None:
    worker = a_worker(kernel)
    begun, cleaned = threading.Event(), threading.Event()

    @worker.task
    async def forever(ctx: TaskContext) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled.is_set()
            cleaned.set()

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("forever"))
        await kernel.seen(lambda _: begun.is_set())
        kernel.signal("a", kind)
        outcome = await kernel.outcome("a")
    assert outcome.WhichOneof("result") == result
    assert cleaned.is_set()


async def test_a_cooperative_body_may_finish_after_a_cancel(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)

    @worker.task(cooperative=True)
    async def tidy(ctx: TaskContext) -> str:
        await ctx.cancelled.wait()
        return "tidied"

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("tidy"))
        await kernel.seen(lambda each: any(frame.acknowledged for frame in each.frames))
        kernel.signal("a", work_pb2.SIGNAL_KIND_CANCEL)
        assert (await kernel.outcome("a")).succeeded.result.json == '"tidied"'


async def test_a_body_lives_through_a_lost_stream_and_its_outcome_is_sent_until_received(
    kernel: KernelDouble,
) -> None:
    worker = a_worker(kernel)
    go_on = threading.Event()

    @worker.task
    async def once(ctx: TaskContext) -> int:
        assert await asyncio.to_thread(go_on.wait, WAIT_S)
        return 1

    kernel.answers_outcomes = False
    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("once"))
        await kernel.seen(lambda each: any(frame.acknowledged for frame in each.frames))
        await kernel.stop()
        go_on.set()
        await kernel.start()
        await kernel.seen(lambda each: len(each.hellos) == 2)
        await kernel.outcome("a")
        kernel.cut()
        await kernel.seen(lambda each: len(each.outcomes) == 2)
        kernel.say(receipts(kernel.outcomes[:1]))
        kernel.cut()
        await kernel.seen(lambda each: len(each.hellos) == 4)
    held = [[token.work_item for token in hello.held] for hello in kernel.hellos]
    assert held == [[], ["a"], ["a"], []]
    assert kernel.outcomes[0] == kernel.outcomes[1]


async def test_a_drain_hands_back_what_does_not_finish_in_time(kernel: KernelDouble) -> None:
    worker = a_worker(kernel, drain=DrainLimits(finish_s=0.0, hand_back_s=WAIT_S))

    @worker.task
    async def forever(ctx: TaskContext) -> None:
        await asyncio.Event().wait()

    async with serving(kernel, worker) as running:
        kernel.assign("a", arguments=calling("forever"))
        await kernel.seen(lambda each: any(frame.acknowledged for frame in each.frames))
        async with grpc.aio.insecure_channel(kernel.hellos[0].control_address) as channel:
            stub = control.WorkerControlServiceStub(channel)
            await stub.DrainWorker(messages.DrainWorkerRequest())
        assert (await kernel.outcome("a")).HasField("released")
        assert await running.served is Ended.DRAINED
    assert kernel.goodbye_count == 1


async def test_credits_follow_the_slots(kernel: KernelDouble) -> None:
    worker = a_worker(kernel, slots=2)

    @worker.task
    async def quick(ctx: TaskContext) -> None: ...

    async with serving(kernel, worker):
        assert kernel.frames[0].credit_total_count == 2
        for index in range(20):
            credit = kernel.frames[0].credit_total_count + index
            await kernel.seen(lambda each, c=credit: each.frames[-1].credit_total_count >= c)  # type: ignore[misc]
            kernel.assign(f"t{index}", arguments=calling("quick"))
        await kernel.seen(lambda each: len(each.outcomes) == 20)
    assert all(outcome.HasField("succeeded") for outcome in kernel.outcomes)


def test_a_queue_is_not_taken_for_its_letters() -> None:
    with pytest.raises(TypeError, match=r"queues=\['mine'\]"):
        Worker("localhost:1", queues="mine")


def test_a_function_that_cannot_be_a_task_is_refused_when_registered() -> None:
    worker = Worker("localhost:1")
    with pytest.raises(TypeError, match="no function"):
        worker.task(name="f")(print)
    for contextless in (lambda: 1, lambda *, ctx: ctx):
        with pytest.raises(TypeError, match="takes no context"):
            worker.task(name="f")(contextless)
    worker.task(name="f")(_breaks)
    with pytest.raises(ValueError, match="two task functions"):
        worker.task(name="f")(_breaks)
