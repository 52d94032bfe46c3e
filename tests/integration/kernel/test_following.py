"""Following runs and the log over real gRPC: seams, filters, limits, breaks, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import Refusal
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.localstack.postgres import FAST, EmbeddedPostgres
from stretto_core.rpc.status import from_rpc_error
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.servicers.page_tokens import encode_cursor
from stretto_sdk import Client
from stretto_sdk.runs import Event

from tests.cut_connections import cut_connections
from tests.integration.kernel.serving import IDS, PARTITION, Served, StreamWorker, served, task
from tests.waiting import until

FORM = log_pb.EventForm(body_json=True)
BUDGET = timedelta(seconds=30)


async def refusal_of(call: Any) -> Refusal:
    """Return what ends a stream."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in call:
            pass
    return from_rpc_error(refused.value)


async def run_many(kernel: Served, worker: StreamWorker, count: int) -> None:
    """Start runs of one task and see them to their end."""
    await asyncio.gather(*(kernel.start() for _ in range(count)))
    await finish(worker, count)


async def finish(worker: StreamWorker, count: int) -> None:
    """See so many tasks that were offered to their end; one offered twice is one."""
    await until(lambda: len(unfinished(worker)) >= count)
    offered = unfinished(worker)
    for token in offered.values():
        worker.succeed(token)
    await until(lambda: not offered.keys() & unfinished(worker).keys())


def unfinished(worker: StreamWorker) -> dict[tuple[str, int], LeaseToken]:
    """Return the leases that the worker has no receipt for."""
    given = ((each.token.work_item, each.token.epoch) for each in worker.receipts)
    tokens = [assignment.token for assignment in worker.assignments]
    held = {(token.work_item, token.epoch): token for token in tokens}
    for key in given:
        held.pop(key, None)
    return held


async def recorded(kernel: Served) -> list[tuple[str, int]]:
    """Return (stream, version) of the whole log, in its order."""
    page = await kernel.log.read_all(limit=100_000, bytes_max=1 << 30)
    return [(event.stream, event.version) for event in page.events]


class Follower:
    """Follows with the client and counts."""

    def __init__(self, client: Client, **wanted: object) -> None:
        self.events: list[Event] = []
        self.task = asyncio.create_task(self._follow(client, wanted))

    async def _follow(self, client: Client, wanted: dict[str, object]) -> None:
        async with aclosing(client.events(follow=True, **wanted)) as events:  # type: ignore[arg-type]
            async for event in events:
                self.events.append(event)

    @property
    def places(self) -> list[tuple[str, int]]:
        return [(event.stream, event.version) for event in self.events]

    async def end(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_who_follows_over_broken_connections_hears_of_every_event_once(
    kernel: Served, seed: int
) -> None:
    worker = StreamWorker(kernel.channel, credit_count=1_000)
    await run_many(kernel, worker, 30)
    some_run = (await recorded(kernel))[0][0]
    async with (
        cut_connections(kernel.address, seed, bytes_max=30_000) as way,
        Client(way.address, retry_budget=BUDGET) as client,
        Client(way.address, retry_budget=BUDGET) as other,
    ):
        everything = Follower(client)
        ends = Follower(other, types=["RunSucceeded", "runfailed"])
        one_run = Follower(other, run=some_run)
        watched = (await kernel.start(task("last"))).run
        seen: list[tuple[int, tuple[str, ...]]] = []

        async def watch() -> None:
            async with aclosing(other.watch(watched.run_id, tasks=True)) as changes:
                async for change in changes:
                    seen.append((change.run.version, tuple(t.name for t in change.tasks)))

        watching = asyncio.create_task(watch())
        await finish(worker, 1)
        for _ in range(10):
            await run_many(kernel, worker, 20)
        await until(lambda: way.cut_count >= 5)
        await until(watching.done)
        way.bytes_max = None
        expected = await recorded(kernel)
        await until(lambda: len(everything.events) >= len(expected))
        assert everything.places == expected
        last_versions = [place for place in expected if place[1] == 4]
        await until(lambda: len(ends.events) >= len(last_versions))
        assert ends.places == last_versions
        assert one_run.places == [place for place in expected if place[0] == some_run]
        assert seen[-1][0] == 4 and [v for v, _ in seen] == sorted({v for v, _ in seen})
        for follower in (everything, ends, one_run):
            await follower.end()
    await worker.cut()


async def test_filters_say_what_is_given_and_the_cursor_of_any_event_resumes(
    kernel: Served,
) -> None:
    worker = StreamWorker(kernel.channel, credit_count=1_000)
    await kernel.start(parent="namespaces/acme")
    await finish(worker, 1)
    await run_many(kernel, worker, 3)
    async with Client(kernel.address, retry_budget=BUDGET) as client:
        acme = Follower(client, namespace="acme", types=["AttemptLeased", "RunSucceeded"])
        await until(lambda: len(acme.events) == 2)
        everything = Follower(client)
        await until(lambda: len(everything.events) == 16)
        for event in everything.events:
            rest = Follower(client, cursor=event.cursor)
            after = everything.places[everything.places.index((event.stream, event.version)) + 1 :]
            await until(lambda: len(rest.events) >= len(after))  # noqa: B023
            assert rest.places[len(rest.places) - len(after) :] == after
            await rest.end()
        for follower in (acme, everything):
            await follower.end()
    await worker.cut()


async def test_a_resumed_watch_gives_what_changed_since_and_nothing_else(kernel: Served) -> None:
    tasks = [task(f"t{number}") for number in range(20)]
    name = (await kernel.start(*tasks)).run.name
    worker = StreamWorker(kernel.channel, credit_count=20)
    await until(lambda: len(worker.assignments) == 20)
    watch = pb.WatchRunRequest(name=name, tasks=True)
    first = await anext(aiter(kernel.runs.WatchRun(watch)))
    assert len(first.tasks) == 20
    worker.succeed(worker.assignments[7].token)
    await until(lambda: len(worker.receipts) == 1)
    watch.after_version = first.version
    call = kernel.runs.WatchRun(watch)
    changes = aiter(call)
    assert [each.task for each in (await anext(changes)).tasks] == ["t7"]
    call.cancel()
    watch.after_version += 1
    later = aiter(kernel.runs.WatchRun(watch))
    waiting = asyncio.ensure_future(anext(later))
    worker.succeed(worker.assignments[3].token)
    assert [each.task for each in (await waiting).tasks] == ["t3"], "nothing is told before"
    await kernel.runs.PauseRun(pb.PauseRunRequest(name=name, request_id=IDS.uuid7()))
    resumed = await anext(aiter(kernel.runs.WatchRun(watch)))
    assert len(resumed.tasks) == 20, "a hold concerns all of them"
    watch.after_version = 1_000
    refused = await refusal_of(kernel.runs.WatchRun(watch))
    assert (refused.reason_word, type(refused).__name__) == ("OUT_OF_RANGE", "OutOfRange")
    await worker.cut()


async def test_a_slow_subscriber_is_cut_off_with_its_cursor(fresh_database: str) -> None:
    limits = FollowLimits(buffer_events_max=5, subscribers_max=3, watchers_max=1)
    async with served(fresh_database, follow=limits) as kernel:
        await kernel.start()
        call = kernel.events.Subscribe(log_pb.SubscribeRequest(form=FORM))
        answers = aiter(call)
        first = await anext(answers)
        counted = [(each.event.stream, each.event.version) for each in first.events]
        large = {"input": {"json": '"' + "x" * 50_000 + '"'}}
        for _ in range(120):  # More than the connection takes by itself.
            await kernel.start(**large)
        cut: Refusal | None = None
        try:
            async for answer in answers:
                first = answer
                counted += [(each.event.stream, each.event.version) for each in answer.events]
        except grpc.aio.AioRpcError as error:
            cut = from_rpc_error(error)
        assert cut is not None and cut.reason_word == "SUBSCRIBER_TOO_SLOW"
        assert cut.metadata["cursor"] == first.cursor and cut.retry_delay_ms is not None
        request = log_pb.SubscribeRequest(form=FORM, cursor=cut.metadata["cursor"])
        again = kernel.events.Subscribe(request)
        expected = await recorded(kernel)
        async for answer in again:
            counted += [(each.event.stream, each.event.version) for each in answer.events]
            if len(counted) >= len(expected):
                break
        assert counted == expected
        again.cancel()


async def test_limits_and_bad_requests_say_what_is_wrong(fresh_database: str) -> None:
    limits = FollowLimits(subscribers_max=1, watchers_max=1)
    async with served(fresh_database, follow=limits) as kernel:
        name = (await kernel.start()).run.name
        beyond = encode_cursor({PARTITION: 1_000})
        for ahead in (
            await refusal_of(kernel.events.Subscribe(log_pb.SubscribeRequest(cursor=beyond))),
            await refusal_of(one(kernel.events.ReadAll(log_pb.ReadAllRequest(cursor=beyond)))),
        ):
            assert type(ahead).__name__ == "OutOfRange"
            assert ahead.metadata == {"position": "1000", "newest_position": "1"}
        for request in (
            log_pb.SubscribeRequest(types=["not a type"]),
            log_pb.SubscribeRequest(types=["RunFaild"]),
            log_pb.SubscribeRequest(types=["T"] * 33),
            log_pb.SubscribeRequest(after_version=3),
            log_pb.SubscribeRequest(namespace="Not One"),
        ):
            refused = await refusal_of(kernel.events.Subscribe(request))
            assert refused.reason_word == "INVALID_ARGUMENT"
        held = kernel.runs.WatchRun(pb.WatchRunRequest(name=name))
        await anext(aiter(held))
        following = kernel.events.Subscribe(log_pb.SubscribeRequest())
        await anext(aiter(following))
        for refused in (
            await refusal_of(kernel.runs.WatchRun(pb.WatchRunRequest(name=name))),
            await refusal_of(kernel.events.Subscribe(log_pb.SubscribeRequest())),
        ):
            assert refused.reason_word == "OVERLOADED" and refused.retry_delay_ms is not None
        held.cancel()
        following.cancel()


@pytest.mark.parametrize("damage", ["state = '\\xff'", "topic = 'stretto.run.v1.Unheard'"])
async def test_a_damaged_event_ends_who_follows_and_nothing_is_passed_over(
    kernel: Served, fresh_database: str, damage: str
) -> None:
    for _ in range(3):
        await kernel.start()
    events = PartitionSchema(PARTITION).statement("{events}").as_string()
    if damage.startswith("topic"):
        state = (await kernel.log.read_all()).events[1].stored_bytes
        unheard = RecordedEvent.FromString(state)
        unheard.type = "stretto.run.v1.Unheard"
        damage = f"state = '\\x{unheard.SerializeToString().hex()}'"
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute(f"UPDATE {events} SET {damage} WHERE notification_id = 2".encode())
    given: list[int] = []

    async def follow() -> AsyncIterator[None]:
        async for answer in kernel.events.Subscribe(log_pb.SubscribeRequest(form=FORM)):
            given.extend(each.position.number for each in answer.events)
            yield

    refused = await refusal_of(follow())
    assert given == [1]
    assert refused.reason_word == "UNREADABLE_EVENT"
    assert refused.metadata["position"] == "2" and refused.metadata["version"] == "1"
    read = await kernel.events.ReadAll(log_pb.ReadAllRequest(form=FORM))
    assert [each.position.number for each in read.events] == [1] and read.more
    after = log_pb.ReadAllRequest(form=FORM, cursor=read.cursor)
    assert (await refusal_of(one(kernel.events.ReadAll(after)))).metadata["position"] == "2"


async def test_a_thousand_followers_ask_the_store_no_more_than_a_few(
    postgres_directory: Path,
) -> None:
    server = EmbeddedPostgres(
        directory=postgres_directory, settings={"shared_preload_libraries": "pg_stat_statements"}
    )
    await server.start()
    try:
        async with served(server.dsn()) as kernel:
            with psycopg.connect(server.dsn(), autocommit=True) as statements:
                statements.execute("CREATE EXTENSION pg_stat_statements")
                few = await _statements_of_work(kernel, statements, follower_count=2)
                many = await _statements_of_work(kernel, statements, follower_count=1_000)
    finally:
        await server.stop(FAST)
    # Each commit is an append and a pull by the one who follows for all. How often that one pulls,
    # and what else comes by, is the machine's; a statement for each follower would be 998 more.
    assert many <= few + 300, f"{many} statements for 1,000 followers, {few} for 2"


async def _statements_of_work(
    kernel: Served, statements: psycopg.Connection, *, follower_count: int
) -> int:
    """Return how many statements 40 runs take while so many follow: half runs, half the log."""
    names = [(await kernel.start()).run.name for _ in range(min(50, follower_count // 2))]
    told = [0] * follower_count

    async def follow(number: int) -> None:
        of = names[number % len(names)]
        stream = of.rpartition("/")[2] if number % 10 else ""
        call: Any = kernel.events.Subscribe(log_pb.SubscribeRequest(stream=stream))
        if number % 2:
            call = kernel.runs.WatchRun(pb.WatchRunRequest(name=of, tasks=True))
        with suppress(asyncio.CancelledError):
            async for _ in call:
                told[number] += 1

    following = [asyncio.create_task(follow(number)) for number in range(follower_count)]
    await until(lambda: all(told), deadline_s=60)
    for name in names[:20]:  # Everybody is live by the time these are heard of.
        await kernel.runs.PauseRun(pb.PauseRunRequest(name=name, request_id=IDS.uuid7()))
    before = sum(told)
    statements.execute("SELECT pg_stat_statements_reset()")
    for number in range(40):
        name = names[number % len(names)]
        hold = pb.PauseRunRequest(name=name, request_id=IDS.uuid7(), hold_id=f"h{number // 10}")
        await kernel.runs.PauseRun(hold)
    row = statements.execute(
        "SELECT sum(calls) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'"
    ).fetchone()
    assert row is not None
    await until(lambda: sum(told) > before)
    for task_ in following:
        task_.cancel()
    await asyncio.wait(following)
    return int(row[0])


async def one(call: Awaitable[object]) -> AsyncIterator[object]:
    """Yield the one answer of a call."""
    yield await call
