"""The whole kernel on the memory log: leases, fences, answers, takeovers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.work.v1 import work_pb2
from stretto_core.errors import Refusal
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.eventlog.port import PartitionHeld
from stretto_core.ids import RequestId, RunId, SessionId
from stretto_kernel.app.fact_bytes import FACT_BYTES_MAX, FactTooLarge
from stretto_kernel.app.fact_writer import StoreUnsettled
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.dispatch.death_watch import DialResult
from stretto_kernel.dispatch.worker_processes import SessionReplaced
from stretto_kernel.domain.requests import RequestIdReused
from stretto_kernel.domain.run import commands
from stretto_kernel.domain.run.refusals import RunClosed
from stretto_kernel.kernel import Kernel

from tests.unit.kernel.harness import (
    IDS,
    NAMESPACE,
    USER,
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
from tests.waiting import until


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


def steering(kernel: Kernel, kind: type[commands.Requested], **fields: Any) -> commands.Command:
    return kind(
        now_ns=kernel.ports.clock.now_ns(),
        request_id=RequestId(IDS.uuid7()),
        request_digest=bytes(32),
        **fields,
    )


async def steer(kernel: Kernel, run_id: str, command: commands.Command) -> run_pb2.Run:
    caller = Caller(principal=USER)
    if isinstance(command, commands.Requested):
        caller = Caller(
            principal=USER,
            request_id=command.request_id,
            request_digest=command.request_digest,
        )
    calls = kernel.partition.calls
    return (await calls.steer_run(NAMESPACE, RunId(run_id), command, caller)).answer


async def leased(worker: FrameWorker, count: int = 1) -> work_pb2.Assignment:
    await until(lambda: len(worker.assignments) >= count)
    worker.acknowledge()
    return worker.assignments[count - 1]


def reason_of(receipt: work_pb2.Receipt) -> str:
    return next(
        (detail.value.decode("latin-1") for detail in receipt.status.details if detail.value), ""
    )


async def test_a_one_task_run_is_four_facts_in_two_groups(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel)
    run = (await start(kernel)).answer
    assignment = await leased(worker)
    worker.succeed(assignment.token, '{"x": 1}')
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].status.code == 0
    expected = ["RunStarted", "AttemptLeased", "AttemptSucceeded", "RunSucceeded"]
    assert types_of(store) == expected
    assert faults.append_count == 2, "the lease is stored with the fact that made the task ready"
    assert (await get(kernel, run.run_id)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_start_waits_for_its_end(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    calls = kernel.partition.calls
    waiting = asyncio.create_task(calls.wait_ended(NAMESPACE, RunId(run_id), 10**10))
    worker.succeed((await leased(worker)).token)
    assert (await waiting).answer.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_wait_that_is_over_shows_the_run_as_it_is(kernel: Kernel) -> None:
    run_id = (await start(kernel)).answer.run_id
    answered = await kernel.partition.calls.wait_ended(NAMESPACE, RunId(run_id), 1_000_000)
    assert answered.answer.state == run_pb2.RUN_STATE_RUNNING


async def test_the_same_start_again_is_the_same_run(kernel: Kernel, store: MemoryStore) -> None:
    request_id = IDS.uuid7()
    first = await start(kernel, request_id=request_id)
    second = await start(kernel, request_id=request_id)
    assert first.answer.run_id == second.answer.run_id
    assert types_of(store) == ["RunStarted"]
    with pytest.raises(RequestIdReused):
        await start(kernel, graph(task("other")), request_id=request_id)


async def test_a_start_of_an_older_owner_is_found_again(store: MemoryStore) -> None:
    request_id = IDS.uuid7()
    older = await start_kernel(store)
    run_id = (await start(older, request_id=request_id)).answer.run_id
    await older.stop()
    newer = await start_kernel(store)
    assert (await start(newer, request_id=request_id)).answer.run_id == run_id
    assert types_of(store) == ["RunStarted"]
    await newer.stop()


async def test_a_wrong_guess_about_a_new_id_is_caught(store: MemoryStore) -> None:
    """The client's clock is ahead: its id looks newer than this ownership, and is not."""
    older = await start_kernel(store)
    request_id = "01ffffff-ffff-7000-8000-000000000001"
    run_id = (await start(older, request_id=request_id)).answer.run_id
    await older.stop()
    newer = await start_kernel(store)
    assert (await start(newer, request_id=request_id)).answer.run_id == run_id
    assert types_of(store) == ["RunStarted"]
    await newer.stop()


async def test_the_same_outcome_again_is_answered_like_the_first(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 2)
    worker.succeed(token, '"another"')
    await until(lambda: len(worker.receipts) == 3)
    assert [receipt.status.code for receipt in worker.receipts] == [0, 0, 6]
    assert "RESULT_CONFLICT" in reason_of(worker.receipts[2])


async def test_a_wrong_secret_is_refused_and_records_nothing(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    worker.succeed(LeaseToken(work_item=token.work_item, epoch=token.epoch, secret=bytes(16)))
    await until(lambda: len(worker.receipts) == 1)
    assert "WRONG_SECRET" in reason_of(worker.receipts[0])
    assert types_of(store) == ["RunStarted", "AttemptLeased"]


async def test_a_holder_whose_lease_was_passed_on_is_fenced(
    kernel: Kernel, store: MemoryStore
) -> None:
    first = FrameWorker(kernel, worker_id="first")
    await start(kernel)
    stale = (await leased(first)).token
    newer = FrameWorker(kernel, worker_id="first")  # A takeover: the older process loses it.
    current = (await leased(newer)).token
    assert first.ended and isinstance(first.end_cause, SessionReplaced)
    assert current.epoch == stale.epoch + 1
    for _ in range(2):
        newer.succeed(stale)
    await until(lambda: len(newer.receipts) == 2)
    assert "LEASE_LOST" in reason_of(newer.receipts[0])
    assert "current_epoch" in reason_of(newer.receipts[0])
    await until(lambda: types_of(store).count("WriteRefused") == 1)
    newer.succeed(current)
    await until(lambda: len(newer.receipts) == 3)
    assert newer.receipts[2].status.code == 0
    assert types_of(store).count("WriteRefused") == 1, "recorded once per granted epoch"


async def test_a_renewal_that_crossed_its_receipt_is_answered_and_is_no_refused_write(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = FrameWorker(kernel)
    await start(kernel, graph(task("a"), task("b")))
    token = (await leased(worker)).token
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    worker.say(renewals=[work_pb2.Renewal(token=token)])
    await until(lambda: len(worker.receipts) == 2)
    assert "LEASE_LOST" in reason_of(worker.receipts[1])
    assert "WriteRefused" not in types_of(store)


async def test_a_plan_that_no_reader_could_be_given_is_refused_and_nothing_is_stored(
    kernel: Kernel, store: MemoryStore
) -> None:
    arguments = json.dumps({"text": "x" * 60_000})
    large = [task(f"t{number}") for number in range(18)]
    for each in large:
        each.arguments_json = arguments
    with pytest.raises(FactTooLarge) as caught:
        await start(kernel, graph(*large))
    assert int(caught.value.metadata["size_bytes"]) > FACT_BYTES_MAX
    assert types_of(store) == []
    await start(kernel, graph(*large[:17]))
    assert types_of(store)[0] == "RunStarted"


async def test_an_older_process_is_refused(kernel: Kernel) -> None:
    older, newer = IDS.uuid7(), IDS.uuid7()
    FrameWorker(kernel, session_id=newer)
    with pytest.raises(SessionReplaced):
        FrameWorker(kernel, session_id=older)


async def test_an_assignment_never_acknowledged_is_released_with_its_stream(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    await until(lambda: len(worker.assignments) == 1)
    worker.cut()
    other = FrameWorker(kernel, worker_id="other")
    assert (await leased(other)).attempt == 1, "a released try is not consumed"
    assert types_of(store)[2:4] == ["AttemptReleased", "AttemptLeased"]


async def test_an_acknowledged_lease_survives_its_stream(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    worker.cut()
    again = FrameWorker(kernel, session_id=worker.session_id, held=(token,))
    assert not again.frames[0].welcome.drop
    again.succeed(token)
    await until(lambda: len(again.receipts) == 1)
    assert again.receipts[0].status.code == 0


async def test_a_lease_its_process_does_not_list_is_released(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    await leased(worker)
    worker.cut()
    again = FrameWorker(kernel, session_id=worker.session_id)
    assert (await leased(again)).token.epoch == 2
    assert types_of(store)[2] == "AttemptReleased"


async def test_a_token_that_is_not_current_is_to_be_dropped(kernel: Kernel) -> None:
    unknown = LeaseToken(work_item="namespaces/default/runs/p0-x/tasks/a", epoch=1, secret=b"x")
    worker = FrameWorker(kernel, held=(unknown,))
    await until(lambda: len(worker.frames) == 1)
    assert [token.work_item for token in worker.frames[0].welcome.drop] == [unknown.work_item]


@pytest.mark.parametrize("answer", [DialResult.REFUSED, SessionId("another")])
async def test_a_process_proven_gone_loses_its_leases_at_once(
    kernel: Kernel, store: MemoryStore, dialer: Dialer, answer: SessionId | DialResult
) -> None:
    worker = FrameWorker(kernel, control_address="host:1")
    dialer.answers["host:1"] = answer
    await start(kernel)
    await leased(worker)
    worker.cut()
    other = FrameWorker(kernel, worker_id="other")
    assert (await leased(other)).token.epoch == 2
    assert types_of(store)[2] == "AttemptLost"


async def test_goodbye_gives_leases_back(kernel: Kernel, store: MemoryStore) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    await leased(worker)
    worker.say(goodbye=work_pb2.Goodbye())
    await until(lambda: types_of(store)[-1] == "AttemptReleased")
    assert worker.ended and worker.end_cause is None


async def test_a_silent_holder_loses_its_lease(kernel: Kernel, store: MemoryStore) -> None:
    worker = FrameWorker(kernel)
    timeouts = plan_pb2.Timeouts(heartbeat=Duration(seconds=1))
    await start(kernel, graph(task("a", timeouts=timeouts)))
    await leased(worker)
    await until(lambda: "AttemptLost" in types_of(store))
    assert types_of(store).count("AttemptLeased") == 1, "not offered to a silent worker again"
    worker.say()
    assert (await leased(worker, 2)).token.epoch == 2
    assert [signal.kind for signal in worker.signals] == [work_pb2.SIGNAL_KIND_REVOKE]


async def test_a_failed_attempt_waits_and_is_tried_again(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = FrameWorker(kernel)
    retry = plan_pb2.RetryPolicy(initial_interval=Duration(nanos=20_000_000), jitter=0.0)
    await start(kernel, graph(task("a", retry=retry)))
    failure = Failure(reason="EXIT_STATUS", message="1", retryable=True)
    worker.say(outcomes=[work_pb2.Outcome(token=(await leased(worker)).token, failed=failure)])
    assert (await leased(worker, 2)).attempt == 2


async def test_an_outcome_beyond_the_limits_is_refused(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    worker.succeed(token, '{"a": NaN}')
    worker.succeed(token, '"' + "x" * 70_000 + '"')
    worker.say(outcomes=[work_pb2.Outcome(token=token)])
    worker.say(outcomes=[work_pb2.Outcome(token=token, failed=Failure(reason="no word"))])
    await until(lambda: len(worker.receipts) == 4)
    assert {receipt.status.code for receipt in worker.receipts} == {3}
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 5)
    assert worker.receipts[4].status.code == 0


async def test_a_held_run_is_not_offered_until_it_is_lifted(kernel: Kernel) -> None:
    run_id = (await start(kernel)).answer.run_id
    held = await steer(kernel, run_id, steering(kernel, commands.PlaceHold, hold_id="h"))
    assert held.state == run_pb2.RUN_STATE_PAUSED
    worker = FrameWorker(kernel)
    await get(kernel, run_id)
    assert not worker.assignments
    await steer(kernel, run_id, steering(kernel, commands.LiftHold, hold_id="h"))
    await leased(worker)


async def test_a_cancel_is_told_to_holders_and_ends_the_run(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    token = (await leased(worker)).token
    await steer(kernel, run_id, steering(kernel, commands.Cancel, reason="enough"))
    await until(lambda: len(worker.signals) == 1)
    assert worker.signals[0].kind == work_pb2.SIGNAL_KIND_CANCEL
    assert worker.signals[0].HasField("deadline_time")
    worker.say(renewals=[work_pb2.Renewal(token=token)])
    await until(lambda: len(worker.signals) == 2)
    cancelled = work_pb2.Outcome(token=token, cancelled=work_pb2.OutcomeCancelled())
    worker.say(outcomes=[cancelled])
    await until(lambda: len(worker.receipts) == 1)
    assert (await get(kernel, run_id)).state == run_pb2.RUN_STATE_CANCELLED


async def test_a_kill_revokes_and_later_commands_are_refused(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    await leased(worker)
    await steer(kernel, run_id, steering(kernel, commands.Kill, reason="now"))
    await until(lambda: len(worker.signals) == 1)
    assert worker.signals[0].kind == work_pb2.SIGNAL_KIND_REVOKE
    with pytest.raises(RunClosed):
        await steer(kernel, run_id, steering(kernel, commands.PlaceHold, hold_id="h"))


async def test_a_queue_limit_is_never_exceeded(kernel: Kernel) -> None:
    worker = FrameWorker(kernel, queues=["narrow"])
    run_id = (
        await start(kernel, graph(task("a", queue="narrow"), task("b", queue="narrow")))
    ).answer
    await leased(worker)
    page = await kernel.partition.calls.list_tasks(
        NAMESPACE, RunId(run_id.run_id), first_index=0, count_max=10
    )
    waiting = [one for one in page.tasks if one.state == run_pb2.TASK_STATE_READY]
    assert [one.wait_reason for one in waiting] == [run_pb2.WAIT_REASON_QUEUE_LIMIT]
    assert len(worker.assignments) == 1
    worker.succeed(worker.assignments[0].token)
    await leased(worker, 2)


async def test_a_queue_limit_counts_leases_of_runs_not_yet_folded(store: MemoryStore) -> None:
    """A new owner grants nothing from a limited queue before all that may hold it is folded."""
    narrow = {"narrow": 1}
    older = await start_kernel(store, queue_limits=narrow)
    for number in range(5):
        await start(older, graph(task("a", queue="narrow", priority=number)))
    # The youngest run holds the slot: it is folded last, and the others are ready before it.
    await leased(FrameWorker(older, queues=["narrow"]))
    older.abandon()
    newer = await start_kernel(store, queue_limits=narrow, exclusive=False)
    again = FrameWorker(newer, worker_id="other", queues=["narrow"])
    await until(lambda: newer.partition.folds.recovery_streams_left == 0)
    await get(newer, store.events[0].stream)
    assert not again.assignments
    await newer.stop()


async def test_no_worker_is_a_reason_not_a_failure(kernel: Kernel) -> None:
    FrameWorker(kernel, labels={"gpu": "no"})
    run_id = (await start(kernel, graph(task("a", required_labels={"gpu": "yes"})))).answer.run_id
    page = await kernel.partition.calls.list_tasks(
        NAMESPACE, RunId(run_id), first_index=0, count_max=10
    )
    assert page.tasks[0].wait_reason == run_pb2.WAIT_REASON_NO_WORKER


async def test_a_restarted_kernel_keeps_leases(store: MemoryStore) -> None:
    older = await start_kernel(store)
    worker = FrameWorker(older)
    run_id = (await start(older)).answer.run_id
    token = (await leased(worker)).token
    older.abandon()
    newer = await start_kernel(store, exclusive=False)
    again = FrameWorker(newer, session_id=worker.session_id, held=(token,))
    await until(lambda: len(again.frames) == 1)
    assert not again.frames[0].welcome.drop
    again.succeed(token)
    await until(lambda: len(again.receipts) == 1)
    assert again.receipts[0].status.code == 0
    assert (await get(newer, run_id)).state == run_pb2.RUN_STATE_SUCCEEDED
    await newer.stop()


async def test_a_second_kernel_does_not_start(kernel: Kernel, store: MemoryStore) -> None:
    with pytest.raises(PartitionHeld):
        await start_kernel(store)


async def test_a_kernel_that_lost_the_partition_answers_nothing(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    thief = await start_kernel(store, exclusive=False)
    with pytest.raises(Refusal) as refused:
        await get(kernel, run_id)
    assert refused.value.reason_word == "PARTITION_MOVED"
    await until(lambda: worker.ended)
    assert worker.end_cause is not None
    await thief.stop()
    await until(lambda: kernel.is_owner)
    assert (await get(kernel, run_id)).run_id == run_id


@pytest.mark.parametrize("kind", [Fault.REFUSED, Fault.LOST_BEFORE])
async def test_an_answer_decided_on_dropped_facts_is_decided_again(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults, kind: Fault
) -> None:
    """A refusal and a repeat decided on a speculative kill must not leave when the kill is lost."""
    run_id = (await start(kernel)).answer.run_id
    faults.next = [AppendFault(kind, before_s=0.05)]
    killing = asyncio.create_task(steer(kernel, run_id, steering(kernel, commands.Kill)))
    await until(lambda: faults.append_count == 2)
    hold = steering(kernel, commands.PlaceHold, hold_id="h")
    refused = asyncio.create_task(steer(kernel, run_id, hold))
    read = asyncio.create_task(get(kernel, run_id))
    killing.cancel()  # Its caller is gone: nobody decides the kill again.
    assert (await read).state != run_pb2.RUN_STATE_KILLED
    assert (await refused).state == run_pb2.RUN_STATE_PAUSED
    assert "RunKilled" not in types_of(store)


async def test_an_outcome_whose_append_fails_is_stored_in_the_end(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    faults.next = [AppendFault(Fault.REFUSED), AppendFault(Fault.LOST_BEFORE)]
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].status.code == 0
    assert types_of(store)[-1] == "RunSucceeded"


async def test_a_grant_whose_append_fails_gives_its_credit_back(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel, credits=1, queues=["narrow"])
    faults.next = [AppendFault(Fault.REFUSED), AppendFault(Fault.LOST_BEFORE)]
    await start(kernel, graph(task("a", queue="narrow")))
    assignment = await leased(worker)
    worker.succeed(assignment.token)
    await until(lambda: len(worker.receipts) == 1)
    assert len(worker.assignments) == 1
    assert types_of(store).count("AttemptLeased") == 1


async def test_a_lost_answer_of_a_stored_group_is_settled_as_stored(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    faults.next = [AppendFault(Fault.LOST_AFTER)]
    await start(kernel)
    assert types_of(store) == ["RunStarted"]


async def test_details_are_recorded_and_given_to_the_next_attempt(
    kernel: Kernel, store: MemoryStore
) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    for count in range(3):
        details = Payload(json=str(count))
        worker.say(renewals=[work_pb2.Renewal(token=token, details=details)])
    released = work_pb2.Outcome(token=token, released=work_pb2.OutcomeReleased())
    worker.say(outcomes=[released])
    assert (await leased(worker, 2)).last_details.json == "2"
    assert types_of(store).count("AttemptProgressed") == 1


async def test_a_spawn_under_a_lease_is_answered_and_dispatched(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    await start(kernel, graph(task("a", may_spawn=True)))
    token = (await leased(worker)).token
    spawn = work_pb2.Spawn(token=token, request_id="s", tasks=[task("child")])
    worker.say(spawns=[spawn])
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].kind == work_pb2.RECEIPT_KIND_SPAWN
    assert worker.receipts[0].request_id == "s"
    await until(lambda: [one.task for one in worker.assignments] == ["a", "a/child"])


async def test_a_draining_kernel_leases_nothing_more(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    await kernel.drain("ending", 0)
    await start(kernel)
    assert worker.frames[-1].HasField("drain")
    assert not worker.assignments


async def test_outcomes_heard_before_the_stream_was_lost_count(kernel: Kernel) -> None:
    """A frame is worked off in parts; a cut in between, or a goodbye, must not undo the rest."""
    worker = FrameWorker(kernel, credits=100)
    tasks = [task(f"t{number}") for number in range(80)]
    run_id = (await start(kernel, graph(*tasks))).answer.run_id
    await leased(worker, 80)
    succeeded = work_pb2.OutcomeSucceeded(result=Payload(json="1"))
    worker.say(
        outcomes=[
            work_pb2.Outcome(token=one.token, succeeded=succeeded) for one in worker.assignments
        ],
        goodbye=work_pb2.Goodbye(),
    )
    worker.cut()
    answered = await kernel.partition.calls.wait_ended(NAMESPACE, RunId(run_id), 10**10)
    assert answered.answer.task_counts.succeeded_count == 80


async def test_a_renewal_refused_for_an_end_that_is_not_stored_holds_after_all(
    kernel: Kernel, faults: PlannedFaults
) -> None:
    worker = FrameWorker(kernel)
    run_id = (await start(kernel)).answer.run_id
    token = (await leased(worker)).token
    append_count = faults.append_count
    faults.next = [AppendFault(Fault.REFUSED, before_s=0.02)] * 4
    killing = asyncio.create_task(steer(kernel, run_id, steering(kernel, commands.Kill)))
    await until(lambda: faults.append_count > append_count)
    worker.say(renewals=[work_pb2.Renewal(token=token)])
    with pytest.raises(StoreUnsettled):
        await killing
    worker.succeed(token)
    await until(lambda: len(worker.receipts) > 0)
    assert [receipt.kind for receipt in worker.receipts] == [work_pb2.RECEIPT_KIND_OUTCOME]
    assert worker.receipts[0].status.code == 0
