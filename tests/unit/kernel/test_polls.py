"""LeaseWork without gRPC: who is granted what, and that no lease is left with nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.errors import Unavailable
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import RequestId, RunId, SessionId
from stretto_core.rpc.status import from_status
from stretto_kernel import owned_partition
from stretto_kernel.dispatch.death_watch import DialResult
from stretto_kernel.dispatch.hello import parse_hello
from stretto_kernel.dispatch.poll import ANSWER_BYTES_MAX, LeaseCall, RequestIdReused, TooManyPolls
from stretto_kernel.dispatch.work_polls import POLLS_PER_WORKER_MAX, Draining, WorkerDrained
from stretto_kernel.dispatch.worker_processes import SessionReplaced
from stretto_kernel.domain.run import commands
from stretto_kernel.kernel import Kernel

from tests.unit.kernel.harness import (
    IDS,
    WORKER,
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
from tests.unit.kernel.test_kernel import steer, steering
from tests.waiting import until

LONG_S = 30.0


class PollWorker:
    """A worker process that makes unary calls."""

    def __init__(self, kernel: Kernel, *, session_id: str = "", **hello: Any) -> None:
        self.kernel = kernel
        self.session_id = session_id or IDS.uuid7()
        self._hello = {"worker_id": "w1", "executors": ["test.body"], **hello}

    async def lease(
        self, request_id: str = "", *, count: int = 1, wait_s: float = LONG_S
    ) -> list[work_pb2.Assignment]:
        said = work_pb2.Hello(session_id=self.session_id, **self._hello)
        wait_ns = round(wait_s * NS_PER_S)
        call = LeaseCall(
            parse_hello(said), RequestId(request_id or IDS.uuid7()), count, wait_ns=wait_ns
        )
        return await self.kernel.partition.polls.lease(call)

    def poll(self, request_id: str = "", **more: Any) -> asyncio.Task[list[work_pb2.Assignment]]:
        return asyncio.create_task(self.lease(request_id, **more))

    async def renew(
        self, *tokens: LeaseToken, details: Payload | None = None
    ) -> tuple[list[str], list[work_pb2.Signal]]:
        renewals = [work_pb2.Renewal(token=token, details=details) for token in tokens]
        receipts, signals = await self.kernel.partition.unary_writes.renew(renewals, WORKER, "")
        return [reason_of(receipt) for receipt in receipts], signals

    async def succeed(self, *tokens: LeaseToken, json: str = "1") -> list[str]:
        succeeded = work_pb2.OutcomeSucceeded(result=Payload(json=json))
        outcomes = [work_pb2.Outcome(token=token, succeeded=succeeded) for token in tokens]
        receipts = await self.kernel.partition.unary_writes.write((), outcomes, WORKER, "")
        return [reason_of(receipt) for receipt in receipts]

    def give_up(self, request_id: str) -> None:
        self.kernel.partition.polls.give_up(SessionId(self.session_id), RequestId(request_id))

    async def waits(self, count: int = 1) -> None:
        await until(lambda: self.kernel.partition.polls.poll_count == count)


def reason_of(receipt: work_pb2.Receipt) -> str:
    return from_status(receipt.status).reason_word if receipt.status.code else ""


async def cut(poll: asyncio.Task[list[work_pb2.Assignment]]) -> None:
    poll.cancel()
    with suppress(asyncio.CancelledError):
        await poll


async def one_turn() -> None:
    """Return when everything that waited for the loop has had its turn."""
    loop = asyncio.get_running_loop()
    turn = loop.create_future()
    loop.call_soon(turn.set_result, None)
    await turn


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
async def kernel(
    store: MemoryStore, faults: PlannedFaults, dialer: Dialer
) -> AsyncIterator[Kernel]:
    kernel = await start_kernel(store, faults=faults, dialer=dialer, queue_limits={"narrow": 1})
    yield kernel
    await kernel.stop()


async def test_a_poll_is_granted_what_becomes_ready_and_the_run_ends(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = PollWorker(kernel)
    poll = worker.poll("r1")
    await worker.waits()
    run = (await start(kernel)).answer
    (assignment,) = await poll
    assert await worker.renew(assignment.token) == ([], [])
    assert await worker.succeed(assignment.token) == [""]
    assert (await get(kernel, run.run_id)).state == run_pb2.RUN_STATE_SUCCEEDED
    assert types_of(store) == ["RunStarted", "AttemptLeased", "AttemptSucceeded", "RunSucceeded"]
    assert kernel.partition.polls.granted_count == 1
    assert kernel.partition.polls.poll_count == 0


async def test_count_max_is_the_credit_and_what_is_committed_together_comes_together(
    kernel: Kernel,
) -> None:
    await start(kernel, graph(*(task(f"t{number}") for number in range(5))))
    worker = PollWorker(kernel)
    assert len(await worker.lease(count=3)) == 3
    assert len(await worker.lease(count=10)) == 2


async def test_a_poll_ends_empty_when_its_time_is_over(kernel: Kernel) -> None:
    worker = PollWorker(kernel)
    assert await worker.lease(wait_s=0) == []
    assert await worker.lease(wait_s=0.01) == []
    await start(kernel)
    assert len(await worker.lease(wait_s=0)) == 1, "what is there is taken without waiting"
    assert kernel.partition.polls.empty_count == 2


async def test_what_is_committed_for_a_cut_call_is_released_and_consumes_no_try(
    kernel: Kernel, store: MemoryStore
) -> None:
    await start(kernel, graph(task("a", retry=plan_pb2.RetryPolicy(max_attempts=1))))
    worker = PollWorker(kernel)
    poll = worker.poll()
    await one_turn()  # The lease is decided; its commit comes later.
    await cut(poll)
    await until(lambda: types_of(store)[-1] == "AttemptReleased")
    assert kernel.partition.polls.undelivered_count == 1
    (assignment,) = await worker.lease()
    assert (assignment.token.epoch, assignment.attempt) == (2, 1)


async def test_a_call_cut_between_its_answer_and_its_return_is_released_too(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = PollWorker(kernel)
    poll = worker.poll()
    await worker.waits()
    await start(kernel)
    (open_poll,) = kernel.partition.polls._by_key.values()
    open_poll.answer.add_done_callback(lambda _: poll.cancel())
    with pytest.raises(asyncio.CancelledError):
        await poll
    await until(lambda: types_of(store)[-1] == "AttemptReleased")


async def test_a_lost_answer_comes_again_until_it_is_acknowledged(
    kernel: Kernel, store: MemoryStore
) -> None:
    await start(kernel, graph(task("a"), task("b")))
    worker = PollWorker(kernel)
    first = await worker.lease("r1", count=2)
    assert await worker.lease("r1", count=2) == first
    assert len(first) == 2
    assert await worker.renew(first[0].token) == ([], [])
    assert await worker.lease("r1") == [first[1]]
    await worker.renew(first[1].token)
    with pytest.raises(RequestIdReused):
        await worker.lease("r1")
    assert types_of(store).count("AttemptLeased") == 2


async def test_a_replaced_owner_repeats_no_answer(kernel: Kernel, store: MemoryStore) -> None:
    """Its successor may have leased the work to somebody else."""
    await start(kernel)
    worker = PollWorker(kernel)
    assert len(await worker.lease("r1")) == 1
    newer = await start_kernel(store, exclusive=False)
    with pytest.raises(Unavailable):
        await worker.lease("r1")
    await newer.stop()


async def test_the_same_call_joins_the_one_that_waits(kernel: Kernel) -> None:
    worker = PollWorker(kernel)
    lost, repeated = worker.poll("r1"), worker.poll("r1")
    await worker.waits()
    with pytest.raises(RequestIdReused):
        await worker.lease("r1", count=2)
    await cut(lost)
    await start(kernel)
    assert len(await repeated) == 1


async def test_an_answer_nobody_acknowledges_runs_out_and_consumes_no_try(
    kernel: Kernel, store: MemoryStore
) -> None:
    ttl = plan_pb2.Timeouts(heartbeat=Duration(seconds=1))
    once = plan_pb2.RetryPolicy(max_attempts=1)
    await start(kernel, graph(task("a", timeouts=ttl, retry=once)))
    worker = PollWorker(kernel)
    await worker.lease()
    await until(lambda: types_of(store)[-1] == "AttemptReleased")
    (again,) = await worker.lease()
    assert (again.token.epoch, again.attempt) == (2, 1)


async def test_an_acknowledged_lease_that_runs_out_is_lost(
    kernel: Kernel, store: MemoryStore
) -> None:
    ttl = plan_pb2.Timeouts(heartbeat=Duration(seconds=1))
    await start(kernel, graph(task("a", timeouts=ttl)))
    worker = PollWorker(kernel)
    (assignment,) = await worker.lease()
    waiting = worker.poll()
    await worker.renew(assignment.token)
    await until(lambda: "AttemptLost" in types_of(store))
    assert await waiting == [], "a process that let a lease run out is not offered the task"
    assert await worker.renew(assignment.token) == (["LEASE_LOST"], [])
    assert await worker.succeed(assignment.token) in ([""], ["LEASE_LOST"])


async def test_a_restarted_kernel_leases_anew_to_the_call_its_predecessor_answered(
    kernel: Kernel, store: MemoryStore
) -> None:
    await start(kernel, graph(task("a", retry=plan_pb2.RetryPolicy(max_attempts=1))))
    (lost,) = await PollWorker(kernel, session_id=(session := IDS.uuid7())).lease("r1")
    kernel.abandon()
    successor = await start_kernel(store, exclusive=False)
    worker = PollWorker(successor, session_id=session)
    (assignment,) = await worker.lease("r1")
    assert (assignment.token.epoch, assignment.attempt) == (lost.token.epoch + 1, 1)
    assert await worker.renew(lost.token, assignment.token) == (["LEASE_LOST"], [])
    await successor.stop()


async def test_any_renewal_claims_its_lease_after_a_restart(
    kernel: Kernel, store: MemoryStore
) -> None:
    run = (await start(kernel)).answer
    worker = PollWorker(kernel)
    (assignment,) = await worker.lease()
    await worker.renew(assignment.token)
    kernel.abandon()
    successor = await start_kernel(store, exclusive=False)
    worker.kernel = successor
    assert await worker.renew(assignment.token) == ([], [])
    assert await worker.succeed(assignment.token) == [""]
    assert (await get(successor, run.run_id)).state == run_pb2.RUN_STATE_SUCCEEDED
    await successor.stop()


async def test_a_newer_process_takes_the_leases_and_the_calls_of_the_older(
    kernel: Kernel, store: MemoryStore
) -> None:
    await start(kernel)
    older, newer = PollWorker(kernel), PollWorker(kernel)
    (assignment,) = await older.lease()
    await older.renew(assignment.token)
    waiting = older.poll()
    await older.waits()
    (taken,) = await newer.lease()
    with pytest.raises(SessionReplaced):
        await waiting
    with pytest.raises(SessionReplaced):
        await older.lease()
    assert taken.token.epoch == 2
    assert await older.renew(assignment.token) == (["LEASE_LOST"], [])
    assert "AttemptLost" in types_of(store)


async def test_a_call_replaces_an_older_stream_and_a_stream_an_older_call(kernel: Kernel) -> None:
    stream = FrameWorker(kernel)
    PollWorker(kernel).poll(wait_s=0)
    await until(lambda: stream.ended)
    assert isinstance(stream.end_cause, SessionReplaced)
    waiting = PollWorker(kernel).poll()
    await until(lambda: kernel.partition.polls.poll_count == 1)
    FrameWorker(kernel)
    with pytest.raises(SessionReplaced):
        await waiting


async def test_a_call_and_a_stream_of_one_process_live_together(kernel: Kernel) -> None:
    stream = FrameWorker(kernel, credits=0)
    worker = PollWorker(kernel, session_id=stream.session_id)
    poll = worker.poll()
    await worker.waits()
    run = (await start(kernel)).answer
    (assignment,) = await poll
    await worker.renew(assignment.token)
    stream.succeed(assignment.token)
    await until(lambda: len(stream.receipts) == 1)
    assert (await get(kernel, run.run_id)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_process_proven_gone_after_a_cut_call_loses_its_leases(
    kernel: Kernel, store: MemoryStore, dialer: Dialer
) -> None:
    dialer.answers["host:1"] = DialResult.REFUSED
    await start(kernel)
    worker = PollWorker(kernel, control_address="host:1")
    (assignment,) = await worker.lease()
    await worker.renew(assignment.token)
    poll = worker.poll()
    await worker.waits()
    await cut(poll)
    await until(lambda: types_of(store)[-1] == "AttemptLost")


async def test_a_cancel_comes_with_every_renewal(kernel: Kernel) -> None:
    run = (await start(kernel)).answer
    worker = PollWorker(kernel)
    (assignment,) = await worker.lease()
    await worker.renew(assignment.token)
    await steer(kernel, run.run_id, steering(kernel, commands.Cancel, reason="enough"))
    for _ in range(2):
        _, (signal,) = await worker.renew(assignment.token)
        assert (signal.kind, signal.reason) == (work_pb2.SIGNAL_KIND_CANCEL, "enough")
        assert signal.token.secret == b""


async def test_answers_keep_their_order_and_say_what_each_came_to(kernel: Kernel) -> None:
    await start(kernel, graph(task("a"), task("b")))
    worker = PollWorker(kernel)
    first, second = await worker.lease(count=2)
    forged = LeaseToken(work_item=first.token.work_item, epoch=1, secret=b"x" * 16)
    stale = LeaseToken(work_item=first.token.work_item, epoch=9, secret=b"x" * 16)
    nowhere = LeaseToken(work_item=f"namespaces/default/runs/{IDS.uuid7()}/tasks/a", epoch=1)
    said = (first.token, forged, stale, nowhere, second.token)
    assert await worker.renew(*said) == (["WRONG_SECRET", "LEASE_LOST", "LEASE_LOST"], [])
    expected = ["", "WRONG_SECRET", "LEASE_LOST", "LEASE_LOST", ""]
    assert await worker.succeed(*said) == expected
    assert await worker.succeed(*said) == expected, "the same again is answered like the first"
    assert await worker.succeed(first.token, json="2") == ["RESULT_CONFLICT"]


async def test_wrong_details_are_refused_and_the_lease_goes_on(kernel: Kernel) -> None:
    await start(kernel)
    worker = PollWorker(kernel)
    (assignment,) = await worker.lease()
    refused, _ = await worker.renew(assignment.token, details=Payload(json="{"))
    assert refused == ["INVALID_ARGUMENT"]
    assert await worker.renew(assignment.token) == ([], [])


async def test_a_renewal_that_cannot_be_judged_now_says_so(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def store_down(_: RunId) -> None:
        raise Unavailable("the store does not answer")

    monkeypatch.setattr(kernel.partition.host, "load", store_down)
    token = LeaseToken(work_item=f"namespaces/default/runs/{IDS.uuid7()}/tasks/a", epoch=1)
    assert await PollWorker(kernel).renew(token) == (["UNAVAILABLE"], [])


async def test_spawns_are_answered_before_outcomes(kernel: Kernel) -> None:
    run = (await start(kernel, graph(task("a", may_spawn=True)))).answer
    worker = PollWorker(kernel)
    (assignment,) = await worker.lease()
    spawn = work_pb2.Spawn(token=assignment.token, request_id="s", tasks=[task("c")])
    outcome = work_pb2.Outcome(token=assignment.token, succeeded=work_pb2.OutcomeSucceeded())
    receipts = await kernel.partition.unary_writes.write([spawn], [outcome], WORKER, "")
    assert [(one.kind, one.status.code) for one in receipts] == [
        (work_pb2.RECEIPT_KIND_SPAWN, 0),
        (work_pb2.RECEIPT_KIND_OUTCOME, 0),
    ]
    (child,) = await worker.lease()
    assert child.task == "a/c"
    await worker.succeed(child.token)
    assert (await get(kernel, run.run_id)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_call_given_up_releases_what_it_was_leased(
    kernel: Kernel, store: MemoryStore
) -> None:
    await start(kernel)
    worker = PollWorker(kernel)
    await worker.lease("r1")
    worker.give_up("r1")
    await until(lambda: types_of(store)[-1] == "AttemptReleased")
    (held,) = await worker.lease("r2")
    await worker.renew(held.token)
    worker.give_up("r2")
    worker.give_up("never asked")
    assert await worker.renew(held.token) == ([], []), "what is acknowledged is given back by token"
    waiting = worker.poll("r3")
    await worker.waits()
    worker.give_up("r3")
    assert await waiting == []


async def test_a_grant_whose_append_fails_leaves_the_call_waiting(
    kernel: Kernel, faults: PlannedFaults
) -> None:
    worker = PollWorker(kernel)
    poll = worker.poll()
    await worker.waits()
    faults.next = [AppendFault(), AppendFault(Fault.REFUSED)]
    run = (await start(kernel)).answer
    (assignment,) = await poll
    await worker.succeed(assignment.token)
    assert (await get(kernel, run.run_id)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_calls_end_with_the_ownership(kernel: Kernel) -> None:
    worker = PollWorker(kernel)
    poll = worker.poll()
    await worker.waits()
    await kernel.stop()
    with pytest.raises(Unavailable):
        await poll


async def test_writes_end_with_the_ownership(
    kernel: Kernel, faults: PlannedFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_partition, "CLOSE_S", 0.05)
    await start(kernel)
    worker = PollWorker(kernel)
    (assignment,) = await worker.lease()
    faults.settles_fail = True
    faults.next = [AppendFault(Fault.LOST_BEFORE)]
    writing = asyncio.create_task(worker.succeed(assignment.token))
    await until(lambda: kernel.partition.facts.writer.is_settling)
    await kernel.stop()
    with pytest.raises(Unavailable):
        await writing


async def test_a_draining_kernel_ends_calls_and_renews_on(kernel: Kernel) -> None:
    await start(kernel)
    worker = PollWorker(kernel)
    (assignment,) = await worker.lease()
    waiting = worker.poll()
    await worker.waits()
    await kernel.partition.drain("going")
    assert await waiting == []
    with pytest.raises(Draining):
        await worker.lease()
    assert await worker.renew(assignment.token) == ([], [])
    assert await worker.succeed(assignment.token) == [""]


async def test_a_call_of_a_drained_process_leaves_no_lease_with_nobody(
    kernel: Kernel, store: MemoryStore
) -> None:
    await start(kernel)
    poll = PollWorker(kernel).poll()
    await one_turn()
    (waiting,) = kernel.partition.polls._by_key.values()
    assert waiting.making_count + len(waiting.granted) == 1, "it has a lease nobody was told of"
    kernel.partition.polls.ask_to_leave(waiting.hello.worker_id, "update")
    with pytest.raises(WorkerDrained):
        await poll
    await until(lambda: types_of(store)[-1] == "AttemptReleased")


async def test_calls_are_bounded(kernel: Kernel) -> None:
    worker = PollWorker(kernel)
    polls = [worker.poll() for _ in range(POLLS_PER_WORKER_MAX)]
    await worker.waits(POLLS_PER_WORKER_MAX)
    with pytest.raises(TooManyPolls) as refused:
        await worker.lease()
    assert refused.value.retry_delay_ms is not None
    other = PollWorker(kernel, worker_id="w2")
    assert await other.lease(wait_s=0) == []
    for poll in polls:
        await cut(poll)
    assert kernel.partition.polls.poll_count == 0
    assert await worker.lease(wait_s=0) == []


async def test_an_answer_stays_below_the_message_limit(kernel: Kernel) -> None:
    large = plan_pb2.Binding(literal=Payload(json=f'"{"x" * 60_000}"'))
    inputs = {f"i{number}": large for number in range(15)}
    ttl = plan_pb2.Timeouts(heartbeat=Duration(seconds=60))
    for _ in range(8):
        await start(kernel, graph(task("a", inputs=inputs, timeouts=ttl)))
    worker = PollWorker(kernel)
    seen: set[str] = set()
    # What did not fit comes again at once, not when it has run out.
    async with asyncio.timeout(30):
        while len(seen) < 8:
            answer = await worker.lease(count=8)
            assert sum(one.ByteSize() for one in answer) <= ANSWER_BYTES_MAX
            seen.update(one.token.work_item for one in answer)
            await worker.succeed(*(one.token for one in answer))


async def test_a_worker_between_two_calls_is_busy_not_absent(kernel: Kernel) -> None:
    worker = PollWorker(kernel)
    await worker.lease(wait_s=0)
    run = (await start(kernel)).answer
    hosted = kernel.partition.host.find(RunId(run.run_id))
    assert hosted is not None
    (name,) = hosted.state.tasks
    assert kernel.partition.dispatcher.wait_reason(hosted, name) != run_pb2.WAIT_REASON_NO_WORKER
