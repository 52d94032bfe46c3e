"""Many starts in one call, and many ends told to one follower: each item judged by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import Exhausted, InvalidArgument, NotFound, Refusal, Unavailable
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import Namespace, RequestId, RunId
from stretto_core.rpc.status import from_status
from stretto_kernel.app.asking import Answered
from stretto_kernel.app.run_calls import Caller, RunStart
from stretto_kernel.app.run_ends import (
    ENDS_BYTES_MAX,
    ENDS_PER_MESSAGE_MAX,
    UNANSWERED_MAX,
    Named,
    RunEnd,
    RunEnds,
)
from stretto_kernel.domain.requests import RequestIdReused
from stretto_kernel.domain.run import commands
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.run_batches import hear_names, to_results

from tests.unit.kernel.harness import (
    IDS,
    NAMESPACE,
    USER,
    FrameWorker,
    PlannedFaults,
    graph,
    new_store,
    start,
    start_batch,
    start_kernel,
    task,
    types_of,
)
from tests.unit.kernel.test_kernel import steer, steering
from tests.waiting import until


@pytest.fixture
def store() -> MemoryStore:
    return new_store()


@pytest.fixture
def faults() -> PlannedFaults:
    return PlannedFaults()


@pytest.fixture
async def kernel(store: MemoryStore, faults: PlannedFaults) -> AsyncIterator[Kernel]:
    kernel = await start_kernel(store, faults=faults)
    yield kernel
    await kernel.stop()


def a_start(
    kernel: Kernel, request_id: str = "", plan: plan_pb2.TaskGraph | None = None
) -> RunStart:
    request_id, plan = request_id or IDS.uuid7(), plan or graph()
    digest = plan.SerializeToString(deterministic=True)[:32].ljust(32)
    command = commands.StartRun(
        now_ns=kernel.ports.clock.now_ns(),
        request_id=RequestId(request_id),
        request_digest=digest,
        graph=plan,
    )
    caller = Caller(principal=USER, request_id=request_id, request_digest=digest)
    return RunStart(NAMESPACE, command, caller)


def a_name(run_id: str, namespace: str = "default") -> Named:
    name = f"namespaces/{namespace}/runs/{run_id}"
    return Named(name, Namespace(namespace), RunId(run_id))


def followed(kernel: Kernel, *run_ids: str) -> RunEnds:
    ends = RunEnds(kernel.partition.host, kernel.partition.calls)
    for run_id in run_ids:
        ends.name(a_name(run_id))
    return ends


async def kill(kernel: Kernel, run_id: str) -> None:
    await steer(kernel, run_id, steering(kernel, commands.Kill))


async def test_each_start_is_answered_in_its_place(kernel: Kernel, store: MemoryStore) -> None:
    again = IDS.uuid7()
    wrong = plan_pb2.TaskGraph(tasks=[task("a"), task("a")])
    outcomes = await start_batch(
        kernel,
        [
            a_start(kernel, again),
            InvalidArgument("as parsed"),
            a_start(kernel, plan=wrong),
            a_start(kernel, again),
            a_start(kernel, again, graph(task("other"))),
            a_start(kernel),
        ],
    )
    runs = [each.answer.run_id if isinstance(each, Answered) else None for each in outcomes]
    assert runs[0] == runs[3] is not None
    assert runs[5] not in (None, runs[0])
    assert str(outcomes[1]).startswith("as parsed")
    assert isinstance(outcomes[2], InvalidArgument)
    assert isinstance(outcomes[4], RequestIdReused)
    assert types_of(store) == ["RunStarted", "RunStarted"], "what was refused left nothing"
    positions = [each.position for each in outcomes if isinstance(each, Answered)]
    assert positions[0] == positions[1] != positions[2]


async def test_starts_go_in_few_groups(kernel: Kernel, faults: PlannedFaults) -> None:
    before = faults.append_count
    starts = [a_start(kernel) for _ in range(200)]
    assert len(await start_batch(kernel, starts)) == 200
    assert faults.append_count - before <= 200 / 20


async def test_ids_that_may_be_old_are_looked_up_together(
    kernel: Kernel, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = []
    plain = kernel.ports.log.existing_streams

    async def counted(streams: list[str]) -> object:
        lookups.append(len(streams))
        return await plain(streams)  # type: ignore[arg-type]

    monkeypatch.setattr(kernel.ports.log, "existing_streams", counted)
    names = [f"not-a-uuid-{number}" for number in range(30)]
    first = await start_batch(kernel, [a_start(kernel, name) for name in names])
    again = await start_batch(kernel, [a_start(kernel, name) for name in names])
    assert [_run_id(each) for each in first] == [_run_id(each) for each in again]
    assert types_of(store) == ["RunStarted"] * 30
    assert sum(lookups) == 30 and len(lookups) <= 2


async def test_a_group_that_is_not_stored_is_decided_again(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    faults.next = [AppendFault(Fault.REFUSED)]
    outcomes = await start_batch(kernel, [a_start(kernel) for _ in range(5)])
    assert all(isinstance(each, Answered) for each in outcomes)
    assert types_of(store) == ["RunStarted"] * 5


async def test_ends_are_told_as_they_come(kernel: Kernel) -> None:
    runs = [(await start(kernel)).answer.run_id for _ in range(3)]
    ends = followed(kernel, *runs, runs[0])
    waiting = asyncio.ensure_future(ends.next())
    await kill(kernel, runs[1])
    (told,) = await waiting
    assert told.name == a_name(runs[1]).name
    assert told.run is not None
    assert told.run.state == run_pb2.RUN_STATE_KILLED
    assert told.position > 0
    ends.end_names()
    await kill(kernel, runs[0])
    await kill(kernel, runs[2])
    rest = [end.name for end in await ends.next()]
    while len(rest) < 2:
        rest += [end.name for end in await ends.next()]
    assert rest == [a_name(runs[0]).name, a_name(runs[2]).name], "once each"
    assert await ends.next() == [], "all names were told of"


async def test_an_end_is_told_once_it_is_committed(
    kernel: Kernel, store: MemoryStore, faults: PlannedFaults
) -> None:
    run_id = (await start(kernel)).answer.run_id
    ends = followed(kernel, run_id)
    waiting = asyncio.ensure_future(ends.next())
    faults.next = [AppendFault(Fault.REFUSED)]
    await kill(kernel, run_id)
    (told,) = await waiting
    assert told.run is not None
    assert told.position == store.events[-1].position


async def test_runs_that_left_memory_are_told_of(store: MemoryStore) -> None:
    first = await start_kernel(store)
    run_id = (await start(first)).answer.run_id
    await kill(first, run_id)
    open_id = (await start(first)).answer.run_id
    await first.stop()
    kernel = await start_kernel(store)
    ends = followed(kernel, run_id, "p0-0123456789ab0123456789abcdef0123", open_id)
    ends.name(a_name(run_id, "another"))
    told: dict[str, RunEnd] = {}
    while len(told) < 3:
        told |= {end.name: end for end in await ends.next()}
    assert told[a_name(run_id).name].run is not None
    unknown = [told[a_name("p0-0123456789ab0123456789abcdef0123").name]]
    unknown.append(told[a_name(run_id, "another").name])
    ends.name(a_name(open_id, "another"))  # This one is in memory.
    unknown += await ends.next()
    assert all(isinstance(end.refused, NotFound) for end in unknown)
    await kill(kernel, open_id)
    assert [end.name for end in await ends.next()] == [a_name(open_id).name]
    await kernel.stop()


async def test_a_stream_waits_for_so_many_and_refuses_the_rest(kernel: Kernel) -> None:
    ends = followed(kernel, *(f"p0-{number:032x}" for number in range(UNANSWERED_MAX + 1)))
    told = await ends.next()
    assert len(told) <= ENDS_PER_MESSAGE_MAX
    assert told[0].refused is not None
    assert told[0].refused.reason_word == "OVERLOADED"
    ends.close()


async def test_a_follower_that_is_gone_leaves_nothing_behind(kernel: Kernel) -> None:
    run_id = (await start(kernel)).answer.run_id
    ends = followed(kernel, run_id)
    ends.close()
    run = kernel.partition.host.find(RunId(run_id))
    assert run is not None
    assert all(watcher.done() for watcher in run.end_watchers)
    await kill(kernel, run_id)


async def test_who_waits_for_an_end_costs_the_same_however_many_do(kernel: Kernel) -> None:
    run = kernel.partition.host.find(RunId((await start(kernel)).answer.run_id))
    assert run is not None
    looks = 0

    class Watcher(asyncio.Future[None]):
        def done(self) -> bool:
            nonlocal looks
            looks += 1
            return super().done()

    live = [Watcher() for _ in range(1_000)]
    for watcher in live:
        run.watch_end(watcher)
    assert looks <= 2 * len(live)
    for watcher in live:
        watcher.cancel()
    for _ in range(4_000):
        gone = Watcher()
        gone.cancel()
        run.watch_end(gone)
    assert len(run.end_watchers) <= 2 * len(live), "who is gone is let go of"


async def test_a_kernel_that_ends_ends_the_wait(store: MemoryStore) -> None:
    kernel = await start_kernel(store)
    ends = followed(kernel, (await start(kernel)).answer.run_id)
    waiting = asyncio.ensure_future(ends.next())
    await kernel.stop()
    with pytest.raises(Unavailable) as ended:
        await waiting
    assert ended.value.reason_word == "DRAINING"


async def test_a_result_and_its_end_are_told_to_followers_of_many(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    worker.grant(10)
    outcomes = await start_batch(kernel, [a_start(kernel) for _ in range(10)])
    ends = followed(kernel, *(_run_id(each) for each in outcomes))
    await until(lambda: len(worker.assignments) == 10)
    for assignment in worker.assignments:
        worker.succeed(assignment.token)
    told = await ends.next()
    while len(told) < 10:
        told += await ends.next()
    assert {end.run.state for end in told if end.run} == {run_pb2.RUN_STATE_SUCCEEDED}


def _run_id(outcome: Answered[run_pb2.Run] | Refusal) -> str:
    assert isinstance(outcome, Answered), outcome
    run_id: str = outcome.answer.run_id
    return run_id


async def test_who_names_and_does_not_read_is_not_read_any_more(kernel: Kernel) -> None:
    ends = followed(kernel)
    read_count = 0

    async def wrong_names() -> AsyncIterator[pb.AwaitRunsRequest]:
        nonlocal read_count
        while True:
            read_count += 1
            yield pb.AwaitRunsRequest(names=[f"wrong {number}" for number in range(1_000)])

    hearing = asyncio.create_task(hear_names(wrong_names(), ends))
    for _ in range(100):
        await asyncio.sleep(0)
    assert read_count == 5, "as many refusals wait as names may, and what the last message held"
    for _ in range(10):
        await ends.next()
    await until(lambda: read_count == 7)
    hearing.cancel()
    ends.close()


async def test_others_run_between_starts_that_are_refused(kernel: Kernel) -> None:
    """A plan that is wrong may be as large as any: what it took to say so is not known here."""
    turns = parsed = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def refused() -> Iterator[Refusal]:
        nonlocal parsed
        for parsed in range(10):
            assert turns >= parsed
            yield InvalidArgument("the plan is wrong")

    beside = asyncio.create_task(others())
    assert len(await start_batch(kernel, refused())) == 10
    beside.cancel()


async def test_large_ends_are_told_in_several_messages(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    worker.grant(40)
    output = plan_pb2.Binding(task_output=plan_pb2.TaskOutputRef(task="a"))
    plan = plan_pb2.TaskGraph(tasks=[task("a")], output=output)
    outcomes = await start_batch(kernel, [a_start(kernel, plan=plan) for _ in range(40)])
    ends = followed(kernel, *(_run_id(each) for each in outcomes))
    await until(lambda: len(worker.assignments) == 40)
    for assignment in worker.assignments:
        worker.succeed(assignment.token, f'"{"x" * 60_000}"')
    await until(lambda: len(ends._ended) == 40)
    told = await ends.next()
    assert sum(end.run.ByteSize() for end in told if end.run) < ENDS_BYTES_MAX + 100_000
    ends.close()


@pytest.mark.parametrize("looks_between", [True, False])
async def test_an_end_that_was_opened_again_before_it_was_told_is_not_told(
    kernel: Kernel, store: MemoryStore, looks_between: bool
) -> None:
    run_id = (await start(kernel)).answer.run_id
    ends = followed(kernel, run_id)
    await kill(kernel, run_id)
    await until(lambda: len(ends._ended) == 1)
    await steer(kernel, run_id, steering(kernel, commands.Retry, tasks=(), step_count=100))
    telling = asyncio.ensure_future(ends.next())
    if looks_between:
        await asyncio.sleep(0)
        assert not telling.done()
    # Else it looks while the next end is decided and not committed.
    await kill(kernel, run_id)
    (told,) = await telling
    assert told.run is not None
    assert told.run.state == run_pb2.RUN_STATE_KILLED
    assert told.position == store.events[-1].position, "the newer end, once it is committed"


async def test_a_replaced_owner_tells_no_end(kernel: Kernel, store: MemoryStore) -> None:
    """It does not know whether the run was opened again since."""
    run_id = (await start(kernel)).answer.run_id
    await kill(kernel, run_id)
    newer = await start_kernel(store, exclusive=False)
    ends = followed(kernel, run_id)
    with pytest.raises(Unavailable):
        await ends.next()
    await newer.stop()


def test_started_runs_that_do_not_fit_into_the_answer_say_so_one_by_one() -> None:
    many = [Answered(run_pb2.Run(name=f"r{n}", labels={"k": "v" * 9_000}), n) for n in range(450)]
    refused = [NotFound("n" * 900, run_id="r" * 200)] * 50
    results = to_results([*many, *refused], "p0").results
    assert sum(result.ByteSize() for result in results) < 4 << 20
    assert [result.WhichOneof("result") for result in results[:300]] == ["started"] * 300
    told = [from_status(result.refused) for result in results[-150:]]
    assert {(type(one), one.reason_word) for one in told[:100]} == {
        (Exhausted, "MESSAGE_TOO_LARGE")
    }
    assert [one.metadata["name"] for one in told[:2]] == ["r350", "r351"]
    assert {type(one) for one in told[100:]} == {NotFound}
