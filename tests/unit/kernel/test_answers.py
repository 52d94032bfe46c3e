"""Nothing leaves the process before it is committed, and nothing is done for who proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.run.v1 import run_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.errors import InvalidArgument, Unavailable
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.group_writer import GroupWriter
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import RunId, SessionId, TaskName
from stretto_kernel import owned_partition
from stretto_kernel.app.fact_writer import Overloaded
from stretto_kernel.app.run_ends import Named, RunEnds
from stretto_kernel.app.watching import watch_run
from stretto_kernel.dispatch.death_watch import DialResult
from stretto_kernel.dispatch.lease_table import RECLAIM_NS_MAX
from stretto_kernel.dispatch.work_stream import TooManyStreams
from stretto_kernel.domain.run import commands
from stretto_kernel.kernel import Kernel

from tests.unit.kernel.harness import (
    NAMESPACE,
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


class SlowDialer(Dialer):
    """Answers when told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.told = asyncio.Event()

    async def identify(self, address: str) -> SessionId | DialResult:
        self.asked.set()
        await self.told.wait()
        return await super().identify(address)


@pytest.fixture
def store() -> MemoryStore:
    return new_store()


@pytest.fixture
def faults() -> PlannedFaults:
    return PlannedFaults()


@pytest.fixture
def dialer() -> SlowDialer:
    return SlowDialer()


@pytest.fixture
async def kernel(
    store: MemoryStore, faults: PlannedFaults, dialer: SlowDialer
) -> AsyncIterator[Kernel]:
    kernel = await start_kernel(store, faults=faults, dialer=dialer)
    yield kernel
    await kernel.stop()


async def lose_a_kill(kernel: Kernel, faults: PlannedFaults, run_id: str, after_s: float) -> None:
    """Decide a kill whose append is refused after a while, for a caller who is gone by then."""
    count = faults.append_count
    faults.next = [AppendFault(Fault.REFUSED, before_s=after_s)]
    killing = asyncio.create_task(steer(kernel, run_id, steering(kernel, commands.Kill)))
    await until(lambda: faults.append_count == count + 1)
    killing.cancel()


async def test_a_revocation_that_never_was_is_told_to_nobody(
    kernel: Kernel, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    token = (await leased(worker)).token
    await lose_a_kill(kernel, faults, run_id, 0.02)
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].status.code == 0
    assert not worker.signals


async def test_a_follower_hears_nothing_that_is_not_stored(
    kernel: Kernel, faults: PlannedFaults
) -> None:
    run_id = RunId((await start(kernel)).answer.run_id)
    owned = kernel.partition
    changes = watch_run(
        owned.host,
        owned.calls,
        kernel.ports.clock,
        namespace=NAMESPACE,
        run_id=run_id,
        with_tasks=True,
    )
    seen = [(await anext(changes)).run.state]
    await lose_a_kill(kernel, faults, run_id, 0.3)
    await steer(kernel, run_id, steering(kernel, commands.PlaceHold, hold_id="h"))
    seen.append((await anext(changes)).run.state)
    await changes.aclose()
    assert seen == [run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_PAUSED]


async def test_a_wait_for_the_end_waits_for_its_commit(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel)
    run_id = RunId((await start(kernel)).answer.run_id)
    token = (await leased(worker)).token
    calls = kernel.partition.calls
    waiting = asyncio.create_task(calls.wait_ended(NAMESPACE, run_id, 20 * NS_PER_S))
    faults.next = [AppendFault(Fault.REFUSED, before_s=0.05)]
    worker.succeed(token)
    answered = await waiting
    assert answered.answer.state == run_pb2.RUN_STATE_SUCCEEDED
    assert answered.position == store.events[-1].position
    assert types_of(store)[-1] == "RunSucceeded"


async def test_no_lease_ends_while_the_fate_of_a_group_is_open(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    await leased(worker)
    owned = kernel.partition
    run = owned.host.find(RunId(run_id))
    assert run is not None
    lease = owned._leases.find((RunId(run_id), TaskName("a")), 1)
    assert lease is not None
    faults.settles_fail = True
    faults.next = [AppendFault(Fault.LOST_BEFORE)]
    holding = asyncio.create_task(
        steer(kernel, run_id, steering(kernel, commands.PlaceHold, hold_id="h"))
    )
    await until(lambda: owned.facts.writer.is_settling)
    lease.expires_mono_ns = 0
    owned._leases.postpone(lease, 0)
    owned.dispatcher.ring()
    assert run.state.leased_tasks
    faults.settles_fail = False
    await holding
    await until(lambda: "AttemptLost" in types_of(store))


async def test_a_dial_that_raced_with_a_new_stream_proves_nothing(
    kernel: Kernel, store: MemoryStore, dialer: SlowDialer
) -> None:
    dialer.answers["host:1"] = DialResult.REFUSED
    worker = FrameWorker(kernel, control_address="host:1")
    await start(kernel)
    token = (await leased(worker)).token
    worker.cut()
    await dialer.asked.wait()
    again = FrameWorker(kernel, session_id=worker.session_id, held=(token,))
    dialer.told.set()
    await until(lambda: not kernel.partition._processes._watched)
    again.succeed(token)
    await until(lambda: len(again.receipts) == 1)
    assert again.receipts[0].status.code == 0
    assert "AttemptLost" not in types_of(store)


@pytest.mark.parametrize("secret", [b"", b"x" * 16])
async def test_only_the_secret_keeps_a_lease_over_a_hello(kernel: Kernel, secret: bytes) -> None:
    """Worker and session ids are in the log for all to read."""
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    worker.cut()
    guess = LeaseToken(work_item=token.work_item, epoch=token.epoch, secret=secret)
    stranger = FrameWorker(kernel, session_id=worker.session_id, held=(guess,))
    await until(lambda: len(stranger.frames) >= 1)
    assert [dropped.epoch for dropped in stranger.frames[0].welcome.drop] == [1]


async def test_a_renewal_proves_its_lease(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    token = (await leased(worker)).token
    lease = kernel.partition._leases.find((RunId(run_id), TaskName("a")), 1)
    assert lease is not None
    before_ns = lease.expires_mono_ns
    guess = LeaseToken(work_item=token.work_item, epoch=1, secret=b"x" * 16)
    worker.say(renewals=[work_pb2.Renewal(token=guess)])
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].kind == work_pb2.RECEIPT_KIND_RENEWAL
    assert worker.receipts[0].status.code != 0
    assert lease.expires_mono_ns == before_ns
    assert (await get(kernel, run_id)).state == run_pb2.RUN_STATE_RUNNING


async def test_a_stalled_loop_costs_nobody_a_lease(kernel: Kernel, store: MemoryStore) -> None:
    """Renewals wait unread while the loop stands still: they are heard before anything expires."""
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    token = (await leased(worker)).token
    leases = kernel.partition._leases
    lease = leases.find((RunId(run_id), TaskName("a")), 1)
    assert lease is not None
    lease.expires_mono_ns = 0
    leases.postpone(lease, 0)
    kernel.partition._ring(5 * NS_PER_S)
    worker.say(renewals=[work_pb2.Renewal(token=token)])
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].status.code == 0


async def test_a_lease_of_an_earlier_owner_is_reclaimed_soon_or_lost(store: MemoryStore) -> None:
    older = await start_kernel(store)
    worker = FrameWorker(older)
    plan = graph(task("a", timeouts={"heartbeat": Duration(seconds=3_600)}))
    run_id = RunId((await start(older, plan)).answer.run_id)
    token = (await leased(worker)).token
    older.abandon()
    newer = await start_kernel(store, exclusive=False)
    await newer.partition.host.load(run_id)
    lease = newer.partition._leases.find((run_id, TaskName("a")), 1)
    assert lease is not None
    left_ns = lease.expires_mono_ns - newer.ports.clock.mono_ns()
    assert left_ns <= RECLAIM_NS_MAX
    again = FrameWorker(newer, session_id=worker.session_id, held=(token,))
    await until(lambda: len(again.frames) == 1)
    left_ns = lease.expires_mono_ns - newer.ports.clock.mono_ns()
    assert left_ns > RECLAIM_NS_MAX
    await newer.stop()


async def test_a_store_that_does_not_answer_keeps_no_kernel_from_ending(
    kernel: Kernel, faults: PlannedFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_partition, "CLOSE_S", 0.05)
    faults.settles_fail = True
    faults.next = [AppendFault(Fault.LOST_BEFORE)]
    starting = asyncio.create_task(start(kernel))
    await until(lambda: kernel.partition.facts.writer.is_settling)
    async with asyncio.timeout(5):
        await kernel.stop()
    with pytest.raises(Unavailable):
        await starting


async def test_an_assignment_nobody_took_consumes_no_try(
    kernel: Kernel, store: MemoryStore
) -> None:
    """A worker that is frozen, its stream still open, must not fail a task it has not begun."""
    FrameWorker(kernel, credits=1)
    run_id = RunId((await start(kernel, graph(task("a", retry={"max_attempts": 1})))).answer.run_id)
    await until(lambda: "AttemptLeased" in types_of(store))
    lease = kernel.partition._leases.find((run_id, TaskName("a")), 1)
    assert lease is not None and not lease.acknowledged
    lease.expires_mono_ns = 0
    kernel.partition._leases.postpone(lease, 0)
    kernel.partition.dispatcher.ring()
    await until(lambda: "AttemptReleased" in types_of(store))
    assert "AttemptLost" not in types_of(store)
    assert (await get(kernel, run_id)).state == run_pb2.RUN_STATE_RUNNING


async def test_no_work_is_dropped_for_a_fact_that_never_was(
    kernel: Kernel, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    token = (await leased(worker)).token
    worker.cut()
    await lose_a_kill(kernel, faults, run_id, 0.05)
    again = FrameWorker(kernel, session_id=worker.session_id, held=(token,))
    await until(lambda: len(again.frames) >= 1)
    assert not again.frames[0].welcome.drop
    again.succeed(token)
    await until(lambda: len(again.receipts) == 1)
    assert again.receipts[0].status.code == 0


async def test_a_replaced_owner_lets_no_work_be_dropped(kernel: Kernel, store: MemoryStore) -> None:
    """It knows nothing of the leases of its successor."""
    newer = await start_kernel(store, exclusive=False)
    worker = FrameWorker(newer)
    await start(newer)
    token = (await leased(worker)).token
    lost = FrameWorker(kernel, session_id=worker.session_id, held=(token,))
    await until(lambda: lost.ended)
    assert not lost.frames
    await newer.stop()


async def test_a_full_writer_refuses_others_and_owes_what_is_due(
    kernel: Kernel, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that runs out while nothing can be taken is lost as soon as something can."""
    worker = FrameWorker(kernel)
    run_id = RunId((await start(kernel)).answer.run_id)
    await leased(worker)
    lease = kernel.partition._leases.find((run_id, TaskName("a")), 1)
    assert lease is not None
    monkeypatch.setattr(GroupWriter, "has_room", property(lambda _: False))
    with pytest.raises(Overloaded):
        await start(kernel)
    lease.expires_mono_ns = 0
    kernel.partition._leases.postpone(lease, 0)
    kernel.partition.dispatcher.ring()
    assert "AttemptLost" not in types_of(store)
    monkeypatch.undo()
    await until(lambda: "AttemptLost" in types_of(store))


async def test_a_start_that_is_refused_leaves_nothing_in_memory(kernel: Kernel) -> None:
    with pytest.raises(InvalidArgument):
        await start(kernel, graph(task("not a name")))
    assert kernel.partition.host.run_count == 0


async def test_work_streams_are_bounded(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.partition.streams, "_streams_max", 1)
    FrameWorker(kernel)
    with pytest.raises(TooManyStreams):
        FrameWorker(kernel, worker_id="w2")


async def test_nobody_waits_for_an_end_under_an_ownership_that_is_over(kernel: Kernel) -> None:
    run_id = RunId((await start(kernel)).answer.run_id)
    partition = kernel.partition
    run = partition.host.find(run_id)
    assert run is not None
    await kernel.stop()
    assert partition.host.until_end(run).done()
    ends = RunEnds(partition.host, partition.calls)
    ends.name(Named("late", NAMESPACE, run_id))
    with pytest.raises(Unavailable):
        await ends.next()
