"""What is read from views: each by an index, however large they are; orders, pages and masks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

import psycopg
from google.protobuf.field_mask_pb2 import FieldMask
from psycopg.sql import Composed
from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.ids import Namespace, RunId
from stretto_kernel.adapters.artifact_table import ArtifactTable
from stretto_kernel.adapters.attempt_table import AttemptTable
from stretto_kernel.adapters.board_table import BoardTable
from stretto_kernel.adapters.past_views import NEWEST, PastViewTables
from stretto_kernel.adapters.run_index_table import RunIndexTable
from stretto_kernel.adapters.usage_table import UsageTable
from stretto_kernel.adapters.view_tables import ViewTables, view_statements
from stretto_kernel.app.artifact_listing import ArtifactFilter, ArtifactPlace
from stretto_kernel.app.attempt_listing import AttemptFilter
from stretto_kernel.app.run_listing import RunFilter
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.artifacts import ARTIFACTS
from stretto_kernel.projections.blackboard import BLACKBOARD
from stretto_kernel.projections.past_runs import TaskQuery
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.queues import QUEUES, QueueRow
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.run_phases import RUN_PHASES, RunPhaseRow
from stretto_kernel.projections.store import Target
from stretto_kernel.projections.tasks import TASKS
from stretto_kernel.projections.usage import ALL_RUNS, USAGE
from stretto_kernel.projections.view import View
from stretto_kernel.projections.workers import WORKERS, WorkerRow

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

RUN_COUNT = 100_000
SUCCEEDED, RUNNING = run_pb2.RUN_STATE_SUCCEEDED, run_pb2.RUN_STATE_RUNNING
MINE = RunFilter(namespace=Namespace("default"))
PHASE = RunPhaseRow("", 1, RUNNING, 0, False, False, 0, 0, b"")


A_RUN = f"p0-{7:032x}"
READS_BY_NAME: tuple[tuple[View, str, dict[str, object]], ...] = (
    (QUEUES, "page", {"after": "q7", "count": 101}),
    (QUEUES, "named", {"queues": ["q7", "q8"]}),
    (WORKERS, "page", {"after": "w7", "count": 101}),
    (RUN_INDEX, "version", {"run_id": A_RUN}),
    (RUN_PHASES, "as_of", {"run_id": A_RUN, "version": 9}),
    (
        RUN_PHASES,
        "changes",
        {"run_id": A_RUN, "count": 101, "after_version": 0, "until_version": 9},
    ),
)


async def copy_rows(dsn: str, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = connection.cursor()
        async with cursor.copy(f"COPY stretto_p0.{table} FROM STDIN".encode()) as copy:
            for row in rows:
                await copy.write_row(row)
        await connection.commit()
        await connection.set_autocommit(True)
        await connection.execute(f"ANALYZE stretto_p0.{table}".encode())


def run_rows() -> Iterable[tuple[object, ...]]:
    for number in range(RUN_COUNT):
        ended = number % 1_000 != 0
        state = SUCCEEDED if ended else RUNNING
        labels = f'{{"team": "t{number % 50}", "ticket": "k{number}"}}'
        name = f"name {number % 5_000}"
        run_id = f"p0-{number:032x}"
        yield run_id, "default", 4, state, name, labels, number, ended, None, "{q}", b"x" * 200


async def plan(
    dsn: str, statement: Composed, parameters: Mapping[str, object] | None = None
) -> str:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        text = statement.as_string(connection)
        found = await connection.execute(f"EXPLAIN {text}".encode(), parameters)
        return "\n".join(line for (line,) in await found.fetchall())


async def test_every_query_has_an_index_in_a_hundred_thousand_runs(fresh_database: str) -> None:
    log = await PostgresLog.open(fresh_database, PARTITION)
    await ViewTables(PARTITION, log.tracking).prepare([Target(view) for view in VIEWS])
    await copy_rows(fresh_database, RUN_INDEX.table, run_rows())
    await copy_rows(
        fresh_database,
        "attempts_v1",
        (
            (f"p0-{n // 4:032x}", f"t{n % 4}", 1, n % 4 + 2, 1, 1, "w", "s", 1, 2, 2, b"")
            for n in range(RUN_COUNT)
        ),
    )
    await copy_rows(
        fresh_database,
        RUN_PHASES.table,
        ((f"p0-{n:032x}", 1, RUNNING, 0, False, False, 0, 0, b"") for n in range(RUN_COUNT)),
    )
    await copy_rows(
        fresh_database,
        ARTIFACTS.table,
        (
            (f"p0-{n // 4:032x}", f"t{n % 4}", 1, f"f{n}", "default", n, b"d", 1, "text/plain")
            for n in range(RUN_COUNT)
        ),
    )
    await copy_rows(
        fresh_database,
        USAGE.table,
        (
            ("default", run_id, "q", "w", 1, 1, 1, 1, 1)
            for run_id in (ALL_RUNS, *(f"p0-{n:032x}" for n in range(RUN_COUNT)))
        ),
    )
    await copy_rows(
        fresh_database,
        QUEUES.table,
        (QueueRow(f"q{n}", 1, 2, changed_by=r"\x") for n in range(RUN_COUNT)),  # type: ignore[arg-type]
    )
    await copy_rows(
        fresh_database,
        WORKERS.table,
        (WorkerRow(f"w{n:06}", "s", 1, 1, 1) for n in range(RUN_COUNT)),
    )
    runs, attempts = RunIndexTable(PARTITION, log.tracking), AttemptTable(PARTITION, log.tracking)
    artifacts, usage = ArtifactTable(PARTITION, log.tracking), UsageTable(PARTITION, log.tracking)
    filters = [
        MINE,
        replace(MINE, state=RUNNING),
        replace(MINE, state=SUCCEEDED),
        replace(MINE, display_name="name 7"),
        replace(MINE, labels_json='{"ticket": "k7"}'),
        replace(MINE, labels_json='{"team": "t7"}'),
        replace(MINE, labels_json='{"ticket": "none"}'),
        replace(MINE, since_ns=50_000, before_ns=51_000),
        replace(MINE, state=RUNNING, labels_json='{"team": "t7"}', since_ns=1_000),
        replace(MINE, display_name="none", state=SUCCEEDED),
    ]
    filters += [replace(each, oldest_first=True) for each in filters]
    filters += [replace(each, after=(60_000, A_RUN)) for each in filters]
    of_run = AttemptFilter(namespace=Namespace("default"), run_id=RunId(A_RUN))
    files = ArtifactFilter(run_id=RunId(A_RUN))
    after = ArtifactPlace("t1", 1, "f")
    statements = [runs.list_statement(each, 51) for each in filters]
    statements += [
        artifacts.list_statement(each, 101)
        for first in (files, replace(files, after=after))
        for each in (
            first,
            replace(first, task="t2"),
            replace(first, name="f30"),
            replace(first, content_type="none"),
        )
    ]
    statements += [
        usage.sums_statement(Namespace("default"), run_id, 100) for run_id in (RunId(A_RUN), None)
    ]
    statements += [
        attempts.list_statement(of_run, 101),
        attempts.list_statement(replace(of_run, task="t1", after_version=2), 101),
        attempts.run_statement(of_run),
        view_statements("stretto_p0", Target(RUN_INDEX))["active"],
    ]
    for statement in statements:
        found = await plan(fresh_database, statement)
        assert "Seq Scan" not in found, found
        assert "Index" in found, found
    for view, name, asked in READS_BY_NAME:
        found = await plan(fresh_database, view_statements("stretto_p0", Target(view))[name], asked)
        assert all(word not in found for word in ("Seq Scan", "Sort")) and "Index" in found, found
    page = await runs.list_runs(replace(MINE, labels_json='{"ticket": "k7"}'), count_max=50)
    assert [run.run_id for run in page.runs] == [A_RUN]
    await log.close()


async def test_an_entry_of_then_is_found_at_once_however_often_it_was_written(
    fresh_database: str,
) -> None:
    log = await PostgresLog.open(fresh_database, PARTITION)
    await ViewTables(PARTITION, log.tracking).prepare([Target(BLACKBOARD)])
    run, key, said = f"p0-{7:032x}", "progress/percent", ("default", "", "progress", False)
    last = RUN_COUNT // 10
    await copy_rows(
        fresh_database,
        BLACKBOARD.table,
        (
            (run, key, n, None if n == last else n + 1, *said, 3, b"", b"%d" % n, n)
            for n in range(1, last + 1)
        ),
    )
    board = BoardTable(PARTITION, log.tracking)
    statement = board.keys_statement(RunId(run), last // 2, [key, "progress/none"])
    found = await plan(fresh_database, statement)
    assert all(word not in found for word in ("Seq Scan", "Sort", "to_version")), found
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        rows = await (await connection.execute(statement)).fetchall()
    assert [row[:3] for row in rows] == [(run, key, last // 2)]
    await log.close()


def task_rows() -> Iterable[tuple[object, ...]]:
    """Ten runs of 2,500 tasks, each of which was open, leased, ended."""
    for number in range(RUN_COUNT // 4):
        place, run_id = number % 2_500, f"p0-{number // 2_500:032x}"
        for step, phase in enumerate((0, 1, 2, 3)):
            version = place * 4 + step + 1
            ends = NEWEST if step == 3 else version + 1
            queue, executor = f"q{place % 7}", "process"
            row = (run_id, f"t{place}", version, ends, place, phase, False, 0, queue, executor)
            yield *row, b"x" * 200


async def test_every_read_of_tasks_then_and_now_has_an_index(fresh_database: str) -> None:
    log = await PostgresLog.open(fresh_database, PARTITION)
    await ViewTables(PARTITION, log.tracking).prepare([Target(view) for view in VIEWS])
    await copy_rows(fresh_database, TASKS.table, task_rows())
    past = PastViewTables(PARTITION, log.tracking)
    mine = TaskQuery(run_id=RunId(f"p0-{3:032x}"), judged_ns=1)
    queries = [mine, replace(mine, queue="q3"), replace(mine, executor="x", clean_up=True)]
    queries += [replace(mine, state=state) for state in run_pb2.TaskState.values() if state]
    queries += [replace(each, newest_first=True, after=900) for each in queries]
    statements = [
        past.list_statement(query, 5_000, PHASE, 101, is_newest=is_newest)
        for query in queries
        for is_newest in (False, True)
    ]
    for statement in statements:
        found = await plan(fresh_database, statement)
        assert "Seq Scan" not in found and "Index" in found, found
    own = view_statements("stretto_p0", Target(TASKS))
    asked = {"run_id": mine.run_id, "version": 5_000, "judged_ns": 1}
    found = await plan(fresh_database, own["kinds_as_of"], asked)
    assert "Seq Scan" not in found and "Index" in found, found
    # Rows of other moments and states are passed over within the index, not looked up.
    for state in (run_pb2.TASK_STATE_RUNNING, run_pb2.TASK_STATE_SUCCEEDED):
        query = replace(mine, state=state)
        statement = past.list_statement(query, 5_000, PHASE, 101, is_newest=False)
        found = await plan(fresh_database, statement)
        assert "Filter" not in found and "Sort" not in found, found
    # A page of changes costs a page, however long the run is.
    span = {"after_version": 5_000, "after_number": 7, "until_version": 9_000, "count": 101}
    asked = {"run_id": mine.run_id, **span, "bytes_max": 3_000_000}
    found = await plan(fresh_database, own["changes"], asked)
    cut, limit, page = found.partition("Limit")
    assert limit and "Sort" not in cut, found
    assert all(word not in page for word in ("Scan on", "Filter", "Sort")), found
    await log.close()


async def test_runs_in_either_order_by_pages_within_a_range_and_only_some_fields(
    kernel: Served,
) -> None:
    running = asyncio.create_task(
        Projector(kernel.log, ViewTables(PARTITION, kernel.log.tracking), VIEWS, RUN_CODEC).run()
    )
    started = [await kernel.start(labels={"n": str(number)}) for number in range(5)]
    names = [each.run.name for each in started]
    behind = pb.ListRunsRequest(min_position=started[-1].position)
    while await reason_of(kernel.runs.ListRuns(behind)) == "VIEW_BEHIND":
        pass
    beyond = Position(partition="p0", number=1 << 40)
    for call in (
        kernel.runs.ListRuns(pb.ListRunsRequest(min_position=beyond)),
        kernel.runs.ListAttempts(pb.ListAttemptsRequest(parent=names[0], min_position=beyond)),
        kernel.runs.ListTasks(pb.ListTasksRequest(parent=names[0], min_position=beyond)),
        kernel.runs.GetUsage(pb.GetUsageRequest(parent=names[0], min_position=beyond)),
    ):
        assert await reason_of(call) == "OUT_OF_RANGE"
    seen, token = [], ""
    mask = FieldMask(paths=["name"])
    while True:
        request = pb.ListRunsRequest(
            order_by="create_time", page_size=2, page_token=token, read_mask=mask
        )
        listed = await kernel.runs.ListRuns(request)
        assert all(run == run_pb2.Run(name=run.name) for run in listed.runs)
        seen += [run.name for run in listed.runs]
        token = listed.next_page_token
        if not token:
            break
        other_order = pb.ListRunsRequest(page_token=token)
        assert await reason_of(kernel.runs.ListRuns(other_order)) == "INVALID_ARGUMENT"
    assert seen == names
    first, last = (started[at].run.create_time.ToJsonString() for at in (1, 3))
    between = f'create_time >= "{first}" AND create_time < "{last}"'
    found = await kernel.runs.ListRuns(pb.ListRunsRequest(filter=between))
    assert [run.name for run in found.runs] == [names[2], names[1]]
    for wrong in (
        pb.ListRunsRequest(order_by="name"),
        pb.ListRunsRequest(read_mask=FieldMask(paths=["nome"])),
        pb.ListRunsRequest(filter="create_time < 5"),
    ):
        assert await reason_of(kernel.runs.ListRuns(wrong)) == "INVALID_ARGUMENT"
    running.cancel()


async def test_attempts_are_listed_with_how_each_ended(kernel: Served) -> None:
    running = asyncio.create_task(
        Projector(kernel.log, ViewTables(PARTITION, kernel.log.tracking), VIEWS, RUN_CODEC).run()
    )
    worker = StreamWorker(kernel.channel)
    run = (await kernel.start(task("a"), task("b"))).run
    await until(lambda: len(worker.assignments) == 2)
    worker.succeed(worker.assignments[0].token)
    await until(lambda: len(worker.receipts) == 1)
    kill = pb.KillRunRequest(name=run.name, request_id=IDS.uuid7())
    position = (await kernel.runs.KillRun(kill)).position
    request = pb.ListAttemptsRequest(parent=run.name, min_position=position, page_size=1)
    while await reason_of(kernel.runs.ListAttempts(request)) == "VIEW_BEHIND":
        pass
    first = await kernel.runs.ListAttempts(request)
    request.page_token = first.next_page_token
    second = await kernel.runs.ListAttempts(request)
    assert not second.next_page_token
    (one,), (other,) = first.attempts, second.attempts
    assert one.outcome == run_pb2.ATTEMPT_OUTCOME_SUCCEEDED
    assert other.outcome == run_pb2.ATTEMPT_OUTCOME_KILLED, "no event of its own says so"
    assert other.HasField("end_time") and other.worker_id == "w1"
    assert {one.task, other.task} == {"a", "b"}
    only = pb.ListAttemptsRequest(parent=run.name, task=other.task)
    assert [each.task for each in (await kernel.runs.ListAttempts(only)).attempts] == [other.task]
    unknown = pb.ListAttemptsRequest(parent=NOBODYS, min_position=position)
    assert await reason_of(kernel.runs.ListAttempts(unknown)) == "NOT_FOUND"
    foreign = run.name.replace("namespaces/default", "namespaces/other")
    elsewhere = pb.ListAttemptsRequest(parent=foreign)
    assert await reason_of(kernel.runs.ListAttempts(elsewhere)) == "NOT_FOUND"
    await worker.cut()
    running.cancel()
