"""Runs and tasks as they were, and tasks by filter, over real views: pages, masks, refusals."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stretto.common.v1.as_of_pb2 import AsOf
from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_kernel.adapters import past_views
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS

from tests.integration.kernel.serving import (
    IDS,
    NOBODYS,
    PARTITION,
    Served,
    StreamWorker,
    reason_of,
    task,
)
from tests.waiting import until


async def as_of(kernel: Served, name: str, moment: AsOf) -> run_pb2.Run:
    return (await kernel.runs.GetRun(pb.GetRunRequest(name=name, as_of=moment))).run


async def tasks_of(kernel: Served, name: str, **asked: object) -> list[run_pb2.Task]:
    """Every task that is asked for, by pages of two."""
    found: list[run_pb2.Task] = []
    request = pb.ListTasksRequest(parent=name, page_size=2, **asked)  # type: ignore[arg-type]
    while True:
        page = await kernel.runs.ListTasks(request)
        found += page.tasks
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def a_run(kernel: Served) -> tuple[str, Position]:
    """a succeeded, b is running, c waits for b, d is ready in another queue; then all is killed."""
    worker = StreamWorker(kernel.channel, credit_count=2)
    after_b = [plan_pb2.Dependency(task="b")]
    specs = (task("a"), task("b"), task("c", dependencies=after_b), task("d", queue="slow"))
    run = (await kernel.start(*specs)).run
    await until(lambda: len(worker.assignments) == 2)
    token = next(each.token for each in worker.assignments if each.token.work_item.endswith("/a"))
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    kill = pb.KillRunRequest(name=run.name, request_id=IDS.uuid7(), reason="enough")
    position = (await kernel.runs.KillRun(kill)).position
    await worker.cut()
    return run.name, position


@pytest.mark.usefixtures("projector")
async def test_a_run_is_read_as_it_was_at_a_version_a_position_and_a_time(kernel: Served) -> None:
    name, position = await a_run(kernel)
    now = (await kernel.get(name)).run
    head = now.version
    assert await as_of(kernel, name, AsOf(version=head)) == now
    assert await as_of(kernel, name, AsOf(position=position)) == now
    ahead = AsOf()
    ahead.time.FromSeconds(now.update_time.seconds + 3_600)
    assert await as_of(kernel, name, ahead) == now, "an instant still to come is now"
    before = await as_of(kernel, name, AsOf(version=head - 1))
    assert before.state == run_pb2.RUN_STATE_RUNNING and not before.HasField("end_time")
    assert before.task_counts.succeeded_count == before.task_counts.running_count == 1
    assert before.task_counts.pending_count == before.task_counts.ready_count == 1
    assert now.state == run_pb2.RUN_STATE_KILLED and now.task_counts.cancelled_count == 3
    then = AsOf(time=before.update_time)
    assert (await as_of(kernel, name, then)).version == head - 1
    first = AsOf(version=1)
    assert {each.state for each in await tasks_of(kernel, name, as_of=first)} == {
        run_pb2.TASK_STATE_READY,
        run_pb2.TASK_STATE_PENDING,
    }


@pytest.mark.usefixtures("projector")
async def test_tasks_by_filter_order_and_mask_on_pages_of_one_version(kernel: Served) -> None:
    name, position = await a_run(kernel)
    plain = await tasks_of(kernel, name)
    assert await tasks_of(kernel, name, min_position=position) == plain
    assert await tasks_of(kernel, name, order_by="creation desc") == plain[::-1]

    async def names(text: str, **asked: object) -> list[str]:
        found = await tasks_of(kernel, name, filter=text, min_position=position, **asked)
        return [each.task for each in found]

    assert await names("state = CANCELLED") == ["b", "c", "d"], "no event of their own says so"
    assert await names("state = SUCCEEDED") == ["a"]
    assert await names("state = CANCELLED", order_by="creation desc") == ["d", "c", "b"]
    assert await names('state = TASK_STATE_CANCELLED AND queue = "slow"') == ["d"]
    assert await names('executor = "test.body" AND clean_up = false') == ["a", "b", "c", "d"]
    assert await names('executor = "other"') == []
    assert await names("state = VERIFYING") == []
    first = AsOf(version=1)
    assert await names("state = READY", as_of=first) == ["a", "b", "d"]
    mask = FieldMask(paths=["task", "state"])
    shown = await tasks_of(kernel, name, filter="state = SUCCEEDED", read_mask=mask)
    assert shown == [run_pb2.Task(task="a", state=run_pb2.TASK_STATE_SUCCEEDED)]


@pytest.mark.usefixtures("projector")
async def test_what_each_event_changed_by_pages(kernel: Served) -> None:
    name, _ = await a_run(kernel)
    head = (await kernel.get(name)).run.version
    whole = await kernel.runs.ListRunChanges(pb.ListRunChangesRequest(parent=name))
    assert not whole.next_page_token and whole.until_version == head
    assert [each.version for each in whole.changes] == list(range(1, head + 1))
    assert [each.task for each in whole.changes[0].tasks] == ["a", "b", "c", "d"]
    last = whole.changes[-1]
    assert last.run.state == run_pb2.RUN_STATE_KILLED and not last.tasks, "one fact, no task"
    succeeded = next(
        task for each in whole.changes for task in each.tasks if task.HasField("result")
    )
    assert (succeeded.task, succeeded.state) == ("a", run_pb2.TASK_STATE_SUCCEEDED)
    seen: list[tuple[int, str]] = []
    runs = 0
    request = pb.ListRunChangesRequest(parent=name, page_size=1)
    while True:
        page = await kernel.runs.ListRunChanges(request)
        seen += [(each.version, task.task) for each in page.changes for task in each.tasks]
        runs += sum(each.HasField("run") for each in page.changes)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert seen == [(each.version, task.task) for each in whole.changes for task in each.tasks]
    assert runs == sum(each.HasField("run") for each in whole.changes)
    some = pb.ListRunChangesRequest(parent=name, after_version=2, until_version=3)
    assert [each.version for each in (await kernel.runs.ListRunChanges(some)).changes] == [3]
    for wrong, reason in (
        (pb.ListRunChangesRequest(parent=name, until_version=head + 1), "OUT_OF_RANGE"),
        (
            pb.ListRunChangesRequest(parent=name, after_version=3, until_version=2),
            "INVALID_ARGUMENT",
        ),
        (pb.ListRunChangesRequest(parent=name, after_version=-1), "INVALID_ARGUMENT"),
        (pb.ListRunChangesRequest(parent=name, page_token="abc"), "INVALID_ARGUMENT"),
        (pb.ListRunChangesRequest(parent=f"{name[:-1]}g"), "INVALID_ARGUMENT"),
    ):
        assert await reason_of(kernel.runs.ListRunChanges(wrong)) == reason, wrong


@pytest.mark.usefixtures("projector")
async def test_what_cannot_be_answered_is_refused_by_name(kernel: Served) -> None:
    name, _ = await a_run(kernel)
    head = (await kernel.get(name)).run.version
    early = AsOf()
    early.time.FromSeconds(1)
    foreign = name.replace("namespaces/default", "namespaces/other")
    for asked, moment, reason in (
        (name, AsOf(version=head + 1), "OUT_OF_RANGE"),
        (name, early, "OUT_OF_RANGE"),
        (NOBODYS, AsOf(version=1), "NOT_FOUND"),
        (NOBODYS, early, "NOT_FOUND"),
        (foreign, AsOf(version=1), "NOT_FOUND"),
        (name, AsOf(version=0), "INVALID_ARGUMENT"),
        (name, AsOf(position=Position(partition="p9", number=1)), "INVALID_ARGUMENT"),
    ):
        get = pb.GetRunRequest(name=asked, as_of=moment)
        assert await reason_of(kernel.runs.GetRun(get)) == reason, (asked, moment)
        listed = pb.ListTasksRequest(parent=asked, as_of=moment)
        assert await reason_of(kernel.runs.ListTasks(listed)) == reason, (asked, moment)
    for wrong in (
        pb.ListTasksRequest(parent=name, filter="state = NOWHERE"),
        pb.ListTasksRequest(parent=name, filter="state = READY OR"),
        pb.ListTasksRequest(parent=name, filter='queue >= "a"'),
        pb.ListTasksRequest(parent=name, filter="clean_up = maybe"),
        pb.ListTasksRequest(parent=name, order_by="name"),
        pb.ListTasksRequest(parent=name, read_mask=FieldMask(paths=["nome"])),
        pb.ListTasksRequest(parent=name, filter="state = READY", page_token="abc"),
    ):
        assert await reason_of(kernel.runs.ListTasks(wrong)) == "INVALID_ARGUMENT", wrong
    nobody = pb.ListTasksRequest(parent=NOBODYS, filter="state = READY")
    assert await reason_of(kernel.runs.ListTasks(nobody)) == "NOT_FOUND"


async def test_a_view_that_is_behind_is_waited_for_then_refused_with_a_delay(
    kernel: Served,
) -> None:
    name = (await kernel.start(task("a"))).run.name
    at_start = AsOf(version=1)
    assert await reason_of(as_of(kernel, name, at_start)) == "VIEW_BEHIND", "there is no view"
    filtered = pb.ListTasksRequest(parent=name, filter="state = READY")
    assert await reason_of(kernel.runs.ListTasks(filtered)) == "VIEW_BEHIND"
    waiting = asyncio.create_task(as_of(kernel, name, at_start))
    tables = ViewTables(PARTITION, kernel.log.tracking)
    running = asyncio.create_task(Projector(kernel.log, tables, VIEWS, RUN_CODEC).run())
    assert (await waiting).version == 1
    running.cancel()


@pytest.mark.usefixtures("projector")
async def test_no_more_is_read_of_a_page_than_one_message_takes(
    kernel: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = await a_run(kernel)
    first, tasks_then = AsOf(version=1), pb.ListTasksRequest(parent=name, as_of=AsOf(version=1))
    whole = await kernel.runs.ListTasks(tasks_then)
    changes = await kernel.runs.ListRunChanges(pb.ListRunChangesRequest(parent=name))
    assert len(whole.tasks) == 4 and not whole.next_page_token
    monkeypatch.setattr(past_views, "PAGE_BYTES_MAX", 1)
    page = await kernel.runs.ListTasks(tasks_then)
    assert len(page.tasks) == 1 and page.next_page_token
    assert await tasks_of(kernel, name, as_of=first) == list(whole.tasks)
    found: dict[int, set[str]] = {}
    request = pb.ListRunChangesRequest(parent=name)
    while True:
        some = await kernel.runs.ListRunChanges(request)
        for change in some.changes:
            found.setdefault(change.version, set()).update(task.name for task in change.tasks)
        request.page_token = some.next_page_token
        if not some.next_page_token:
            break
    assert found == {each.version: {task.name for task in each.tasks} for each in changes.changes}
