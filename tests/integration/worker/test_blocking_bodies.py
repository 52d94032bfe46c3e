"""Blocking task functions in threads: what they see, how they stop, and what holds their slot."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire
from stretto.worker.v1 import worker_control_service_pb2 as messages
from stretto.worker.v1 import worker_control_service_pb2_grpc as control
from stretto_sdk import SyncTaskContext, TaskCancelled, TaskContext, Worker
from stretto_sdk.worker.runtime import DrainLimits, Ended

from tests.integration.worker.conftest import environment
from tests.integration.worker.kernel_double import KernelDouble
from tests.integration.worker.test_sdk_worker import WAIT_S, a_worker, calling, serving
from tests.waiting import until


class Gate:
    """A body that blocks until the test lets it go on, and hears of nothing meanwhile."""

    def __init__(self) -> None:
        self.begun, self.opened, self.ended = (threading.Event() for _ in range(3))

    def body(self, ctx: SyncTaskContext) -> str:
        self.begun.set()
        assert self.opened.wait(WAIT_S)
        self.ended.set()
        return "done"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


async def test_a_plain_function_runs_in_a_thread_with_its_inputs(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)
    seen: list[object] = []

    @worker.task
    def greet(ctx: SyncTaskContext, name: str, times: int = 1) -> list[str]:
        seen.extend((ctx.run, ctx.task, ctx.attempt, ctx.activation, ctx.epoch, ctx.deadline))
        seen.append(ctx.idempotency_key)
        seen.append(threading.current_thread().name)
        ctx.log.info("greeted")
        return [f"Hello, {name}!"] * times

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("greet"), name='"Ann"', times="2")
        outcome = await kernel.outcome("a")
    assert json.loads(outcome.succeeded.result.json) == ["Hello, Ann!"] * 2
    run = "namespaces/default/runs/p0-1"
    assert seen == [run, "a", 1, 1, 1, None, f"{run}/tasks/a@1", "stretto-body-1"]


async def test_as_many_block_as_there_are_slots_and_starve_neither_renewals_nor_other_bodies(
    kernel: KernelDouble,
) -> None:
    worker = a_worker(kernel, slots=5)
    together, opened = threading.Barrier(5), threading.Event()

    @worker.task
    def block(ctx: SyncTaskContext) -> None:
        together.wait(WAIT_S)
        assert opened.wait(WAIT_S)

    @worker.task
    async def quick(ctx: TaskContext) -> str:
        return "quick"

    async with serving(kernel, worker):
        for index in range(4):
            kernel.assign(f"b{index}", arguments=calling("block"), ttl_s=1)
        await asyncio.to_thread(together.wait, WAIT_S)
        renewed_count = len(kernel.renewals)
        await kernel.seen(lambda each: len(each.renewals) >= renewed_count + 8)
        kernel.assign("q", arguments=calling("quick"))
        assert (await kernel.outcome("q")).succeeded.result.json == '"quick"'
        opened.set()
        for index in range(4):
            await kernel.outcome(f"b{index}")


def _heartbeats(ctx: SyncTaskContext) -> None:
    while True:
        ctx.heartbeat("on my way")
        assert not ctx.cancelled.wait(0.001) or ctx.stop_kind is not None


def _heartbeats_and_takes_every_exception(ctx: SyncTaskContext) -> None:
    while True:
        try:
            ctx.heartbeat()
        except Exception as error:
            raise AssertionError from error


def _tidies_up_and_returns(ctx: SyncTaskContext) -> str:
    assert ctx.cancelled.wait(WAIT_S)
    return "tidied"


@pytest.mark.parametrize(
    ("kind", "body", "result"),
    [
        (work_pb2.SIGNAL_KIND_CANCEL, _heartbeats, "cancelled"),
        (work_pb2.SIGNAL_KIND_INTERRUPT, _heartbeats, "released"),
        (work_pb2.SIGNAL_KIND_CANCEL, _heartbeats_and_takes_every_exception, "cancelled"),
        (work_pb2.SIGNAL_KIND_CANCEL, _tidies_up_and_returns, "succeeded"),
    ],
)
async def test_a_body_that_is_asked_to_stop_hears_it_at_its_next_heartbeat(
    kernel: KernelDouble,
    kind: work_pb2.SignalKind.ValueType,
    body: Callable[[SyncTaskContext], object],
    result: str,
) -> None:
    worker = a_worker(kernel)
    begun = threading.Event()

    @worker.task(name="f")
    def f(ctx: SyncTaskContext) -> object:
        begun.set()
        return body(ctx)

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("f"))
        await until(begun.is_set)
        kernel.signal("a", kind)
        assert (await kernel.outcome("a")).WhichOneof("result") == result


async def test_one_that_hears_nothing_keeps_its_slot_past_its_lease_and_its_result_is_dropped(
    kernel: KernelDouble, gate: Gate
) -> None:
    worker = a_worker(kernel, slots=1)
    worker.task(name="block")(gate.body)

    @worker.task
    async def quick(ctx: TaskContext) -> None: ...

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("block"))
        await until(gate.begun.is_set)
        kernel.signal("a", work_pb2.SIGNAL_KIND_REVOKE)
        # Assigned all the same, the next task finds no slot and is given back.
        kernel.assign("b", arguments=calling("quick"))
        assert (await kernel.outcome("b")).HasField("released")
        assert kernel.frames[-1].credit_total_count == 2  # The task given back made room again.
        gate.opened.set()
        await kernel.seen(lambda each: each.frames[-1].credit_total_count == 3)
        assert gate.ended.is_set()
        kernel.assign("c", arguments=calling("quick"))
        assert (await kernel.outcome("c")).HasField("succeeded")
    assert [outcome.token.work_item for outcome in kernel.outcomes] == ["b", "c"]


async def test_the_deadline_is_the_attempts_or_the_sooner_one_of_a_cancel(
    kernel: KernelDouble,
) -> None:
    worker = a_worker(kernel)
    late, soon = datetime(2100, 1, 2, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    seen: list[datetime | None] = []
    begun = threading.Event()

    @worker.task
    def look(ctx: SyncTaskContext) -> None:
        seen.append(ctx.deadline)
        begun.set()
        assert ctx.cancelled.wait(WAIT_S)
        seen.append(ctx.deadline)

    async with serving(kernel, worker):
        frame = wire.WorkResponse()
        assignment = frame.assignments.add(kind=1, executor="python", task="a")
        assignment.token.work_item, assignment.token.epoch = "a", 1
        assignment.arguments_json = calling("look")
        assignment.attempt_deadline_time.FromDatetime(late)
        kernel.say(frame)
        await until(begun.is_set)
        frame = wire.WorkResponse()
        signal = frame.signals.add(token=assignment.token, kind=work_pb2.SIGNAL_KIND_CANCEL)
        signal.deadline_time.FromDatetime(soon)
        kernel.say(frame)
        await kernel.outcome("a")
    assert [each and each - late for each in seen] == [timedelta(0), soon - late]


async def test_it_spawns_and_waits_for_the_answer(kernel: KernelDouble) -> None:
    worker = a_worker(kernel)

    @worker.task
    def fan(ctx: SyncTaskContext) -> str:
        ctx.spawn([{"name": "child", "executor": "python", "arguments": {"function": "f"}}])
        return "spawned"

    async with serving(kernel, worker):
        kernel.assign("a", arguments=calling("fan"))
        await kernel.seen(lambda each: len(each.spawns) == 1)
        assert not kernel.outcomes
        spawn, frame = kernel.spawns[0], wire.WorkResponse()
        receipt = frame.receipts.add(token=spawn.token, request_id=spawn.request_id)
        receipt.kind = work_pb2.RECEIPT_KIND_SPAWN
        kernel.say(frame)
        assert (await kernel.outcome("a")).succeeded.result.json == '"spawned"'


async def _is_meant_to_be_awaited(ctx: object) -> None: ...


class _OddError(BaseException): ...


def _raises(error: BaseException) -> Callable[[SyncTaskContext], None]:
    def body(ctx: SyncTaskContext) -> None:
        raise error

    return body


def _returns_a_coroutine(ctx: SyncTaskContext) -> Any:
    return _is_meant_to_be_awaited(ctx)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (_raises(ZeroDivisionError()), "ZERO_DIVISION_ERROR"),
        (_raises(SystemExit(3)), "SYSTEM_EXIT"),
        (_raises(StopIteration()), "RUNTIME_ERROR"),
        (_raises(_OddError()), "ODD_ERROR"),
        (_returns_a_coroutine, "INVALID_RESULT"),
    ],
)
async def test_whatever_it_raises_is_a_failure_and_costs_the_worker_nothing(
    kernel: KernelDouble, body: Callable[[SyncTaskContext], Any], reason: str
) -> None:
    worker = a_worker(kernel, slots=1)
    worker.task(name="f")(body)
    async with serving(kernel, worker):
        for item in ("a", "b"):
            kernel.assign(item, arguments=calling("f"))
            assert (await kernel.outcome(item)).failed.reason == reason


async def test_a_drain_waits_for_it_within_its_bounds_and_leaves(
    kernel: KernelDouble, gate: Gate
) -> None:
    worker = a_worker(kernel, drain=DrainLimits(finish_s=0.0, hand_back_s=0.0))
    worker.task(name="block")(gate.body)
    async with serving(kernel, worker) as running:
        kernel.assign("a", arguments=calling("block"))
        await until(gate.begun.is_set)
        async with grpc.aio.insecure_channel(kernel.hellos[0].control_address) as channel:
            stub = control.WorkerControlServiceStub(channel)
            await stub.DrainWorker(messages.DrainWorkerRequest())
        assert await asyncio.wait_for(running.served, WAIT_S) is Ended.DRAINED
        assert not gate.ended.is_set()
    assert kernel.goodbye_count == 1
    assert not kernel.outcomes


PROGRAM = """
import sys, threading
from stretto_sdk import Worker
from stretto_sdk.worker.runtime import DrainLimits

worker = Worker(sys.argv[1], name="w", drain=DrainLimits(finish_s=0.0, hand_back_s=0.0))

@worker.task
def never_returns(ctx):
    ctx.heartbeat("begun")
    threading.Event().wait()

worker.run()
"""


async def test_a_body_that_never_returns_does_not_keep_its_process(kernel: KernelDouble) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, kernel.address, env=environment()
    )
    try:
        await kernel.seen(lambda each: bool(each.hellos))
        kernel.assign("a", arguments=calling("never_returns"))
        await kernel.seen(lambda each: any(r.HasField("details") for r in each.renewals))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), WAIT_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _yields(ctx: SyncTaskContext) -> Iterator[int]:
    yield 1


def test_a_function_that_yields_is_no_task() -> None:
    with pytest.raises(TypeError, match="yields"):
        Worker("localhost:1").task(_yields)


def test_a_stop_is_not_taken_for_a_failure_of_the_work() -> None:
    assert not issubclass(TaskCancelled, Exception)
