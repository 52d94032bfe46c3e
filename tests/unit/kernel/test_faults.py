"""What survives what inside one kernel: stepped clocks, failed folds, processes that come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2, plan_pb2, run_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import RunId, StreamId, TaskName
from stretto_kernel.app import ended_runs
from stretto_kernel.app.recovery import ActiveRuns, find_active_runs
from stretto_kernel.dispatch.death_watch import DialResult
from stretto_kernel.dispatch.session import FRAME_BYTES_MAX, WorkSession
from stretto_kernel.domain.run import commands
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import KernelLimits, KernelPorts, OwnedPartition

from tests.unit.kernel.harness import (
    Dialer,
    FrameWorker,
    PlannedFaults,
    get,
    graph,
    new_store,
    start,
    start_kernel,
    task,
    types_of,
)
from tests.unit.kernel.test_kernel import leased, steer, steering
from tests.waiting import until


class SteppedClock(SystemClock):
    """The system's clock, whose wall can be set."""

    stepped_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.stepped_ns


@pytest.fixture
def store() -> MemoryStore:
    return new_store()


@pytest.fixture
def faults() -> PlannedFaults:
    return PlannedFaults()


@pytest.fixture
def dialer() -> Dialer:
    return Dialer()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def kernel(
    store: MemoryStore, faults: PlannedFaults, dialer: Dialer, clock: SteppedClock
) -> AsyncIterator[Kernel]:
    kernel = await start_kernel(store, faults=faults, dialer=dialer, clock=clock)
    yield kernel
    await kernel.stop()


async def test_a_task_timeout_runs_on_in_a_held_run_that_is_folded_again(
    store: MemoryStore,
) -> None:
    older = await start_kernel(store)
    plan = graph(task("a", timeouts={"task": Duration(nanos=NS_PER_S // 5)}))
    run_id = (await start(older, plan)).answer.run_id
    await steer(older, run_id, steering(older, commands.PlaceHold, hold_id="h"))
    older.abandon()
    newer = await start_kernel(store, exclusive=False)
    await until(lambda: types_of(store)[-1] == "RunFailed", deadline_s=3)
    await newer.stop()


async def test_a_clock_set_back_keeps_nothing_waiting(kernel: Kernel, clock: SteppedClock) -> None:
    """What became ready by a fact of the future is ready."""
    worker = FrameWorker(kernel)
    run_id = (
        await start(kernel, graph(task("a"), task("b", dependencies=[{"task": "a"}])))
    ).answer.run_id
    first = await leased(worker)
    clock.stepped_ns = -3_600 * NS_PER_S
    worker.succeed(first.token)
    second = await leased(worker, 2)
    worker.succeed(second.token)
    await until(lambda: len(worker.receipts) == 2)
    assert (await get(kernel, run_id)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_process_that_says_hello_again_is_not_gone(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults, dialer: Dialer
) -> None:
    """A proof of death that its own hello belies must not follow its later leases."""
    dialer.answers["host:1"] = DialResult.REFUSED
    worker = FrameWorker(kernel, control_address="host:1")
    run_id = (await start(kernel)).answer.run_id
    await leased(worker)
    worker.cut()
    await until(lambda: "AttemptLost" in types_of(store))
    again = FrameWorker(kernel, session_id=worker.session_id)
    token = (await leased(again)).token
    faults.next = [AppendFault(Fault.REFUSED)]
    await steer(kernel, run_id, steering(kernel, commands.PlaceHold, hold_id="h"))
    await until(lambda: "HoldPlaced" in types_of(store))
    again.succeed(token)
    await until(lambda: len(again.receipts) == 1)
    assert again.receipts[0].status.code == 0
    assert types_of(store).count("AttemptLost") == 1


async def test_a_run_that_cannot_be_folded_does_not_keep_others_from_it(store: MemoryStore) -> None:
    older = await start_kernel(store)
    broken = [(await start(older)).answer.run_id for _ in range(8)]
    await start(older)
    older.abandon()
    for run_id in broken:
        events = store.stream_events(StreamId(run_id))
        events[0] = events[0]._replace(stored_bytes=b"")
    newer = await start_kernel(store, exclusive=False)
    worker = FrameWorker(newer)
    await leased(worker)
    await until(lambda: newer.partition.folds.recovery_streams_left == len(broken))
    await newer.stop()


async def test_a_run_half_decided_is_forgotten_not_continued(
    kernel: Kernel, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours between two facts of one command must leave no gap in the stream."""
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    token = (await leased(worker)).token
    host = kernel.partition.host
    run = host.find(RunId(run_id))
    assert run is not None
    encode = Codec.encode

    def stumble(codec: Codec, event: Message, **rest: Any) -> NewEvent:
        if isinstance(event, events_pb2.RunSucceeded):
            raise RuntimeError("a bug")
        return encode(codec, event, **rest)

    monkeypatch.setattr(Codec, "encode", stumble)
    done = commands.Complete(now_ns=kernel.ports.clock.now_ns(), task=TaskName("a"), epoch=1)
    with pytest.raises(RuntimeError):
        host.take(run, done, host.facts.kernel_cause(run))
    monkeypatch.undo()
    assert (await get(kernel, run_id)).state == run_pb2.RUN_STATE_RUNNING
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    versions = [event.version for event in store.events if event.stream == run_id]
    assert versions == [1, 2, 3, 4]


async def test_a_shorter_grace_is_told_to_holders(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    plan = graph(
        task("a"),
        task("b", retry={"max_attempts": 1}),
        failure_policy=plan_pb2.FAILURE_POLICY_FAIL_FAST,
    )
    run_id = (await start(kernel, plan)).answer.run_id
    await leased(worker, 2)
    failing = next(one for one in worker.assignments if one.task == "b")
    worker.say(outcomes=[work_pb2.Outcome(token=failing.token, failed=Failure(reason="X"))])
    await until(lambda: len(worker.signals) == 1)
    cancel = steering(kernel, commands.Cancel, grace_ns=NS_PER_S)
    await steer(kernel, run_id, cancel)
    await until(lambda: len(worker.signals) == 2)
    before, after = (signal.deadline_time.ToNanoseconds() for signal in worker.signals)
    assert after < before
    assert {signal.kind for signal in worker.signals} == {work_pb2.SIGNAL_KIND_CANCEL}


async def test_a_frame_stays_within_a_message() -> None:
    session = WorkSession(1, 0)
    session.welcome([])
    half = "x" * (FRAME_BYTES_MAX // 2 + 1)
    for number in range(3):
        assignment = work_pb2.Assignment(inputs={"a": Payload(json=half)})
        assignment.token.epoch = number
        session.assign(assignment, 0)
    frames = []
    while (frame := session.next_frame(1)) is not None:
        frames.append(frame)
    assert sum(len(frame.assignments) for frame in frames) == 3
    assert max(frame.ByteSize() for frame in frames) <= FRAME_BYTES_MAX


async def test_a_view_of_the_future_is_no_view(kernel: Kernel) -> None:
    """After the record was restored from a backup a view may know positions that it has not."""
    run_id = (await start(kernel)).answer.run_id

    class Future:
        async def active_runs(self) -> ActiveRuns:
            return ActiveRuns(1_000, ())

    assert [run.run_id for run in await find_active_runs(kernel.ports.log, Future())] == [run_id]


async def test_ended_runs_in_memory_are_bounded_by_their_tasks(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_runs, "TASKS_MAX", 10)
    run_ids = []
    for _ in range(5):
        plan = graph(*(task(f"t{number}") for number in range(4)))
        run_ids.append((await start(kernel, plan)).answer.run_id)
        await steer(kernel, run_ids[-1], steering(kernel, commands.Kill))
    assert kernel.partition.host.run_count == 2
    for run_id in run_ids:
        assert (await get(kernel, run_id)).state == run_pb2.RUN_STATE_KILLED
    assert kernel.partition.host.run_count == 2


async def test_a_kernel_goes_on_trying_to_own_its_partition(
    kernel: Kernel, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after what nobody foresaw: else it would look alive and serve nobody."""
    run_id = (await start(kernel)).answer.run_id
    acquire = OwnedPartition.acquire
    failures = [RuntimeError("a bug"), RuntimeError("again")]

    async def stumble(ports: KernelPorts, limits: KernelLimits) -> OwnedPartition:
        if failures:
            raise failures.pop()
        return await acquire(ports, limits)

    thief = await start_kernel(store, exclusive=False)
    await thief.stop()
    monkeypatch.setattr(OwnedPartition, "acquire", stumble)
    with pytest.raises(Refusal):
        await get(kernel, run_id)
    await until(lambda: kernel.is_owner and not failures)
    assert (await get(kernel, run_id)).run_id == run_id
