"""The kernel over gRPC on PostgreSQL: the calls of its three services."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any

import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.lease_pb2 import Position
from stretto.common.v1.payload_pb2 import Payload
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto.work.v1 import work_service_pb2 as work_pb
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.eventlog.port import PartitionHeld
from stretto_core.rpc.health import is_serving
from stretto_kernel.adapters.run_index_table import RunIndexTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.cohort import Cohort
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.run_folds import RunFolds
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.store import Target
from stretto_kernel.servicers.page_tokens import encode_cursor, encode_token

from tests.integration.kernel.serving import (
    IDS,
    PARTITION,
    Served,
    StreamWorker,
    reason_of,
    served,
    task,
)
from tests.waiting import until


async def test_a_run_from_start_to_end(kernel: Served) -> None:
    assert await is_serving(kernel.channel, "stretto.run.v1.RunService")
    worker = StreamWorker(kernel.channel)
    started = await kernel.start(wait_timeout=Duration())
    assert started.position.number > 0
    await until(lambda: len(worker.assignments) == 1)
    worker.succeed(worker.assignments[0].token, '{"x": 1}')
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].status.code == 0
    run = (await kernel.get(started.run.name)).run
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    tasks = await kernel.runs.ListTasks(pb.ListTasksRequest(parent=run.name))
    assert tasks.tasks[0].result.json == '{"x": 1}'
    worker.say(goodbye={})
    assert await worker.ended == ""


async def test_one_call_that_waits_for_the_outcome(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    graph = plan_pb2.TaskGraph(tasks=[task("a")])
    call = kernel.runs.StartRun(
        pb.StartRunRequest(
            request_id=IDS.uuid7(), task_graph=graph, wait_timeout=Duration(seconds=20)
        )
    )
    await until(lambda: len(worker.assignments) == 1)
    worker.succeed(worker.assignments[0].token)
    assert (await call).run.state == run_pb2.RUN_STATE_SUCCEEDED
    await worker.cut()


async def test_a_wait_ends_before_its_callers_deadline(kernel: Served) -> None:
    request = pb.StartRunRequest(
        request_id=IDS.uuid7(),
        task_graph=plan_pb2.TaskGraph(tasks=[task("a")]),
        wait_timeout=Duration(seconds=30),
    )
    answer = await kernel.runs.StartRun(request, timeout=1.5)
    assert answer.run.state == run_pb2.RUN_STATE_RUNNING


async def test_idempotent_start_and_reuse(kernel: Served) -> None:
    request_id = IDS.uuid7()
    first = await kernel.start(request_id=request_id)
    assert (await kernel.start(request_id=request_id)).run.run_id == first.run.run_id
    other = kernel.start(request_id=request_id, display_name="another")
    assert await reason_of(other) == "REQUEST_ID_REUSED"


async def test_validate_only_stores_nothing(kernel: Served) -> None:
    checked = await kernel.start(validate_only=True)
    assert checked.run.task_counts.total_count == 1
    assert await reason_of(kernel.get(checked.run.name)) == "NOT_FOUND"


async def test_steering(kernel: Served) -> None:
    name = (await kernel.start()).run.name
    paused = await kernel.runs.PauseRun(pb.PauseRunRequest(name=name, request_id=IDS.uuid7()))
    assert paused.run.holds[0].hold_id == "operator"
    resumed = await kernel.runs.ResumeRun(pb.ResumeRunRequest(name=name, request_id=IDS.uuid7()))
    assert not resumed.run.holds
    cancelled = await kernel.runs.CancelRun(pb.CancelRunRequest(name=name, request_id=IDS.uuid7()))
    assert cancelled.run.state == run_pb2.RUN_STATE_CANCELLED
    kill = pb.KillRunRequest(name=name, request_id=IDS.uuid7())
    assert await reason_of(kernel.runs.KillRun(kill)) == "RUN_CLOSED"


async def test_a_growing_plan(kernel: Served) -> None:
    graph = plan_pb2.TaskGraph(tasks=[task("a")], growing=True)
    name = (await kernel.start(task_graph=graph)).run.name
    more = pb.AddTasksRequest(name=name, request_id=IDS.uuid7(), tasks=[task("b")], sealed=True)
    assert (await kernel.runs.AddTasks(more)).run.task_counts.total_count == 2
    again = pb.AddTasksRequest(name=name, request_id=IDS.uuid7(), tasks=[task("c")])
    assert await reason_of(kernel.runs.AddTasks(again)) == "PLAN_SEALED"


async def test_watching_a_run_to_its_end(kernel: Served) -> None:
    name = (await kernel.start()).run.name
    changes = aiter(kernel.runs.WatchRun(pb.WatchRunRequest(name=name, tasks=True)))
    first = await anext(changes)
    assert [one.task for one in first.tasks] == ["a"]
    worker = StreamWorker(kernel.channel)
    await until(lambda: len(worker.assignments) == 1)
    worker.succeed(worker.assignments[0].token)
    *_, last = [change async for change in changes]
    assert last.ended and last.run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert last.version == 4
    again = kernel.runs.WatchRun(pb.WatchRunRequest(name=name, tasks=True, after_version=4))
    (only,) = [change async for change in again]
    assert only.ended and not only.tasks, "nothing has changed since"
    await worker.cut()


async def test_pages_of_tasks(kernel: Served) -> None:
    names = [f"t{number}" for number in range(5)]
    parent = (await kernel.start(*(task(name) for name in names))).run.name
    seen, token = [], ""
    while True:
        request = pb.ListTasksRequest(parent=parent, page_size=2, page_token=token)
        page = await kernel.runs.ListTasks(request)
        seen += [one.task for one in page.tasks]
        token = page.next_page_token
        if not token:
            break
    assert seen == names


async def test_no_answer_outgrows_a_message(kernel: Served) -> None:
    names = [f"t{number}" for number in range(80)]
    name = (await kernel.start(*(task(each) for each in names))).run.name
    worker = StreamWorker(kernel.channel, credit_count=100)
    await until(lambda: len(worker.assignments) == 80)
    for assignment in worker.assignments:
        worker.succeed(assignment.token, '"' + '\\"' * 30_000 + '"')
    await until(lambda: len(worker.receipts) == 80)
    seen, token, pages = [], "", 0
    while token or not pages:
        request = pb.ListTasksRequest(parent=name, page_size=100, page_token=token)
        page = await kernel.runs.ListTasks(request)
        seen += [one.task for one in page.tasks]
        token, pages = page.next_page_token, pages + 1
    assert seen == names and pages > 1
    watched = [
        one.task
        async for change in kernel.runs.WatchRun(pb.WatchRunRequest(name=name, tasks=True))
        for one in change.tasks
    ]
    assert watched == names
    # A follower whose stream breaks between the messages of one version misses no task.
    watch = pb.WatchRunRequest(name=name, tasks=True)
    watch.after_version = (await anext(aiter(kernel.runs.WatchRun(watch)))).version
    resumed = [one.task async for each in kernel.runs.WatchRun(watch) for one in each.tasks]
    assert resumed == names
    form = log_pb.EventForm(body_json=True, stored_bytes=True)
    cursor, count, more = "", 0, True
    while more:
        read = await kernel.events.ReadAll(
            log_pb.ReadAllRequest(cursor=cursor, page_size=1_000, form=form)
        )
        cursor, count, more = read.cursor, count + len(read.events), read.more
    assert count >= 162, "the run's, and a seal after 10 s"
    followed = kernel.events.Subscribe(log_pb.SubscribeRequest(form=form))
    async for batch in followed:
        count -= len(batch.events)
        if count <= 0:
            break
    followed.cancel()
    await worker.cut()


async def test_the_event_log(kernel: Served) -> None:
    run_ids = [(await kernel.start()).run.run_id for _ in range(3)]
    read = await kernel.events.ReadStream(log_pb.ReadStreamRequest(stream=run_ids[0]))
    event = read.events[0].event
    assert (event.type, event.version) == ("stretto.run.v1.RunStarted", 1)
    assert event.principal.name == "anonymous" and event.request_id and event.correlation_id
    first = await kernel.events.ReadAll(log_pb.ReadAllRequest(page_size=2))
    assert first.more and len(first.events) == 2
    rest = await kernel.events.ReadAll(log_pb.ReadAllRequest(cursor=first.cursor))
    assert [one.event.stream for one in rest.events] == [run_ids[2]]
    form = log_pb.EventForm(body_json=True, stored_bytes=True)
    call = kernel.events.Subscribe(log_pb.SubscribeRequest(cursor=first.cursor, form=form))
    following = aiter(call)
    caught_up = await anext(following)
    assert caught_up.events[0].body_json and caught_up.events[0].stored_bytes
    live = (await kernel.start()).run.run_id
    assert (await anext(following)).events[0].event.stream == live
    call.cancel()
    *_, verified = [
        progress async for progress in kernel.events.VerifyChain(log_pb.VerifyChainRequest())
    ]
    assert (verified.whole, verified.event_count, verified.stream_count) == (True, 4, 4)


async def test_runs_are_listed_from_the_view(kernel: Served) -> None:
    names = []
    for number in range(5):
        labels = {"parity": "odd" if number % 2 else "even"}
        started = await kernel.start(labels=labels, display_name=f"run {number}")
        names.append(started.run.name)
    behind = pb.ListRunsRequest(min_position=started.position)
    assert await reason_of(kernel.runs.ListRuns(behind)) == "VIEW_BEHIND"
    store = RunIndexTable(PARTITION, kernel.log.tracking)
    views = ViewTables(PARTITION, kernel.log.tracking)
    index = Target(RUN_INDEX)
    await views.prepare([index])
    page = await kernel.log.read_all()
    cohort = Cohort(kernel.log, views, RunFolds(RUN_CODEC), [index], 0)
    await cohort.project(page.events)
    await cohort.settle()
    seen, token = [], ""
    while True:
        request = pb.ListRunsRequest(min_position=started.position, page_size=2, page_token=token)
        listed = await kernel.runs.ListRuns(request)
        seen += [run.name for run in listed.runs]
        assert listed.view_position.number >= started.position.number
        token = listed.next_page_token
        if not token:
            break
    assert seen == names[::-1]
    odd = pb.ListRunsRequest(filter='state = RUNNING AND labels.parity = "odd"')
    assert [run.name for run in (await kernel.runs.ListRuns(odd)).runs] == [names[3], names[1]]
    named = pb.ListRunsRequest(filter='display_name = "run 2"')
    assert [run.name for run in (await kernel.runs.ListRuns(named)).runs] == [names[2]]
    third = (await kernel.runs.GetRun(pb.GetRunRequest(name=names[3]))).run.create_time
    since = pb.ListRunsRequest(filter=f'create_time >= "{third.ToJsonString()}"')
    assert [run.name for run in (await kernel.runs.ListRuns(since)).runs] == names[:2:-1]
    active = await store.active_runs()
    assert len(active.runs) == 5 and active.position == page.events[-1].position


async def test_a_projector_follows_and_resumes(kernel: Served) -> None:
    store = RunIndexTable(PARTITION, kernel.log.tracking)
    views = ViewTables(PARTITION, kernel.log.tracking)

    async def projected(position: Position) -> None:
        projector = Projector(kernel.log, views, VIEWS, RUN_CODEC)
        running = asyncio.create_task(projector.run())
        listing = pb.ListRunsRequest(min_position=position)
        while await reason_of(kernel.runs.ListRuns(listing)) == "VIEW_BEHIND":
            pass
        running.cancel()

    name = (started := await kernel.start()).run.name
    await projected(started.position)
    killed = await kernel.runs.KillRun(pb.KillRunRequest(name=name, request_id=IDS.uuid7()))
    await projected(killed.position)
    listed = await kernel.runs.ListRuns(pb.ListRunsRequest())
    assert [run.state for run in listed.runs] == [run_pb2.RUN_STATE_KILLED]
    assert not (await store.active_runs()).runs


async def test_a_view_whose_newest_rows_went_with_the_server_is_made_whole_again(
    kernel: Served, fresh_database: str
) -> None:
    """Its commits are not awaited: a crash of the server may take rows and position back."""
    views = ViewTables(PARTITION, kernel.log.tracking)
    running = asyncio.create_task(Projector(kernel.log, views, VIEWS, RUN_CODEC).run())

    async def projected(position: Position) -> None:
        listing = pb.ListRunsRequest(min_position=position)
        while await reason_of(kernel.runs.ListRuns(listing)) == "VIEW_BEHIND":
            pass

    await projected((await kernel.start()).position)
    lost = await kernel.start()
    await projected(lost.position)
    async with await psycopg.AsyncConnection.connect(fresh_database) as crash:
        await crash.execute(
            "DELETE FROM stretto_p0.run_index_v2 WHERE run_id = %s", [lost.run.run_id]
        )
        await crash.execute(
            "UPDATE stretto_p0.tracking SET notification_id = %s"
            " WHERE application_name = 'run_index_v2' AND notification_id = %s",
            [lost.position.number - 1, lost.position.number],
        )
    await projected((await kernel.start()).position)
    listed = await kernel.runs.ListRuns(pb.ListRunsRequest())
    assert lost.run.name in [run.name for run in listed.runs]
    running.cancel()


async def test_what_is_not_served_says_so(kernel: Served) -> None:
    calls: list[Awaitable[object]] = [
        kernel.start(run_key="k"),
        kernel.start(task_graph=None, goal=pb.GoalSource(goal="g")),
    ]
    assert {await reason_of(call) for call in calls} == {"UNIMPLEMENTED"}


GOOD = plan_pb2.TaskGraph(tasks=[task("a")])
CYCLE = [
    task("a", dependencies=[plan_pb2.Dependency(task="b")]),
    task("b", dependencies=[plan_pb2.Dependency(task="a")]),
]
BAD_STARTS: dict[str, dict[str, Any]] = {
    "no request id": {"request_id": ""},
    "long request id": {"request_id": "x" * 129},
    "unprintable request id": {"request_id": "a\n"},
    "parent": {"parent": "tenants/x"},
    "no source": {"task_graph": None},
    "cycle": {"task_graph": plan_pb2.TaskGraph(tasks=CYCLE)},
    "unknown dependency": {
        "task_graph": plan_pb2.TaskGraph(
            tasks=[task("a", dependencies=[plan_pb2.Dependency(task="nobody")])]
        )
    },
    "duplicate": {"task_graph": plan_pb2.TaskGraph(tasks=[task("a"), task("a")])},
    "empty plan": {"task_graph": plan_pb2.TaskGraph()},
    "bad name": {"task_graph": plan_pb2.TaskGraph(tasks=[task("a b")])},
    "NaN": {"input": Payload(json="NaN")},
    "duplicate key": {"input": Payload(json='{"a":1,"a":2}')},
    "not JSON": {"input": Payload(json="{")},
    "deep JSON": {"input": Payload(json="[" * 60_000)},
    "large": {"input": Payload(json='"' + "x" * 65_536 + '"')},
    "label key": {"labels": {"A B": "x"}},
    "label value": {"labels": {"a": "x" * 256}},
    "display name": {"display_name": "x" * 201},
    "NUL in the display name": {"display_name": "a\0b"},
    "NUL in a label": {"labels": {"a": "\0"}},
    "endless first interval": {
        "task_graph": plan_pb2.TaskGraph(
            tasks=[
                task("a", retry=plan_pb2.RetryPolicy(initial_interval=Duration(seconds=2**63 - 1)))
            ]
        )
    },
    "long wait": {"wait_timeout": Duration(seconds=61)},
    "negative wait": {"wait_timeout": Duration(seconds=-1)},
    "impossible span": {"wait_timeout": Duration(nanos=2_000_000_000)},
}


@pytest.mark.parametrize("case", BAD_STARTS)
async def test_a_bad_start_is_refused_by_field(kernel: Served, case: str) -> None:
    assert await reason_of(kernel.start(**BAD_STARTS[case])) == "INVALID_ARGUMENT"
    assert (await kernel.events.ReadAll(log_pb.ReadAllRequest())).events == []


async def test_other_bad_input_is_refused_by_field(kernel: Served) -> None:
    name = (await kernel.start()).run.name
    bad: list[Awaitable[object]] = [
        kernel.runs.GetRun(pb.GetRunRequest(name="runs/x")),
        kernel.runs.GetRun(pb.GetRunRequest()),
        kernel.runs.ListTasks(pb.ListTasksRequest(parent=name, page_size=-1)),
        kernel.runs.ListTasks(pb.ListTasksRequest(parent=name, page_token="ours?")),
        kernel.runs.ListRuns(pb.ListRunsRequest(filter="color = 1")),
        kernel.runs.ListRuns(pb.ListRunsRequest(filter="state = RUNNING AND")),
        kernel.runs.ListRuns(pb.ListRunsRequest(page_token="=")),
        kernel.runs.ListRuns(pb.ListRunsRequest(min_position=Position(partition="p9", number=1))),
        kernel.runs.PauseRun(pb.PauseRunRequest(name=name)),
        kernel.runs.PauseRun(pb.PauseRunRequest(name=name, reason="x" * 1_001, request_id="r")),
        kernel.runs.CancelRun(
            pb.CancelRunRequest(name=name, grace=Duration(seconds=9_999), request_id="r")
        ),
        kernel.runs.AddTasks(pb.AddTasksRequest(name=name, request_id="r")),
        kernel.events.ReadStream(log_pb.ReadStreamRequest()),
        kernel.events.ReadStream(log_pb.ReadStreamRequest(stream="x", after_version=-1)),
        kernel.events.ReadAll(log_pb.ReadAllRequest(cursor="ours?")),
        kernel.events.ReadAll(log_pb.ReadAllRequest(page_size=-1)),
        kernel.events.ReadAll(log_pb.ReadAllRequest(cursor=encode_cursor({PARTITION: 1 << 63}))),
        kernel.events.ReadStream(log_pb.ReadStreamRequest(stream="a\0b")),
        kernel.runs.ListRuns(pb.ListRunsRequest(filter='display_name = "\0"')),
        kernel.runs.ListRuns(pb.ListRunsRequest(page_token=encode_token("runs", "9" * 30, "x"))),
        kernel.runs.ListRuns(pb.ListRunsRequest(page_token=encode_token("runs", "9", "\0"))),
        kernel.runs.ListTasks(
            pb.ListTasksRequest(parent=name, page_token=encode_token("tasks", "9" * 30))
        ),
    ]
    reasons = [await reason_of(call) for call in bad]
    far = encode_token("tasks", str(2**63 - 1))
    beyond = await kernel.runs.ListTasks(pb.ListTasksRequest(parent=name, page_token=far))
    assert list(beyond.tasks) == []
    assert reasons == ["INVALID_ARGUMENT"] * len(bad)
    unknown = "namespaces/default/runs/p0-00000000000000000000000000000000"
    missing: list[Awaitable[object]] = [
        kernel.get(unknown),
        kernel.get(name.replace("default", "other")),
        kernel.runs.KillRun(pb.KillRunRequest(name=unknown, request_id="r")),
        kernel.events.ReadStream(log_pb.ReadStreamRequest(stream="nothing")),
    ]
    assert [await reason_of(call) for call in missing] == ["NOT_FOUND"] * len(missing)


async def test_a_stream_that_does_not_begin_with_a_hello_is_refused(kernel: Served) -> None:
    stream = WorkServiceStub(kernel.channel).Work()
    await stream.write(work_pb.WorkRequest(credit_total_count=1))
    assert await reason_of(stream.read()) == "INVALID_ARGUMENT"


async def test_a_newer_process_ends_the_older_stream(kernel: Served) -> None:
    older = StreamWorker(kernel.channel)
    await until(lambda: len(older.answers) == 1)
    newer = StreamWorker(kernel.channel)
    assert await older.ended == "SESSION_REPLACED"
    late = StreamWorker(kernel.channel, session_id=older.session_id)
    assert await late.ended == "SESSION_REPLACED"
    await newer.cut()


async def test_a_restarted_kernel_keeps_leases(fresh_database: str) -> None:
    async with served(fresh_database) as kernel:
        worker = StreamWorker(kernel.channel)
        name = (await kernel.start()).run.name
        await until(lambda: len(worker.assignments) == 1)
        token = worker.assignments[0].token
        await worker.cut()
    async with served(fresh_database) as kernel:
        again = StreamWorker(kernel.channel, session_id=worker.session_id, held=(token,))
        await until(lambda: len(again.answers) == 1)
        assert not again.answers[0].welcome.drop
        again.succeed(token)
        await until(lambda: len(again.receipts) == 1)
        assert (await kernel.get(name)).run.state == run_pb2.RUN_STATE_SUCCEEDED
        await again.cut()


async def test_a_second_kernel_does_not_start(kernel: Served, fresh_database: str) -> None:
    with pytest.raises(PartitionHeld):
        async with served(fresh_database):
            pass


async def test_a_kernel_whose_partition_moved_answers_nothing_and_owns_it_again(
    kernel: Served, fresh_database: str
) -> None:
    worker = StreamWorker(kernel.channel)
    name = (await kernel.start()).run.name
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("UPDATE stretto.partitions SET owner_epoch = owner_epoch + 1")
    assert await reason_of(kernel.get(name)) == "PARTITION_MOVED"
    assert await worker.ended == "PARTITION_MOVED"
    await until(lambda: kernel.kernel.is_owner)
    assert (await kernel.get(name)).run.name == name


async def test_a_worker_proven_dead_loses_its_leases_at_once(kernel: Served) -> None:
    """Nothing listens at its control address any more: the operating system says so."""
    with socket.socket() as once:
        once.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{once.getsockname()[1]}"
    worker = StreamWorker(kernel.channel, control_address=address)
    await kernel.start()
    await until(lambda: len(worker.assignments) == 1)
    await worker.acknowledged()
    await worker.cut()
    other = StreamWorker(kernel.channel, worker_id="other")
    await until(lambda: len(other.assignments) == 1)
    assert other.assignments[0].attempt == 2, "a lost try is consumed"
    await other.cut()


async def test_a_drained_kernel_is_not_serving(fresh_database: str) -> None:
    async with served(fresh_database) as kernel:
        worker = StreamWorker(kernel.channel)
        await until(lambda: len(worker.answers) == 1)
        await kernel.kernel.drain("test", 0)
        await until(lambda: any(answer.HasField("drain") for answer in worker.answers))
        await kernel.start()
        assert not worker.assignments
        await kernel.kernel.stop()
        assert await worker.ended == "DRAINING"
        assert await reason_of(kernel.start()) == "DRAINING"
