"""The blackboard as programs and tasks use it, with and without an event loop, over real calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from stretto.blackboard.v1 import blackboard_service_pb2 as pb
from stretto.blackboard.v1.blackboard_pb2 import WRITER_KIND_OPERATOR, Entry, Writer
from stretto.blackboard.v1.blackboard_service_pb2_grpc import (
    BlackboardServiceServicer,
    add_BlackboardServiceServicer_to_server,
)
from stretto_core.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
)
from stretto_core.rpc.server import RpcServer, ServerSettings
from stretto_sdk import Client, Plan, Run, SyncClient, SyncTaskContext, TaskContext, Worker
from stretto_sdk.blackboard import WriterKind

from tests.integration.kernel.serving import Served, served
from tests.integration.worker.test_with_kernel import serving
from tests.waiting import until

PATIENCE_S = 60.0


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database) as kernel:
        yield kernel


async def idle(client: Client) -> Run:
    """Start a run whose task nobody serves."""
    plan = Plan("idle")
    plan.task("a", executor="python", function="nobody", queue="nobody")
    return await client.start(plan)


async def test_a_program_writes_reads_and_deletes(kernel: Served) -> None:
    async with Client(kernel.address) as client:
        board = client.blackboard(await idle(client))
        assert await board.get("context/goal", "none yet") == "none yet"
        first = await board.put("context/goal", {"aim": 42}, expected=0)
        seen = await board.entry("context/goal")
        assert seen is not None
        assert (seen.value, seen.revision, seen.writer_kind) == (
            {"aim": 42},
            first,
            WriterKind.OPERATOR,
        )
        assert seen.write_time.tzinfo is UTC and seen.write_time <= datetime.now(UTC)
        with pytest.raises(Conflict) as refused:
            await board.put("context/goal", 43, expected=0)
        assert refused.value.metadata["current_revision"] == str(first)
        both = await board.put_all({"context/a": b"\0\1", "context/b": None}, {"context/a": 0})
        found = await board.entries_of("context/a", "context/b", "context/c")
        assert {key: (each.value, each.revision) for key, each in found.items()} == {
            "context/a": (b"\0\1", both),
            "context/b": (None, both),
        }
        keys = [each.key async for each in board.list("context/", filter="writer_kind = OPERATOR")]
        assert keys == ["context/a", "context/b", "context/goal"]
        assert await board.delete("context/a", "context/b") > both
        assert await board.delete("context/a") == 0
        with pytest.raises(InvalidArgument):
            await board.put_all({"context/a": 1}, {"context/b": 0})
        with pytest.raises(InvalidArgument):
            await board.put(":context/a", 1)


async def test_a_large_value_comes_back_as_it_was(kernel: Served) -> None:
    async with Client(kernel.address) as client:
        board = client.blackboard(await idle(client))
        large = ["x" * 1_000] * 200
        await board.put("context/large", large)
        assert await board.get("context/large") == large
        assert [each.value async for each in board.list("context/")] == [large]


async def test_a_watch_is_resumed_and_ends_with_the_run(kernel: Served) -> None:
    async with Client(kernel.address) as client:
        run = await idle(client)
        board = client.blackboard(run)
        first = await board.put("context/a", 1)
        await board.put("context/b", 2)
        told: list[tuple[str, object, bool]] = []

        async def watch() -> None:
            async for entry in board.watch("context/", after=first):
                told.append((entry.key, entry.value, entry.deleted))

        watching = asyncio.create_task(watch())
        await until(lambda: len(told) == 1)
        await board.delete("context/a")
        await client.kill(run)
        await asyncio.wait_for(watching, PATIENCE_S)
        assert told == [("context/b", 2, False), ("context/a", None, True)]


def an_entry(key: str, revision: int) -> Entry:
    return Entry(key=key, revision=revision, writer=Writer(kind=WRITER_KIND_OPERATOR))


class BreakingBoard(BlackboardServiceServicer):
    """Lists two entries in two messages; the first time it breaks in between, and one is gone."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []

    async def WatchEntries(self, request: Any, context: Any) -> AsyncIterator[Any]:
        after = request.after_revision if request.HasField("after_revision") else None
        self.asked.append(after)
        if len(self.asked) == 1:
            yield pb.WatchEntriesResponse(changes=[an_entry("context/a", 2)])
            raise Unavailable("moved", retry_delay_ms=1)
        if after is None:
            yield pb.WatchEntriesResponse(changes=[an_entry("context/b", 3)])
            yield pb.WatchEntriesResponse(changes=[an_entry("context/c", 4)], revision=5)
            raise Unavailable("moved", retry_delay_ms=1)
        yield pb.WatchEntriesResponse(revision=6, ended=True)


async def test_a_watch_that_breaks_among_what_is_there_tells_nothing_that_is_gone() -> None:
    board = BreakingBoard()  # type: ignore[abstract]
    server = RpcServer(ServerSettings())
    server.add(add_BlackboardServiceServicer_to_server, board)
    port = await server.start()
    await server.set_serving()
    async with Client(f"127.0.0.1:{port}") as client:
        run = "namespaces/default/runs/p0-0123456789abcdef0123456789abcdef"
        told = [each.key async for each in client.blackboard(run).watch()]
    await server.drain(0)
    assert told == ["context/b", "context/c"]
    assert board.asked == [None, None, 5]


async def test_tasks_coordinate_with_and_without_a_loop(kernel: Served) -> None:
    """`make` counts up in its own scope; `follow` waits for the third of it, in a thread."""
    worker = Worker(kernel.address, name="w")

    written = threading.Event()

    @worker.task
    def gate(ctx: SyncTaskContext) -> None:
        written.wait(PATIENCE_S)

    @worker.task
    async def make(ctx: TaskContext, goal: int) -> dict[str, int]:
        assert ctx.board_revisions["goal"] > 0
        board = ctx.blackboard
        for number in range(goal):
            await board.put(":progress/made", number + 1)
        with pytest.raises(PermissionDenied):
            await board.put("follow:progress/made", 1)
        with pytest.raises(PermissionDenied):
            await board.put("context/goal", 1)
        return dict(ctx.board_revisions)

    @worker.task
    def follow(ctx: SyncTaskContext) -> list[object]:
        seen: list[object] = []
        for entry in ctx.blackboard.watch("make:progress/"):
            seen.append(entry.value)
            if entry.value == 3:
                break
        ctx.blackboard.put(":result/seen", len(seen), expected=0)
        assert ctx.blackboard.get(":result/seen") == len(seen)
        return seen

    plan = Plan("pair")
    opened = plan.task("gate", executor="python", function="gate")
    plan.task(
        "make",
        executor="python",
        function="make",
        after=[opened],
        inputs={"goal": plan.board("context/goal", "/aim")},
    )
    followed = plan.task("follow", executor="python", function="follow")
    plan.output = followed.output()
    async with serving(worker), Client(kernel.address) as client:
        run = await client.start(plan)
        revision = await client.blackboard(run).put("context/goal", {"aim": 3})
        assert revision > 0
        written.set()
        assert await asyncio.wait_for(client.result(run), PATIENCE_S) == [1, 2, 3]


async def test_a_blocking_watch_ends_when_the_task_is_asked_to_stop(kernel: Served) -> None:
    worker = Worker(kernel.address, name="w")
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    @worker.task
    def follow(ctx: SyncTaskContext) -> None:
        loop.call_soon_threadsafe(began.set)
        for _ in ctx.blackboard.watch("nobody:progress/"):
            raise AssertionError("nobody writes")

    plan = Plan("waits")
    plan.task("follow", executor="python", function="follow")
    async with serving(worker), Client(kernel.address) as client:
        run = await client.start(plan)
        await asyncio.wait_for(began.wait(), PATIENCE_S)
        await client.cancel(run, grace="20s")
        ended = await asyncio.wait_for(client.wait(run), PATIENCE_S)
        (task,) = await client.tasks(run)
        assert ended.state == "CANCELLED" and task.state == "CANCELLED"


async def test_a_task_whose_lease_was_passed_on_writes_nothing_more(kernel: Served) -> None:
    refusals: list[str] = []
    worker = Worker(kernel.address, name="w")

    @worker.task
    def write(ctx: SyncTaskContext) -> None:
        ctx.blackboard.put(":progress/a", 1)
        ctx.cancelled.wait(PATIENCE_S)
        try:
            ctx.blackboard.put(":progress/a", 2)
        except FailedPrecondition as refused:
            refusals.append(refused.reason_word)

    plan = Plan("killed")
    plan.task("a", executor="python", function="write")
    async with serving(worker), Client(kernel.address) as client:
        run = await client.start(plan)
        board = client.blackboard(run)
        async for entry in board.watch("a:"):
            assert entry.writer_kind == WriterKind.WORKER and entry.writer == "w"
            break
        await client.kill(run)
        await until(lambda: bool(refusals))
        assert refusals == ["LEASE_LOST"]
        assert await board.get("a:progress/a") == 1


async def test_a_program_without_a_loop(kernel: Served) -> None:
    async with Client(kernel.address) as client:
        run = await idle(client)

    def program() -> list[object]:
        with SyncClient(kernel.address) as blocking:
            board = blocking.blackboard(run)
            board.put("context/a", 1)
            board.put("context/a", 2)
            blocking.kill(run)
            return [entry.value for entry in board.watch("context/")]

    assert await asyncio.wait_for(asyncio.to_thread(program), PATIENCE_S) == [2]
