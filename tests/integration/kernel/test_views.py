"""Views on a real PostgreSQL: made again while writes go on, compared, stopped, lost and remade."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import psycopg
import pytest
from stretto.projection.v1 import projection_service_pb2 as pb
from stretto.projection.v1.projection_service_pb2_grpc import ProjectionServiceStub
from stretto.run.v1 import run_service_pb2 as run_pb
from stretto_core.errors import InvalidArgument, NotFound, OutOfRange
from stretto_core.rpc.health import is_serving
from stretto_core.rpc.status import from_rpc_error
from stretto_kernel.adapters.fresh_fold_table import FreshFoldTable, TableSnapshot
from stretto_kernel.adapters.relay_board import RelayBoardTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.fresh_folds import FoldPhase, FreshFold
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.store import Change, PositionMoved, Target
from stretto_kernel.projections.workers import WORKERS, WorkerRow
from stretto_kernel.relay.place import RELAY

from tests.integration.kernel.serving import PARTITION, Served, StreamWorker, served, task
from tests.waiting import until

SERVICE = "stretto.projection.v1.ProjectionService"


class Crash(Exception):
    """The planned end of a projector."""


class CrashingFolds(FreshFoldTable):
    """Ends its projector at a named point, as a kill would: nothing after it happens."""

    point = ""

    async def note(self, fold: FreshFold) -> None:
        if self.point == f"before {fold.phase.name}":
            raise Crash
        await super().note(fold)
        if self.point == f"after {fold.phase.name}":
            raise Crash

    async def snapshot(self, targets: Collection[Target]) -> TableSnapshot:
        if self.point == "snapshot":
            raise Crash
        return await super().snapshot(targets)

    async def swap(self, copies: Sequence[Target], done: FreshFold) -> int:
        if self.point == "before swap":
            raise Crash
        took_ns = await super().swap(copies, done)
        if self.point == "after swap":
            raise Crash
        return took_ns


def projector(kernel: Served, dsn: str, point: str = "") -> Projector:
    views = ViewTables(PARTITION, kernel.log.tracking)
    fresh = CrashingFolds(dsn, PARTITION, kernel.log.tracking)
    fresh.point = point
    return Projector(kernel.log, views, VIEWS, RUN_CODEC, fresh=fresh)


@asynccontextmanager
async def projecting(kernel: Served, dsn: str) -> AsyncIterator[None]:
    running = asyncio.create_task(projector(kernel, dsn).run())
    try:
        yield
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def work(kernel: Served, run_count: int) -> None:
    """Start runs of two tasks, one after the other, and see them to their end."""
    worker = StreamWorker(kernel.channel, credit_count=1_000)
    for _ in range(run_count):
        await kernel.start(task("a"), task("b", dependencies=[{"task": "a"}]))
    for task_count in (run_count, 2 * run_count):
        await until(lambda count=task_count: len(worker.assignments) == count)  # type: ignore[misc]
        for assignment in worker.assignments[task_count - run_count :]:
            worker.succeed(assignment.token)
    await until(lambda: len(worker.receipts) == 2 * run_count)
    await worker.cut()


async def following(kernel: Served) -> pb.ListViewsResponse:
    """Return the views once all of them are where the log is."""
    async with asyncio.timeout(60):
        while True:
            listed = await ProjectionServiceStub(kernel.channel).ListViews(pb.ListViewsRequest())
            if all(view.position == listed.log_position for view in listed.views):
                return listed


async def rebuild(kernel: Served, *views: str) -> list[pb.FreshFold]:
    call = ProjectionServiceStub(kernel.channel).RebuildViews(pb.RebuildViewsRequest(views=views))
    return [answer.progress async for answer in call]


async def compare(kernel: Served, *views: str) -> dict[str, bool]:
    """Return of each view whether it is what a fresh fold makes."""
    call = ProjectionServiceStub(kernel.channel).CompareViews(pb.CompareViewsRequest(views=views))
    *_, last = [answer.progress async for answer in call]
    assert last.done and not last.failure
    return {proof.view: proof.equal for proof in last.proofs}


async def tables(dsn: str) -> list[str]:
    """Return which tables of views there are, copies included."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        found = await connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'stretto_p0'::regnamespace"
        )
        names = [name for (name,) in await found.fetchall()]
    return sorted(name for name in names if name.removesuffix("_copy").removesuffix("_old"))


async def test_views_are_made_again_while_writes_go_on(kernel: Served, fresh_database: str) -> None:
    await work(kernel, 5)
    async with projecting(kernel, fresh_database):
        writing = asyncio.create_task(work(kernel, 5))
        told = await rebuild(kernel)
        await writing
        await following(kernel)
        assert all((await compare(kernel)).values())
    last = told[-1]
    assert last.done and not last.failure
    assert {proof.view for proof in last.proofs} == {view.name for view in VIEWS}
    assert all(proof.equal for proof in last.proofs)
    assert all(proof.live_digest == proof.fresh_digest for proof in last.proofs)
    assert last.swap.ToNanoseconds() > 0
    assert not [name for name in await tables(fresh_database) if name.endswith(("_copy", "_old"))]


async def test_a_damaged_view_is_found_and_mended(kernel: Served, fresh_database: str) -> None:
    await work(kernel, 2)
    async with projecting(kernel, fresh_database):
        await following(kernel)
        async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
            await connection.execute("UPDATE stretto_p0.tasks_v3 SET phase = 4 WHERE task = 'b'")
        assert await compare(kernel, "tasks", "attempts") == {"tasks": False, "attempts": True}
        *_, last = await rebuild(kernel, "tasks")
        assert [proof.equal for proof in last.proofs] == [False], "the live one was damaged"
        assert all((await compare(kernel)).values())


@pytest.mark.parametrize(
    "point",
    [
        "before BUILDING",
        "after BUILDING",
        "snapshot",
        "after PROVING",
        "before swap",
        "after swap",
        "before DONE",
        "after DONE",
    ],
)
async def test_a_rebuild_goes_on_over_the_death_of_the_projector(
    kernel: Served, fresh_database: str, point: str
) -> None:
    await work(kernel, 2)
    asking = asyncio.create_task(rebuild(kernel, "tasks", "run_index"))
    with pytest.RaisesGroup(Crash):
        await projector(kernel, fresh_database, point).run()
    await work(kernel, 1)
    async with projecting(kernel, fresh_database):
        *_, last = await asking
        assert last.phase == pb.FOLD_PHASE_DONE and not last.failure
        assert all(proof.equal for proof in last.proofs)
        await following(kernel)
        assert all((await compare(kernel)).values())
    assert not [name for name in await tables(fresh_database) if name.endswith(("_copy", "_old"))]


async def test_a_copy_that_was_built_is_not_built_again(
    kernel: Served, fresh_database: str
) -> None:
    await work(kernel, 2)
    asking = asyncio.create_task(rebuild(kernel, "tasks"))
    with pytest.RaisesGroup(Crash):
        await projector(kernel, fresh_database, "snapshot").run()
    built = await kernel.log.tracking_position("tasks_v3_copy")
    assert built > 0
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        await connection.execute("UPDATE stretto_p0.tasks_v3_copy SET queue = 'kept'")
    async with projecting(kernel, fresh_database):
        *_, last = await asking
    assert [proof.equal for proof in last.proofs] == [False], "what was built before is still there"


async def test_what_is_done_is_not_begun_again_by_a_second_projector(
    kernel: Served, fresh_database: str
) -> None:
    table = FreshFoldTable(fresh_database, PARTITION, kernel.log.tracking)
    fold = FreshFold(fold_id="f", views=("tasks",), swaps=False)
    await table.ask(fold)
    await table.note(replace(fold, phase=FoldPhase.DONE))
    await table.note(replace(fold, phase=FoldPhase.BUILDING))
    assert await table.open_fold() is None


async def test_a_copy_does_not_take_the_place_of_a_view_that_went_on(
    kernel: Served, fresh_database: str
) -> None:
    """A second projector stores into the live view between the proof and the exchange."""
    tables_of = ViewTables(PARTITION, kernel.log.tracking)
    live, copy = Target(WORKERS), Target(WORKERS, is_copy=True)
    await tables_of.prepare([live, copy])
    old, new = (WorkerRow(worker_id, "s", 1, 1, 1) for worker_id in ("old", "new"))
    both = [Change(live, [old]), Change(copy, [old])]
    await tables_of.save(both, after=0, position=5, event_count=1)
    await tables_of.save([Change(live, [new])], after=5, position=6, event_count=1)
    folds = FreshFoldTable(fresh_database, PARTITION, kernel.log.tracking)
    done = FreshFold(fold_id="f", views=("workers",), swaps=True)
    with pytest.raises(PositionMoved):
        await folds.swap([copy], done)
    await tables_of.save([Change(copy, [new])], after=5, position=6, event_count=1)
    await folds.swap([copy], done)
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        found = await connection.execute("SELECT worker_id FROM stretto_p0.workers_v2 ORDER BY 1")
        assert await found.fetchall() == [("new",), ("old",)]


async def test_tables_that_nobody_has_any_more_are_dropped(
    kernel: Served, fresh_database: str
) -> None:
    await work(kernel, 1)
    left = {"tasks_v3_old", "tasks_v1", "tasks_v1_copy"}
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        for name in left:
            await connection.execute(f"CREATE TABLE stretto_p0.{name} (n int)".encode())
    async with projecting(kernel, fresh_database):
        await following(kernel)
    assert not left.intersection(await tables(fresh_database))


async def test_everything_that_is_no_record_can_be_dropped_at_once(fresh_database: str) -> None:
    async with served(fresh_database) as kernel, projecting(kernel, fresh_database):
        await work(kernel, 3)
        before = await following(kernel)
        runs = await kernel.runs.ListRuns(run_pb.ListRunsRequest())
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        for name in await tables(fresh_database):
            if name not in ("events", "tracking"):
                await connection.execute(f'DROP TABLE stretto_p0."{name}"'.encode())
        await connection.execute("TRUNCATE stretto_p0.tracking")
    async with served(fresh_database) as kernel:
        absent = await ProjectionServiceStub(kernel.channel).ListViews(pb.ListViewsRequest())
        assert {view.state for view in absent.views} == {pb.VIEW_STATE_ABSENT}
        async with projecting(kernel, fresh_database):
            await work(kernel, 1)
            after = await following(kernel)
            assert after.log_position > before.log_position
            assert all((await compare(kernel)).values())
            listed = await kernel.runs.ListRuns(run_pb.ListRunsRequest())
            assert listed.runs[1:] == runs.runs


async def test_an_event_that_cannot_be_read_is_told_and_nothing_is_passed_over(
    kernel: Served, fresh_database: str
) -> None:
    await work(kernel, 1)
    await kernel.start()
    position = await kernel.log.position()
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        await connection.execute(
            "UPDATE stretto_p0.events SET topic = 'stretto.run.v1.NotKnown'"
            " WHERE notification_id = %s",
            [position],
        )
    stub = ProjectionServiceStub(kernel.channel)
    async with projecting(kernel, fresh_database), asyncio.timeout(60):
        while True:
            views = {
                view.name: view for view in (await stub.ListViews(pb.ListViewsRequest())).views
            }
            if all(view.state == pb.VIEW_STATE_STOPPED for view in views.values()):
                break
        stop = views["tasks"].stop
        assert (stop.position, stop.reason) == (position, "UNREADABLE_EVENT")
        assert views["tasks"].position < position
        while await is_serving(kernel.channel, SERVICE):
            pass
        assert await is_serving(kernel.channel), "runs are served all the same"
        *_, last = await rebuild(kernel, "tasks")
        assert last.done and last.failure_reason == "UNREADABLE_EVENT"
        assert str(position) in last.failure
    assert "tasks_v3" in await tables(fresh_database)
    assert "tasks_v3_copy" not in await tables(fresh_database)


async def test_a_table_that_takes_no_rows_stops_its_view_alone(
    kernel: Served, fresh_database: str
) -> None:
    """It is told: were it tried again and again, every view would stand still and look well."""
    async with await psycopg.AsyncConnection.connect(fresh_database, autocommit=True) as database:
        async with projecting(kernel, fresh_database):
            await work(kernel, 1)
            before = (await following(kernel)).log_position
        altered = "ALTER TABLE stretto_p0.tasks_v3"
        await database.execute(
            f"{altered} ADD CONSTRAINT never CHECK (phase < 0) NOT VALID".encode()
        )
        stub = ProjectionServiceStub(kernel.channel)
        async with projecting(kernel, fresh_database), asyncio.timeout(60):
            await work(kernel, 1)
            while True:
                listed = await stub.ListViews(pb.ListViewsRequest())
                views = {view.name: view for view in listed.views}
                tasks = views.pop("tasks")
                if all(view.position == listed.log_position for view in views.values()):
                    break
        assert (tasks.state, tasks.position) == (pb.VIEW_STATE_STOPPED, before)
        assert tasks.stop.reason == "ROWS_REFUSED" and tasks.stop.position > before
        assert "never" in tasks.stop.message
        assert all(view.state == pb.VIEW_STATE_FOLLOWING for view in views.values())
        await database.execute(f"{altered} DROP CONSTRAINT never".encode())
        async with projecting(kernel, fresh_database), asyncio.timeout(60):
            while tasks.state != pb.VIEW_STATE_FOLLOWING:
                tasks = next(
                    each for each in (await following(kernel)).views if each.name == "tasks"
                )
            assert all((await compare(kernel)).values())


async def stopped(kernel: Served, *names: str) -> dict[str, pb.View]:
    """Return the views once these stand still."""
    async with asyncio.timeout(20):
        while True:
            listed = await ProjectionServiceStub(kernel.channel).ListViews(pb.ListViewsRequest())
            views = {view.name: view for view in listed.views}
            if all(views[name].state == pb.VIEW_STATE_STOPPED for name in names):
                return views


async def test_a_view_that_stands_still_is_made_anew_once_the_cause_is_gone(
    kernel: Served, fresh_database: str
) -> None:
    """All of them stop before an event; it is mended; one after the other they are rebuilt."""
    await work(kernel, 1)
    *_, newest = (
        e for e in (await kernel.log.read_all()).events if e.type.endswith("RunSucceeded")
    )
    position = newest.position
    change = "UPDATE stretto_p0.events SET topic = %s WHERE notification_id = %s"
    async with await psycopg.AsyncConnection.connect(fresh_database, autocommit=True) as database:
        await database.execute(change, ["stretto.run.v1.NotKnown", position])
        async with projecting(kernel, fresh_database):
            await stopped(kernel, *(view.name for view in VIEWS))
            for _ in range(2):
                *_, refused = await rebuild(kernel, "tasks")
                assert refused.failure_reason == "UNREADABLE_EVENT" and not refused.proofs
                assert f"the event at {position}:" in refused.failure
                assert "ask again" in refused.failure
            await database.execute(change, [newest.type, position])
            stub = ProjectionServiceStub(kernel.channel)
            *_, compared = [
                answer.progress
                async for answer in stub.CompareViews(pb.CompareViewsRequest(views=["tasks"]))
            ]
            assert compared.failure_reason == "VIEW_STOPPED"
            await work(kernel, 1)
            *_, made = await rebuild(kernel, "tasks")
            assert made.done and not made.failure and not made.proofs
            views = await stopped(kernel, "run_index")
            assert views["tasks"].state == pb.VIEW_STATE_FOLLOWING
            assert views["tasks"].event_count == views["tasks"].log_event_count
            await work(kernel, 1)
            *_, made = await rebuild(kernel)
            assert [proof.view for proof in made.proofs] == ["tasks"]
            assert all(proof.equal for proof in made.proofs)
            await work(kernel, 1)
            assert await following(kernel)
            assert all((await compare(kernel)).values())
        async with projecting(kernel, fresh_database):
            await work(kernel, 1)
            assert await following(kernel)
            assert all((await compare(kernel)).values())


async def test_a_view_whose_table_refuses_rows_is_made_anew_beside_it(
    kernel: Served, fresh_database: str
) -> None:
    async with projecting(kernel, fresh_database):
        await work(kernel, 1)
        await following(kernel)
        async with await psycopg.AsyncConnection.connect(fresh_database) as database:
            await database.execute(
                "ALTER TABLE stretto_p0.tasks_v3 ADD CONSTRAINT never CHECK (phase < 0) NOT VALID"
            )
        await work(kernel, 1)
        await stopped(kernel, "tasks")
        *_, made = await rebuild(kernel, "tasks")
        assert made.done and not made.failure
        await work(kernel, 1)
        views = (await following(kernel)).views
        assert {view.state for view in views} == {pb.VIEW_STATE_FOLLOWING}
        assert all((await compare(kernel)).values())


async def test_what_a_view_was_given_is_counted_against_the_log(
    kernel: Served, fresh_database: str
) -> None:
    await work(kernel, 2)
    async with projecting(kernel, fresh_database):
        listed = await following(kernel)
        count = len((await kernel.log.read_all()).events)
        assert {view.event_count for view in listed.views} == {count}
        assert {view.log_event_count for view in listed.views} == {count}
        async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
            await connection.execute(
                "UPDATE stretto_p0.view_counts_v1 SET event_count = event_count - 1"
                " WHERE view LIKE 'usage%'"
            )
        await work(kernel, 1)
        listed = await following(kernel)
        lacking = [v.name for v in listed.views if v.event_count != v.log_event_count]
        assert lacking == ["usage"]
        await rebuild(kernel, "usage")
        listed = await following(kernel)
        assert all(view.event_count == view.log_event_count for view in listed.views)


async def test_a_relay_that_stands_still_is_told_and_can_be_moved(
    kernel: Served, fresh_database: str
) -> None:
    stub = ProjectionServiceStub(kernel.channel)
    await kernel.start()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.MoveRelay(pb.MoveRelayRequest())
    assert isinstance(from_rpc_error(refused.value), NotFound)
    assert not (await stub.ListViews(pb.ListViewsRequest())).HasField("relay")
    board = RelayBoardTable(ViewTables(PARTITION, kernel.log.tracking))
    await kernel.log.move_tracking(RELAY, 0, expected=0)
    await board.note_stop(1, "UNREADABLE_EVENT", "it is damaged")
    relay = (await stub.ListViews(pb.ListViewsRequest())).relay
    assert (relay.position, relay.stop.position, relay.stop.message) == (0, 1, "it is damaged")
    async with asyncio.timeout(60):
        while await is_serving(kernel.channel, SERVICE):
            pass
    assert (await stub.MoveRelay(pb.MoveRelayRequest(after_position=1))).relay.position == 1
    assert await kernel.log.tracking_position(RELAY) == 1
    await board.note_following()
    assert not (await stub.ListViews(pb.ListViewsRequest())).relay.HasField("stop")
    for wrong in (1_000, -1):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.MoveRelay(pb.MoveRelayRequest(after_position=wrong))
        assert isinstance(from_rpc_error(refused.value), OutOfRange | InvalidArgument)


async def test_wrong_names_of_views_are_told(kernel: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rebuild(kernel, "taks")
    refusal = from_rpc_error(refused.value)
    assert isinstance(refusal, NotFound)
    assert refusal.metadata == {"view": "taks", "nearest": "tasks"}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rebuild(kernel, "tasks", "tasks")
    assert isinstance(from_rpc_error(refused.value), InvalidArgument)


async def test_another_rebuild_waits_for_the_one_at_work(kernel: Served) -> None:
    call = ProjectionServiceStub(kernel.channel).RebuildViews(pb.RebuildViewsRequest())
    asked = await anext(aiter(call))
    again = ProjectionServiceStub(kernel.channel).RebuildViews(pb.RebuildViewsRequest())
    assert (await anext(aiter(again))).progress.fold_id == asked.progress.fold_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rebuild(kernel, "tasks")
    assert from_rpc_error(refused.value).reason_word == "REBUILD_RUNS"
    call.cancel()
    again.cancel()
