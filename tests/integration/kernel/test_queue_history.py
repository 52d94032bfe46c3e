"""What became of queues: read from the record page by page with those that are there, and added up.

The upsert in SQL and the pure merge must make the same rows of the same facts, however split.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import psycopg
from psycopg.rows import dict_row
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.lease_pb2 import Position
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_ANONYMOUS
from stretto.queue.v1 import queue_pb2
from stretto.queue.v1 import queue_service_pb2 as pb
from stretto.queue.v1.queue_service_pb2_grpc import QueueServiceStub
from stretto.work.v1 import work_pb2
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.projections.queues import QUEUES, QueueRow, both
from stretto_kernel.projections.store import Change, Target

from tests.integration.kernel.serving import (
    PARTITION,
    Served,
    StreamWorker,
    reason_of,
    served,
    task,
)
from tests.integration.kernel.test_queues import updating
from tests.integration.kernel.test_views import compare, following, projecting, rebuild
from tests.waiting import until


async def work_in(kernel: Served, queue: str, task_count: int) -> None:
    """Let a worker of the queue do so many tasks, of which the last fails."""
    worker = StreamWorker(kernel.channel, credit_count=task_count, queues=(queue,))
    for _ in range(task_count):
        await kernel.start(task("t", queue=queue, retry={"max_attempts": 1}))
    await until(lambda: len(worker.assignments) == task_count)
    *good, bad = worker.assignments
    for assignment in good:
        worker.succeed(assignment.token)
    failed = Failure(reason="PLANNED", message="as planned")
    worker.say(outcomes=[work_pb2.Outcome(token=bad.token, failed=failed)])
    await until(lambda: len(worker.receipts) == task_count)
    await worker.cut()


async def listed(kernel: Served, **asked: bool) -> list[queue_pb2.Queue]:
    """Return all queues, two a page."""
    stub = QueueServiceStub(kernel.channel)
    request = pb.ListQueuesRequest(page_size=2, **asked)  # type: ignore[arg-type]
    found: list[queue_pb2.Queue] = []
    while True:
        page = await stub.ListQueues(request)
        found += page.queues
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_queues_of_before_are_listed_with_what_the_record_knows(fresh_database: str) -> None:
    counts = {"a": 1, "c": 3, "e": 2}
    async with served(fresh_database) as kernel:
        for queue, task_count in counts.items():
            await work_in(kernel, queue, task_count)
    async with served(fresh_database) as kernel, projecting(kernel, fresh_database):
        stub = QueueServiceStub(kernel.channel)
        position = (await stub.UpdateQueue(updating("b", "paused", paused=True))).position
        await kernel.start(task("t", queue="d"))
        await following(kernel)
        assert [queue.queue for queue in await listed(kernel)] == ["b", "d"]
        found = {queue.queue: queue for queue in await listed(kernel, with_history=True)}
        assert list(found) == ["a", "b", "c", "d", "e"]
        told = {name: queue.history for name, queue in found.items()}
        assert {name: history.granted_lease_count for name, history in told.items()} == {
            **counts,
            "b": 0,
            "d": 0,
        }
        assert {name: history.task_count for name, history in told.items()} == {
            **counts,
            "b": 0,
            "d": 1,
        }
        assert told["c"].succeeded_attempt_count == 2
        assert told["c"].failed_attempt_count == 1
        spans = [each.ToNanoseconds() for each in (told["c"].first_time, told["c"].last_lease_time)]
        assert 0 < spans[0] < spans[1] < told["c"].last_time.ToNanoseconds()
        assert not told["d"].HasField("last_lease_time")
        assert told["b"].updater.kind == PRINCIPAL_KIND_ANONYMOUS
        assert not told["c"].HasField("updater")
        assert (found["b"].paused, found["d"].ready_task_count) == (True, 1)
        one = await stub.GetQueue(pb.GetQueueRequest(queue="a", min_position=position))
        assert one.queue == found["a"] and one.view_position.number >= position.number
        assert await reason_of(stub.GetQueue(pb.GetQueueRequest(queue="z"))) == "NOT_FOUND"


async def test_ones_own_change_is_read_from_a_view_that_has_reached_it(fresh_database: str) -> None:
    async with served(fresh_database) as kernel:
        stub = QueueServiceStub(kernel.channel)
        position = (await stub.UpdateQueue(updating("q", "paused", paused=True))).position
        get = pb.GetQueueRequest(queue="q", min_position=position)
        both_pages = [
            pb.ListQueuesRequest(min_position=position),
            pb.ListQueuesRequest(min_position=position, with_history=True),
        ]
        assert await reason_of(stub.GetQueue(get)) == "VIEW_BEHIND"
        assert await reason_of(stub.ListQueues(both_pages[0])) == "VIEW_BEHIND"
        without = await stub.GetQueue(pb.GetQueueRequest(queue="q"))
        assert not without.queue.HasField("history") and not without.HasField("view_position")
        async with projecting(kernel, fresh_database):
            await following(kernel)
            assert (await stub.GetQueue(get)).queue.history.HasField("updater")
            for request in both_pages:
                page = await stub.ListQueues(request)
                assert page.queues[0].history.HasField("updater")
                assert page.view_position.number >= position.number
        beyond = Position(number=position.number + 1_000)
        assert await reason_of(stub.ListQueues(pb.ListQueuesRequest(min_position=beyond)))
        foreign = pb.GetQueueRequest(queue="q", min_position=Position(partition="p9", number=1))
        assert await reason_of(stub.GetQueue(foreign)) == "INVALID_ARGUMENT"


async def test_the_view_is_made_again_while_settings_and_work_go_on(fresh_database: str) -> None:
    async with served(fresh_database) as kernel, projecting(kernel, fresh_database):
        stub = QueueServiceStub(kernel.channel)
        for paused in (True, False):
            await stub.UpdateQueue(updating("q", "paused", paused=paused, pause_reason="why"))
            limits = updating("q", "concurrency_limit", "rate_limit", concurrency_limit=4)
            limits.queue.rate_limit.tokens_per_second = 1_000.5
            await stub.UpdateQueue(limits)
        await work_in(kernel, "q", 3)
        *_, last = await rebuild(kernel, "queues")
        assert [proof.equal for proof in last.proofs] == [True]
        await stub.UpdateQueue(updating("q", "rate_limit"))
        await following(kernel)
        assert await compare(kernel, "queues") == {"queues": True}


def random_rows(random: Random, count: int) -> list[QueueRow]:
    """Return what facts might add, in the order of the log."""
    rows = []
    for version in range(1, count + 1):
        at_ns = random.randrange(1_000)
        row = QueueRow(random.choice("ab"), at_ns, at_ns)
        match random.randrange(6):
            case 0:
                row = row._replace(
                    limit_version=version, concurrency_limit=random.choice([None, 7])
                )
            case 1:
                row = row._replace(rate_version=version, tokens_per_second=0.1 * version, burst=1)
            case 2:
                row = row._replace(
                    pause_version=version, pause_reason=random.choice([None, "", "x"])
                )
            case _:
                tasks, leases, results, failures = (random.randrange(3) for _ in range(4))
                row = QueueRow(row.queue, at_ns, at_ns, tasks, leases, results, failures, at_ns)
        if row[8:] != QueueRow("", 0, 0)[8:]:
            row = row._replace(changed_ns=version, changed_by=bytes([version]))
        rows.append(row)
    return rows


def merged(rows: Sequence[QueueRow]) -> dict[str, QueueRow]:
    found: dict[str, QueueRow] = {}
    for row in rows:
        found[row.queue] = both(found[row.queue], row) if row.queue in found else row
    return found


async def test_the_table_makes_the_same_of_facts_as_the_fold(fresh_database: str) -> None:
    random = Random(7)
    log = await PostgresLog.open(fresh_database, PARTITION)
    tables, target = ViewTables(PARTITION, log.tracking), Target(QUEUES)
    rows, position = random_rows(random, 120), 0
    await tables.prepare([target])
    while position < len(rows):
        until_position = min(len(rows), position + random.randint(1, 9))
        batch = list(merged(rows[position:until_position]).values())
        await tables.save(
            [Change(target, batch)], after=position, position=until_position, event_count=1
        )
        position = until_position
    async with await psycopg.AsyncConnection.connect(
        fresh_database, row_factory=dict_row
    ) as connection:
        found = await connection.execute("SELECT * FROM stretto_p0.queues_v1")
        stored = {row["queue"]: QueueRow(**row) for row in await found.fetchall()}
    assert stored == merged(rows)
    assert all(row.limit_version and row.pause_version for row in stored.values())
    await log.close()
