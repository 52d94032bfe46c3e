"""Task logs over gRPC on PostgreSQL: what a lease holder writes, and who reads and follows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import psycopg
import pytest
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.tasklog.v1 import task_log_pb2
from stretto.tasklog.v1 import task_log_service_pb2 as pb
from stretto.tasklog.v1.task_log_service_pb2_grpc import TaskLogServiceStub
from stretto.work.v1 import work_service_pb2 as work_pb
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.rpc.status import from_status
from stretto_kernel.adapters.task_log_sweep import TaskLogSweep
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.run_index import RUN_INDEX

from tests.integration.kernel.serving import (
    PARTITION,
    TASK_LOG_BYTES_MAX,
    Served,
    StreamWorker,
    reason_of,
    served,
    task,
)
from tests.waiting import until

OUT = task_log_pb2.LOG_STREAM_STDOUT


def chunk(sequence: int, content: bytes, **fields: Any) -> task_log_pb2.LogChunk:
    return task_log_pb2.LogChunk(sequence=sequence, stream=OUT, content=content, **fields)


async def append(
    kernel: Served, token: LeaseToken, *chunks: task_log_pb2.LogChunk
) -> work_pb.AppendLogsResult:
    logs = work_pb.LeaseLogs(token=token, chunks=chunks)
    request = work_pb.AppendLogsRequest(leases=[logs])
    response = await WorkServiceStub(kernel.channel).AppendLogs(request)
    (result,) = response.results
    return result


async def read(kernel: Served, run: str, **fields: Any) -> list[pb.ReadTaskLogsResponse]:
    call = TaskLogServiceStub(kernel.channel).ReadTaskLogs(
        pb.ReadTaskLogsRequest(run=run, **fields)
    )
    return [response async for response in call]


def content(responses: Sequence[pb.ReadTaskLogsResponse]) -> bytes:
    return b"".join(entry.content for response in responses for entry in response.entries)


async def followed(kernel: Served, run: str) -> AsyncGenerator[pb.ReadTaskLogsResponse]:
    request = pb.ReadTaskLogsRequest(run=run, follow=True)
    async for response in TaskLogServiceStub(kernel.channel).ReadTaskLogs(request):
        yield response


async def leased(kernel: Served, *names: str) -> tuple[str, StreamWorker, list[LeaseToken]]:
    """Start a run of tasks that are all leased to one worker."""
    names = names or ("a",)
    worker = StreamWorker(kernel.channel)
    run = (await kernel.start(*(task(name) for name in names))).run.name
    await until(lambda: len(worker.assignments) == len(names))
    by_task = {one.task: one.token for one in worker.assignments}
    return run, worker, [by_task[name] for name in names]


async def test_what_is_written_is_read_back_as_it_was(kernel: Served) -> None:
    run, _, (token,) = await leased(kernel)
    raw = b"\x00\xff\xfe not UTF-8 \xc3\n"
    assert (await append(kernel, token, chunk(1, raw), chunk(2, b"more"))).status.code == 0
    (first, last) = await read(kernel, run)
    assert content([first, last]) == raw + b"more"
    assert last.ended
    assert [(one.position, one.task, one.attempt) for one in first.entries] == [
        (1, "a", 1),
        (2, "a", 1),
    ]


async def test_a_repeated_chunk_changes_nothing(kernel: Served) -> None:
    run, _, (token,) = await leased(kernel)
    await append(kernel, token, chunk(1, b"one"))
    await append(kernel, token, chunk(1, b"one"), chunk(2, b"two"))
    assert content(await read(kernel, run)) == b"onetwo"


async def test_a_kernel_that_comes_after_knows_what_is_a_repeat(fresh_database: str) -> None:
    async with served(fresh_database) as kernel:
        run, worker, (token,) = await leased(kernel)
        await append(kernel, token, chunk(1, b"one"))
        await worker.cut()
    async with served(fresh_database) as kernel:
        await append(kernel, token, chunk(1, b"one"), chunk(2, b"two"))
        assert content(await read(kernel, run)) == b"onetwo"


async def test_only_the_holder_writes(kernel: Served) -> None:
    run, worker, (token,) = await leased(kernel)
    forged = LeaseToken(work_item=token.work_item, epoch=token.epoch, secret=b"guess")
    refused = from_status((await append(kernel, forged, chunk(1, b"x"))).status)
    assert refused.reason_word == "WRONG_SECRET"
    worker.say(outcomes=[{"token": token, "released": {}}])
    await until(lambda: len(worker.assignments) == 2)
    passed_on = from_status((await append(kernel, token, chunk(1, b"x"))).status)
    assert passed_on.reason_word == "LEASE_LOST"
    assert content(await read(kernel, run)) == b""


async def test_what_comes_after_the_end_is_still_taken(kernel: Served) -> None:
    run, worker, (token,) = await leased(kernel)
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 1)
    assert (await append(kernel, token, chunk(1, b"late"))).status.code == 0
    assert content(await read(kernel, run, follow=True)) == b"late"


async def test_beyond_its_limit_a_lease_is_cut_and_says_so(kernel: Served) -> None:
    run, _, (token,) = await leased(kernel)
    part = bytes(64 * 1024)
    count = TASK_LOG_BYTES_MAX // len(part) + 2
    for sequence in range(1, count + 1, 16):
        many = [chunk(n, part) for n in range(sequence, min(sequence + 16, count + 1))]
        result = await append(kernel, token, *many)
    assert result.truncated
    responses = await read(kernel, run)
    assert len(content(responses)) == TASK_LOG_BYTES_MAX
    entries = [entry for response in responses for entry in response.entries]
    assert [entry.truncated for entry in entries] == [False] * (len(entries) - 1) + [True]


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(0, b"x")],
        [chunk(2, b"x"), chunk(1, b"x")],
        [task_log_pb2.LogChunk(sequence=1, content=b"x")],
        [chunk(1, bytes(64 * 1024 + 1))],
        [chunk(1, b"x", dropped_bytes=-1)],
    ],
)
async def test_chunks_that_are_wrong(kernel: Served, chunks: list[task_log_pb2.LogChunk]) -> None:
    _, _, (token,) = await leased(kernel)
    refused = from_status((await append(kernel, token, *chunks)).status)
    assert refused.reason_word == "INVALID_ARGUMENT"


async def test_reading_what_is_not_there(kernel: Served) -> None:
    run, _, _ = await leased(kernel)
    assert await reason_of(read(kernel, f"{run[:-4]}aaaa")) == "NOT_FOUND"
    assert await reason_of(read(kernel, run, task="b")) == "NOT_FOUND"
    assert await reason_of(read(kernel, run, attempt=1)) == "INVALID_ARGUMENT"
    assert await reason_of(read(kernel, run, cursor="guess")) == "INVALID_ARGUMENT"
    assert content(await read(kernel, run, task="a")) == b""


async def test_the_tail_begins_at_a_line(kernel: Served) -> None:
    run, _, (token,) = await leased(kernel)
    lines = [f"line {number}\n".encode() for number in range(10)]
    await append(kernel, token, chunk(1, b"".join(lines[:4])), chunk(2, b"".join(lines[4:7])))
    await append(kernel, token, chunk(3, b"".join(lines[7:])), chunk(4, b"unended"))
    for count, expected in ((1, []), (2, lines[9:]), (5, lines[6:]), (8, lines[3:]), (99, lines)):
        found = content(await read(kernel, run, tail_line_count=count))
        assert found == b"".join(expected) + b"unended", count


async def test_one_task_and_one_attempt_of_many(kernel: Served) -> None:
    run, worker, (token_a, token_b) = await leased(kernel, "a", "b")
    await append(kernel, token_a, chunk(1, b"a1"))
    await append(kernel, token_b, chunk(1, b"b1"))
    failed = {"reason": "TRY_AGAIN", "retryable": True}
    worker.say(outcomes=[{"token": token_a, "failed": failed}])
    await until(lambda: len(worker.assignments) == 3)
    await append(kernel, worker.assignments[-1].token, chunk(1, b"a2"))
    assert content(await read(kernel, run)) == b"a1b1a2"
    assert content(await read(kernel, run, task="a")) == b"a1a2"
    assert content(await read(kernel, run, task="a", attempt=2)) == b"a2"
    followed = await read(kernel, run, task="a", attempt=1, follow=True)
    assert content(followed) == b"a1", "the first attempt is over, so following it ends"


async def test_followers_get_everything_once_and_end_with_the_run(kernel: Served) -> None:
    run, worker, (token,) = await leased(kernel)
    await append(kernel, token, chunk(1, b"0\n"))
    followers = [asyncio.create_task(read(kernel, run, follow=True)) for _ in range(20)]
    sent = [b"0\n"]
    for number in range(1, 200):
        sent.append(b"%d\n" % number)
        await append(kernel, token, chunk(number + 1, sent[-1]))
        if number == 100:
            followers += [asyncio.create_task(read(kernel, run, follow=True)) for _ in range(20)]
    worker.succeed(token)
    for responses in await asyncio.gather(*followers):
        assert content(responses) == b"".join(sent)
        assert responses[-1].ended


async def test_waiting_followers_ask_the_database_nothing(
    kernel: Served, fresh_database: str
) -> None:
    run, worker, (token,) = await leased(kernel)
    heard: list[bytes] = []

    async def follow() -> None:
        async for response in followed(kernel, run):
            heard.extend(entry.content for entry in response.entries)

    await append(kernel, token, chunk(1, b"first"))
    followers = [asyncio.create_task(follow()) for _ in range(50)]
    await until(lambda: len(heard) == 50)
    await append(kernel, token, chunk(2, b"second"))
    await until(lambda: len(heard) == 100)
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        # Without the table every read of the store would fail.
        connection.execute("ALTER TABLE stretto_p0.task_log_v1 RENAME TO gone")
        worker.succeed(token)
        await asyncio.gather(*followers)
    assert heard.count(b"second") == 50


async def test_a_follower_goes_on_at_the_next_kernel(fresh_database: str) -> None:
    cursor, found = "", b""
    async with served(fresh_database) as kernel:
        run, worker, (token,) = await leased(kernel)
        await append(kernel, token, chunk(1, b"one"))
        async with aclosing(followed(kernel, run)) as parts:
            response = await anext(parts)
            cursor, found = response.cursor, content([response])
        await append(kernel, token, chunk(2, b"two"))
        await worker.cut()
    async with served(fresh_database) as kernel:
        following = asyncio.create_task(read(kernel, run, cursor=cursor, follow=True))
        again = StreamWorker(kernel.channel, session_id=worker.session_id, held=(token,))
        await append(kernel, token, chunk(2, b"two"), chunk(3, b"three"))
        again.succeed(token)
        assert found + content(await following) == b"onetwothree"


async def test_a_store_that_is_down_loses_no_work(kernel: Served, fresh_database: str) -> None:
    run, worker, (token,) = await leased(kernel)
    await append(kernel, token, chunk(1, b"kept"))
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("ALTER TABLE stretto_p0.task_log_v1 RENAME TO gone")
        assert await reason_of(append(kernel, token, chunk(2, b"lost"))) == "STORE_DOWN"
        worker.succeed(token)
        await until(lambda: len(worker.receipts) == 1)
        assert worker.receipts[0].status.code == 0
        connection.execute("ALTER TABLE stretto_p0.gone RENAME TO task_log_v1")
    again = await append(kernel, token, chunk(3, b"again", dropped_bytes=4))
    assert again.status.code == 0
    responses = await read(kernel, run)
    assert content(responses) == b"keptagain"
    assert [one.dropped_bytes for one in responses[0].entries] == [0, 4]


async def test_two_kernels_store_no_entry_twice(fresh_database: str) -> None:
    """A kernel that still believes to own the partition stores beside the next one."""
    async with served(fresh_database) as kernel:
        run, _, (token,) = await leased(kernel)
        await append(kernel, token, chunk(1, b"one"))
        with psycopg.connect(fresh_database, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO stretto_p0.task_log_v1 SELECT run_id, 2, task, epoch, activation,"
                " attempt, 2, stream, time_ns, store_ns, 0, 0, 2, 6, false, 'two'"
                " FROM stretto_p0.task_log_v1"
            )
        await append(kernel, token, chunk(2, b"two"), chunk(3, b"three"))
        async with aclosing(followed(kernel, run)) as parts:
            assert content([await anext(parts)]) == b"onetwothree"


async def test_the_sweep_takes_ended_runs_and_old_entries_and_nothing_else(
    kernel: Served, fresh_database: str
) -> None:
    ended_run, worker, (ended_token,) = await leased(kernel)
    await append(kernel, ended_token, chunk(1, b"ended"))
    worker.succeed(ended_token)
    await until(lambda: len(worker.receipts) == 1)
    live_run = (await kernel.start()).run.name
    await until(lambda: len(worker.assignments) == 2)
    live = worker.assignments[-1].token
    await append(kernel, live, chunk(1, b"old"))
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("UPDATE stretto_p0.task_log_v1 SET store_ns = 1 WHERE content = 'old'")
        connection.execute("UPDATE stretto_p0.task_log_runs_v1 SET oldest_ns = 1")
    await append(kernel, live, chunk(2, b"new"))
    views = ViewTables(PARTITION, kernel.log.tracking)
    projector = asyncio.create_task(Projector(kernel.log, views, VIEWS, RUN_CODEC).run())
    sweep = TaskLogSweep(fresh_database, PARTITION)
    try:
        position = await kernel.log.position()
        while await kernel.log.tracking_position(RUN_INDEX.table) < position:
            pass
        assert await sweep.sweep(before_ns=2, ended_before_ns=2) == 1, "what is old goes"
        assert content(await read(kernel, live_run)) == b"new"
        assert content(await read(kernel, ended_run)) == b"ended"
        now_ns = kernel.kernel.ports.clock.now_ns()
        assert await sweep.sweep(before_ns=2, ended_before_ns=now_ns) == 1, "what ended goes"
        assert await sweep.sweep(before_ns=2, ended_before_ns=now_ns) == 0
    finally:
        projector.cancel()
        await sweep.close()
    assert content(await read(kernel, ended_run)) == b""
    (part, _) = await read(kernel, live_run)
    assert part.missing_count == 1, "positions stay, so a reader is told what is gone"
    await append(kernel, live, chunk(3, b"er"))
    assert content(await read(kernel, live_run, follow=False)) == b"newer"
