"""BlackboardService over gRPC, real PostgreSQL and real views: each call, each code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from stretto.blackboard.v1 import blackboard_pb2 as board_pb
from stretto.blackboard.v1 import blackboard_service_pb2 as pb
from stretto.blackboard.v1.blackboard_service_pb2_grpc import BlackboardServiceStub
from stretto.common.v1.as_of_pb2 import AsOf
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import BlobRef, Payload
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.run.v1 import plan_pb2
from stretto.run.v1 import run_service_pb2 as run_pb
from stretto_core.errors import InvalidArgument, Refusal
from stretto_core.ids import RunId
from stretto_core.rpc.status import from_rpc_error
from stretto_core.telemetry.metrics import Gauge, Registry
from stretto_kernel.adapters.board_table import BoardTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.app.board_calls import EntryQuery
from stretto_kernel.kernel_metrics import add_metrics
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS

from tests.integration.kernel.serving import (
    IDS,
    NOBODYS,
    PARTITION,
    Served,
    StreamWorker,
    task,
)
from tests.waiting import until

if TYPE_CHECKING:
    from stretto.blackboard.v1.blackboard_service_pb2_grpc import BlackboardServiceAsyncStub


class Board:
    """The blackboard of one run."""

    def __init__(self, channel: grpc.aio.Channel, run: str) -> None:
        self.stub: BlackboardServiceAsyncStub = BlackboardServiceStub(channel)
        self.run = run

    async def put(
        self,
        *writes: pb.EntryWrite,
        token: LeaseToken | None = None,
        request_id: str = "",
        **values: str,
    ) -> int:
        """Write entries, or JSON values under `context/<name>`; return their revision."""
        named = [write(f"context/{name}", json) for name, json in values.items()]
        request = pb.PutEntriesRequest(
            run=self.run,
            writes=[*writes, *named],
            token=token,
            request_id=request_id or IDS.uuid7(),
        )
        return (await self.stub.PutEntries(request)).revision

    async def delete(self, key: str, expected: int | None = None, **fields: Any) -> int:
        deletion = pb.EntryDeletion(key=key, expected_revision=expected)
        request = pb.DeleteEntriesRequest(
            run=self.run, deletions=[deletion], request_id=IDS.uuid7(), **fields
        )
        return (await self.stub.DeleteEntries(request)).revision

    async def get(self, *keys: str, **fields: Any) -> dict[str, str]:
        request = pb.GetEntriesRequest(run=self.run, keys=keys, **fields)
        return values_of((await self.stub.GetEntries(request)).entries)

    async def list_all(self, prefix: str = "", **fields: Any) -> list[board_pb.Entry]:
        """Every entry, by pages of two."""
        found: list[board_pb.Entry] = []
        request = pb.ListEntriesRequest(run=self.run, prefix=prefix, page_size=2, **fields)
        while True:
            page = await self.stub.ListEntries(request)
            found += page.entries
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def watch(self, prefix: str = "", after: int | None = None) -> Watch:
        request = pb.WatchEntriesRequest(run=self.run, prefix=prefix, after_revision=after)
        return Watch(self.stub.WatchEntries(request))


class Watch:
    """A watch, and what it was told so far."""

    def __init__(self, call: Any) -> None:
        self.changes: list[tuple[str, int, str | None]] = []
        self.revision = 0
        self.ended = False
        self._task = asyncio.create_task(self._read(call))

    async def _read(self, call: Any) -> None:
        async for told in call:
            self.changes += [
                (each.key, each.revision, None if each.deleted else each.value.json)
                for each in told.changes
            ]
            self.revision, self.ended = told.revision or self.revision, told.ended

    async def cut(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


def write(key: str, json: str = "1", expected: int | None = None) -> pb.EntryWrite:
    return pb.EntryWrite(key=key, value=Payload(json=json), expected_revision=expected)


def values_of(entries: Any) -> dict[str, str]:
    return {entry.key: entry.value.json for entry in entries}


async def refusal_of(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def a_board(kernel: Served, *tasks: plan_pb2.TaskSpec) -> Board:
    run = (await kernel.start(*tasks)).run
    return Board(kernel.channel, run.name)


async def kill(kernel: Served, board: Board) -> None:
    await kernel.runs.KillRun(run_pb.KillRunRequest(name=board.run, request_id=IDS.uuid7()))


async def test_entries_are_written_read_compared_and_deleted(kernel: Served) -> None:
    board = await a_board(kernel)
    first = await board.put(a="1", b='{"x": [1]}')
    request = pb.GetEntriesRequest(run=board.run, keys=["context/b", "context/none", "context/a"])
    answer = await board.stub.GetEntries(request)
    assert values_of(answer.entries) == {"context/b": '{"x": [1]}', "context/a": "1"}
    assert {entry.revision for entry in answer.entries} == {first}
    assert answer.revision >= first
    entry = answer.entries[0]
    assert entry.run == board.run and entry.HasField("write_time") and not entry.deleted
    assert entry.writer.kind == board_pb.WRITER_KIND_OPERATOR
    assert entry.writer.name == "anonymous"

    second = await board.put(write("context/a", "2", expected=first))
    assert second > first
    refusal = await refusal_of(board.put(write("context/a", "3", expected=first), c="1"))
    assert refusal.reason_word == "REVISION_MISMATCH" and refusal.retry_delay_ms is None
    assert refusal.metadata["current_revision"] == str(second)
    assert await board.get("context/a", "context/c") == {"context/a": "2"}

    third = await board.delete("context/a", expected=second)
    assert third > second
    assert await board.delete("context/a") == 0, "nothing was there"
    assert await board.put(write("context/a", "4", expected=0)) > third


async def test_a_repeated_write_gets_the_first_answer(kernel: Served) -> None:
    board = await a_board(kernel)
    request_id = IDS.uuid7()
    first = await board.put(a="1", request_id=request_id)
    later = await board.put(a="2")
    assert await board.put(a="1", request_id=request_id) == first < later
    assert await board.get("context/a") == {"context/a": "2"}
    refusal = await refusal_of(board.put(a="3", request_id=request_id))
    assert refusal.reason_word == "REQUEST_ID_REUSED"


async def test_a_holder_writes_its_own_scope_until_its_lease_is_over(kernel: Served) -> None:
    board = await a_board(kernel, task("a"), task("b"))
    worker = StreamWorker(kernel.channel)
    await until(lambda: len(worker.assignments) == 2)
    tokens = {each.task: each.token for each in worker.assignments}
    token = tokens["a"]
    revision = await board.put(write("a:progress/percent", "50"), token=token)
    (entry,) = await board.list_all("a:")
    assert entry.writer == board_pb.Writer(
        kind=board_pb.WRITER_KIND_WORKER, name="w1", task="a", activation=1, attempt=1, epoch=1
    )
    assert entry.revision == revision
    for key in ("b:progress/percent", "context/goal", "a:verifier/verdict"):
        refusal = await refusal_of(board.put(write(key), token=token))
        assert (refusal.reason_word, refusal.metadata["key"]) == ("FOREIGN_SCOPE", key)
    forged = LeaseToken(work_item=token.work_item, epoch=token.epoch, secret=tokens["b"].secret)
    assert (await refusal_of(board.put(write("a:plan/x"), token=forged))).reason_word == (
        "WRONG_SECRET"
    )
    request_id = IDS.uuid7()
    kept = await board.put(write("a:result/x", expected=0), token=token, request_id=request_id)
    worker.succeed(token)
    await until(lambda: bool(worker.receipts))
    refusal = await refusal_of(board.put(write("a:progress/percent", "100"), token=token))
    assert (refusal.reason_word, refusal.metadata["current_epoch"]) == ("LEASE_LOST", "1")
    repeated = board.put(write("a:result/x", expected=0), token=token, request_id=request_id)
    assert await repeated == kept, "its fate is told, though the lease is over"
    refusal = await refusal_of(board.delete("a:progress/percent", token=token))
    assert refusal.reason_word == "LEASE_LOST"
    await until_recorded(kernel, board, "WriteRefused")
    await worker.cut()


async def until_recorded(kernel: Served, board: Board, event: str) -> None:
    stream = board.run.rpartition("/")[2]
    while True:
        request = log_pb.ReadStreamRequest(stream=stream)
        events = (await kernel.events.ReadStream(request)).events
        if any(each.event.type.endswith(event) for each in events):
            return


async def test_an_ended_run_takes_no_writes_and_a_retried_one_does(kernel: Served) -> None:
    board = await a_board(kernel)
    before = await board.put(a="1")
    await kill(kernel, board)
    refusal = await refusal_of(board.put(a="2"))
    assert (refusal.reason_word, refusal.metadata["state"]) == ("RUN_CLOSED", "KILLED")
    assert await board.get("context/a") == {"context/a": "1"}
    await kernel.runs.RetryRun(run_pb.RetryRunRequest(name=board.run, request_id=IDS.uuid7()))
    assert await board.put(write("context/a", "2", expected=before)) > before


async def test_entries_are_listed_by_prefix_and_filter_on_pages(kernel: Served) -> None:
    board = await a_board(kernel, task("a"), task("b"))
    await board.put(*(write(f"context/{name}") for name in "edcba"))
    await board.put(write("a:progress/x"), write("b:progress/x"), write("b:human/y"))
    keys = [entry.key for entry in await board.list_all("context/")]
    assert keys == [f"context/{name}" for name in "abcde"]

    async def found(text: str) -> list[str]:
        return [entry.key for entry in await board.list_all(filter=text)]

    assert await found("namespace = progress") == ["a:progress/x", "b:progress/x"]
    assert await found('task = "b"') == ["b:human/y", "b:progress/x"]
    assert await found('task = "b" AND namespace = human') == ["b:human/y"]
    assert len(await found("writer_kind = OPERATOR")) == 8
    assert await found("writer_kind = WORKER") == []
    for wrong in (
        "task = b",
        "namespace = nowhere",
        "writer_kind = NOBODY",
        "path = 1",
        "task >= ",
    ):
        assert isinstance(await refusal_of(found(wrong)), InvalidArgument), wrong


async def test_a_watch_begins_with_what_is_there_and_tells_each_change(kernel: Served) -> None:
    board = await a_board(kernel, task("a"))
    first = await board.put(a="1", b="1")
    watch = board.watch("context/")
    await until(lambda: len(watch.changes) == 2)
    assert watch.changes == [("context/a", first, "1"), ("context/b", first, "1")]
    second = await board.put(a="2")
    await board.put(write("a:plan/other"))
    third = await board.delete("context/b")
    await until(lambda: len(watch.changes) == 4)
    assert watch.changes[2:] == [("context/a", second, "2"), ("context/b", third, None)]
    await watch.cut()
    resumed = board.watch("context/", after=second)
    fourth = await board.put(b="3")
    await kill(kernel, board)
    await until(lambda: resumed.ended)
    assert resumed.changes == [("context/b", third, None), ("context/b", fourth, "3")]
    ended = board.watch()
    await until(lambda: ended.ended)
    assert [key for key, _, _ in ended.changes] == ["a:plan/other", "context/a", "context/b"]


async def test_a_watch_starts_within_the_run(kernel: Served) -> None:
    board = await a_board(kernel)
    revision = await board.put(a="1")
    call = board.stub.WatchEntries(
        pb.WatchEntriesRequest(run=board.run, after_revision=revision + 10)
    )
    refusal = await refusal_of(call.read())
    assert (refusal.reason_word, refusal.metadata["newest"]) == ("OUT_OF_RANGE", str(revision))


async def test_every_writer_at_once_is_seen_once_in_order(kernel: Served) -> None:
    board = await a_board(kernel)
    watch = board.watch("context/")

    async def count(name: str) -> int:
        """Add one by compare-and-set until it holds; return how often it had to."""
        for tries in range(1_000):
            entries = (
                await board.stub.GetEntries(
                    pb.GetEntriesRequest(run=board.run, keys=["context/count"])
                )
            ).entries
            value, revision = (
                (int(entries[0].value.json), entries[0].revision) if entries else (0, 0)
            )
            try:
                await board.put(write("context/count", str(value + 1), expected=revision))
            except grpc.aio.AioRpcError:
                continue
            return tries
        raise AssertionError(name)

    await asyncio.gather(*(count(f"writer {index}") for index in range(12)))
    await until(lambda: len(watch.changes) == 12)
    assert [int(json or 0) for _, _, json in watch.changes] == list(range(1, 13))
    revisions = [revision for _, revision, _ in watch.changes]
    assert revisions == sorted(set(revisions))
    await watch.cut()


async def test_a_blob_must_be_there_and_a_stranger_does_not_learn_whether(kernel: Served) -> None:
    board = await a_board(kernel, task("a"))
    blob = Payload(blob=BlobRef(digest=bytes(32), size_bytes=7))
    missing = pb.EntryWrite(key="context/a", value=blob)
    assert (await refusal_of(board.put(missing))).reason_word == "BLOB_MISSING"
    token = LeaseToken(work_item=f"{board.run}/tasks/a", epoch=0, secret=b"?")
    refused = board.put(pb.EntryWrite(key="a:plan/a", value=blob), token=token)
    assert (await refusal_of(refused)).reason_word == "WRONG_SECRET"


async def test_every_wrong_field_is_named(kernel: Served) -> None:
    board = await a_board(kernel)
    refusal = await refusal_of(board.stub.PutEntries(pb.PutEntriesRequest(run="nowhere")))
    assert isinstance(refusal, InvalidArgument)
    assert {each.field for each in refusal.violations} == {"run", "request_id"}
    foreign = LeaseToken(work_item="namespaces/default/runs/other/tasks/a")
    refusal = await refusal_of(board.put(a="1", token=foreign))
    assert isinstance(refusal, InvalidArgument)
    assert [each.field for each in refusal.violations] == ["token.work_item"]
    for request, fields in (
        (pb.GetEntriesRequest(run=board.run), {"keys"}),
        (pb.GetEntriesRequest(run=board.run, keys=["a", "plan/a"]), {"keys[0]"}),
    ):
        refusal = await refusal_of(board.stub.GetEntries(request))
        assert isinstance(refusal, InvalidArgument)
        assert {each.field for each in refusal.violations} == fields
    listing = pb.ListEntriesRequest(run=board.run, prefix="a b", page_size=-1)
    refusal = await refusal_of(board.stub.ListEntries(listing))
    assert isinstance(refusal, InvalidArgument)
    assert {each.field for each in refusal.violations} == {"prefix", "page_size"}
    unknown = pb.GetEntriesRequest(run=NOBODYS, keys=["plan/a"])
    assert (await refusal_of(board.stub.GetEntries(unknown))).reason_word == "NOT_FOUND"


async def test_a_task_is_given_the_entries_it_binds_with_their_revisions(kernel: Served) -> None:
    goal = plan_pb2.BoardEntryRef(key="context/goal", pointer="/aim")
    hint = plan_pb2.BoardEntryRef(key="human/hint", may_be_missing=True)
    bound = task(
        "a",
        inputs={
            "goal": plan_pb2.Binding(board_entry=goal),
            "hint": plan_pb2.Binding(board_entry=hint),
        },
    )
    board = await a_board(kernel, bound)
    revision = await board.put(goal='{"aim": 42}')
    worker = StreamWorker(kernel.channel)
    await until(lambda: bool(worker.assignments))
    (assignment,) = worker.assignments
    assert {name: value.json for name, value in assignment.inputs.items()} == {
        "goal": "42",
        "hint": "null",
    }
    assert dict(assignment.board_revisions) == {"goal": revision, "hint": 0}
    await worker.cut()


@pytest.mark.usefixtures("projector")
async def test_a_board_is_read_as_it_was(kernel: Served) -> None:
    board = await a_board(kernel, task("a"))
    history: dict[int, dict[str, str]] = {}
    history[await board.put(a="1", b="1", c="1")] = {}
    history[await board.put(write("a:plan/x"), a="2")] = {}
    history[await board.delete("context/b")] = {}
    history[await board.put(b="3", d="3")] = {}
    for revision in history:
        found = await board.list_all(as_of=AsOf(version=revision))
        history[revision] = values_of(found)
        assert all(entry.revision <= revision for entry in found)
    first, second, third, fourth = history
    of_run = {f"context/{name}": "1" for name in "abc"}
    assert history[first] == of_run
    assert history[second] == {"a:plan/x": "1", **of_run, "context/a": "2"}
    assert "context/b" not in history[third]
    assert history[fourth] == values_of(await board.list_all())
    assert await board.list_all(as_of=AsOf(version=fourth)) == await board.list_all()
    then = AsOf(version=second)
    assert await board.get("context/b", "context/d", as_of=then) == {"context/b": "1"}
    by_scope = await board.list_all(filter='task = "a" AND namespace = plan', as_of=then)
    assert [entry.key for entry in by_scope] == ["a:plan/x"]
    by_writer = await board.list_all("context/", filter="writer_kind = WORKER", as_of=then)
    assert by_writer == []
    ahead = AsOf(version=fourth + 1)
    refusal = await refusal_of(board.get("context/a", as_of=ahead))
    assert refusal.reason_word == "OUT_OF_RANGE"
    assert (await refusal_of(board.get("context/a", as_of=AsOf(version=-1)))).reason_word == (
        "INVALID_ARGUMENT"
    )


async def test_reading_as_of_a_version_uses_an_index(kernel: Served) -> None:
    tables = ViewTables(PARTITION, kernel.log.tracking)
    projector = asyncio.create_task(Projector(kernel.log, tables, VIEWS, RUN_CODEC).run())
    board = await a_board(kernel)
    revision = await board.put(a="1")
    await board.list_all(as_of=AsOf(version=revision))
    projector.cancel()
    view = BoardTable(PARTITION, kernel.log.tracking)
    run_id = RunId(board.run.rpartition("/")[2])
    asked = view.statement(run_id, revision, view.terms(EntryQuery(prefix="context/")), 10)

    def explain(cursor: Any) -> list[str]:
        cursor.execute("SET LOCAL enable_seqscan = off")
        return [row["QUERY PLAN"] for row in cursor.execute(b"EXPLAIN " + asked.as_bytes(cursor))]

    plan = await tables.transact(explain, commit=False)
    assert any("Index" in line for line in plan) and not any("Sort" in line for line in plan)


async def test_writes_and_refusals_are_counted(kernel: Served) -> None:
    registry = Registry()
    add_metrics(registry, kernel.kernel)
    board = await a_board(kernel)
    await board.put(a="1")
    await refusal_of(board.put(write("context/a", expected=0)))
    shown = {
        (family.name, *labels): metric.current()
        for family in registry.families()
        for labels, metric in family.by_labels.items()
        if isinstance(metric, Gauge)
    }
    assert shown["stretto_kernel_board_writes",] == 1
    refused = ("stretto_kernel_board_writes_refused", ("reason", "REVISION_MISMATCH"))
    assert shown[refused] == 1
