"""An encrypting namespace on a real PostgreSQL: the secret is found nowhere, then by nobody."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from stretto.blackboard.v1 import blackboard_service_pb2 as board_pb
from stretto.blackboard.v1.blackboard_service_pb2_grpc import BlackboardServiceStub
from stretto.blob.v1 import blob_service_pb2 as blob_pb
from stretto.blob.v1.blob_service_pb2_grpc import BlobServiceStub
from stretto.common.v1.as_of_pb2 import AsOf
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, Payload
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.namespace.v1 import namespace_service_pb2 as ns_pb
from stretto.namespace.v1.namespace_pb2 import Namespace
from stretto.namespace.v1.namespace_service_pb2_grpc import NamespaceServiceStub
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto.tasklog.v1 import task_log_pb2
from stretto.tasklog.v1 import task_log_service_pb2 as tasklog_pb
from stretto.tasklog.v1.task_log_service_pb2_grpc import TaskLogServiceStub
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as works_pb
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
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
    served,
)
from tests.waiting import until

SECRET = b"tungsten-marmalade-7"
OUT = task_log_pb2.LOG_STREAM_STDOUT
QUOTED = f'"{SECRET.decode()}"'
LARGE = SECRET * 60_000
"""1.2 MB: three chunks of a blob."""


@asynccontextmanager
async def projected(kernel: Served) -> AsyncIterator[None]:
    views = ViewTables(PARTITION, kernel.log.tracking)
    running = asyncio.create_task(Projector(kernel.log, views, VIEWS, RUN_CODEC).run())
    try:
        yield
    finally:
        running.cancel()


async def set_encryption(kernel: Served, *, encrypts: bool = True) -> None:
    request = ns_pb.UpdateNamespaceRequest(
        namespace=Namespace(name="namespaces/default", encrypt_payloads=encrypts),
        request_id=IDS.uuid7(),
    )
    request.update_mask.paths.append("encrypt_payloads")
    await NamespaceServiceStub(kernel.channel).UpdateNamespace(request)


async def put_blob(kernel: Served, data: bytes) -> BlobRef:
    async def parts() -> AsyncIterator[blob_pb.PutBlobRequest]:
        named = BlobRef(digest=hashlib.sha256(data).digest(), size_bytes=len(data))
        yield blob_pb.PutBlobRequest(blob=named)
        for first in range(0, len(data), 300_000):
            yield blob_pb.PutBlobRequest(data=data[first : first + 300_000])

    answer = await BlobServiceStub(kernel.channel).PutBlob(parts())
    blob: BlobRef = answer.blob
    return blob


async def get_blob(kernel: Served, digest: bytes, **part: Any) -> bytes:
    request = blob_pb.GetBlobRequest(digest=digest, **part)
    return b"".join([each.data async for each in BlobServiceStub(kernel.channel).GetBlob(request)])


def spec(name: str, **fields: Any) -> plan_pb2.TaskSpec:
    return plan_pb2.TaskSpec(
        name=name,
        executor="test.body",
        arguments_json=f'{{"token": {QUOTED}}}',
        retry=plan_pb2.RetryPolicy(max_attempts=1),
        **fields,
    )


def literal(payload: Payload) -> plan_pb2.Binding:
    return plan_pb2.Binding(literal=payload)


async def places_of(dsn: str, wanted: bytes) -> list[str]:
    """The tables of the database in which the bytes lie, as they are sent in binary."""
    found = []
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        tables = await connection.execute(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for (table,) in await tables.fetchall():
            content = bytearray()
            statement = f"COPY {table} TO STDOUT (FORMAT binary)"
            async with connection.cursor().copy(statement.encode()) as copy:
                async for part in copy:
                    content += part
            if wanted in content:
                found.append(table)
    return found


class Story:
    """A run that carries the secret in every way there is."""

    def __init__(self, kernel: Served) -> None:
        self.kernel = kernel
        self.worker = StreamWorker(kernel.channel)
        self.run = ""
        self.blob = BlobRef()
        self.artifact = BlobRef()
        self.position = 0
        self.request: dict[str, Any] = {}

    async def play(self) -> None:
        kernel = self.kernel
        self.blob = await put_blob(kernel, LARGE)
        small = {"word": literal(Payload(json=QUOTED)), "large": literal(Payload(blob=self.blob))}
        asked = plan_pb2.Binding(run_input=plan_pb2.RunInputRef(pointer="/secret"))
        self.request = {
            "request_id": IDS.uuid7(),
            "input": Payload(json=f'{{"secret": {QUOTED}}}'),
            "display_name": "a name stays clear",
            "labels": {"team": "tea"},
            "task_graph": plan_pb2.TaskGraph(
                tasks=[spec("good", inputs={**small, "asked": asked}), spec("bad")],
                output=plan_pb2.Binding(task_output=plan_pb2.TaskOutputRef(task="good")),
            ),
        }
        self.run = (await kernel.runs.StartRun(pb.StartRunRequest(**self.request))).run.name
        await until(lambda: len(self.worker.assignments) == 2)
        by_task = {each.token.work_item.split("/")[-1]: each for each in self.worker.assignments}
        good, bad = by_task["good"], by_task["bad"]
        assert good.inputs["asked"].json == QUOTED, "a worker gets clear values"
        assert good.arguments_json == f'{{"token": {QUOTED}}}'
        await self._say_beside(good, bad)
        self.artifact = await put_blob(kernel, LARGE)
        self.worker.say(
            outcomes=[
                work_pb2.Outcome(
                    token=good.token,
                    succeeded=work_pb2.OutcomeSucceeded(
                        result=Payload(json=f"[{QUOTED}]"),
                        artifacts=[Artifact(name="report", blob=self.artifact)],
                    ),
                ),
                work_pb2.Outcome(
                    token=bad.token,
                    failed=Failure(
                        reason="BROKEN",
                        message=f"cannot open {SECRET.decode()}",
                        details=Payload(data=SECRET),
                    ),
                ),
            ]
        )
        await until(lambda: len(self.worker.receipts) == 2)
        assert not any(receipt.status.code for receipt in self.worker.receipts)
        position = await kernel.log.position()
        self.position = position

    async def _say_beside(self, good: work_pb2.Assignment, bad: work_pb2.Assignment) -> None:
        details = Payload(json=QUOTED)
        self.worker.say(renewals=[work_pb2.Renewal(token=bad.token, details=details)])
        chunk = task_log_pb2.LogChunk(sequence=1, stream=OUT, content=SECRET + b"\nmore\n")
        lease = works_pb.LeaseLogs(token=good.token, chunks=[chunk])
        logs = works_pb.AppendLogsRequest(leases=[lease])
        await WorkServiceStub(self.kernel.channel).AppendLogs(logs)
        write = board_pb.EntryWrite(key="context/word", value=Payload(json=QUOTED))
        request = board_pb.PutEntriesRequest(run=self.run, writes=[write], request_id=IDS.uuid7())
        await BlackboardServiceStub(self.kernel.channel).PutEntries(request)

    async def seen(self) -> dict[str, bytes]:
        """What each reading call of the kernel shows."""
        kernel, run = self.kernel, self.run
        run_id = run.rpartition("/")[2]
        least = pb.ListTasksRequest(parent=run)
        least.min_position.partition = "p0"
        least.min_position.number = self.position
        attempts = pb.ListAttemptsRequest(parent=run, min_position=least.min_position)
        runs = pb.ListRunsRequest(min_position=least.min_position)
        while await reason_of(kernel.runs.ListTasks(least)) == "VIEW_BEHIND":
            pass
        while await reason_of(kernel.runs.ListRuns(runs)) == "VIEW_BEHIND":
            pass
        while await reason_of(kernel.runs.ListAttempts(attempts)) == "VIEW_BEHIND":
            pass
        as_of = AsOf(version=1)
        board = BlackboardServiceStub(kernel.channel)
        form = log_pb.EventForm(body_json=True)
        answers: dict[str, Awaitable[Any]] = {
            "GetRun": kernel.runs.GetRun(pb.GetRunRequest(name=run)),
            "GetRun then": kernel.runs.GetRun(pb.GetRunRequest(name=run, as_of=as_of)),
            "ListRunChanges": kernel.runs.ListRunChanges(pb.ListRunChangesRequest(parent=run)),
            "ListTasks": kernel.runs.ListTasks(pb.ListTasksRequest(parent=run)),
            "ListTasks by view": kernel.runs.ListTasks(least),
            "ListAttempts": kernel.runs.ListAttempts(attempts),
            "ListRuns": kernel.runs.ListRuns(runs),
            "ReadStream": kernel.events.ReadStream(
                log_pb.ReadStreamRequest(stream=run_id, form=form)
            ),
            "GetEntries": board.GetEntries(
                board_pb.GetEntriesRequest(run=run, keys=["context/word"])
            ),
            "GetEntries then": board.GetEntries(
                board_pb.GetEntriesRequest(
                    run=run, keys=["context/word"], as_of=AsOf(position=least.min_position)
                )
            ),
        }
        shown = {name: (await answer).SerializeToString() for name, answer in answers.items()}
        reading = TaskLogServiceStub(kernel.channel).ReadTaskLogs(
            tasklog_pb.ReadTaskLogsRequest(run=run)
        )
        shown["ReadTaskLogs"] = b"".join([each.SerializeToString() async for each in reading])
        return shown


async def whole(kernel: Served) -> bool:
    checks = [each async for each in kernel.events.VerifyChain(log_pb.VerifyChainRequest())]
    return checks[-1].whole


async def shred(kernel: Served, run: str, **fields: Any) -> pb.ShredRunResponse:
    fields = {"request_id": IDS.uuid7(), "reason": "they left", **fields}
    return await kernel.runs.ShredRun(pb.ShredRunRequest(name=run, **fields))


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database) as kernel, projected(kernel):
        await set_encryption(kernel)
        yield kernel


async def test_a_secret_is_read_by_callers_and_lies_nowhere(
    kernel: Served, fresh_database: str
) -> None:
    story = Story(kernel)
    await story.play()
    shown = await story.seen()
    assert {name: SECRET in text for name, text in shown.items()} == {
        **dict.fromkeys(shown, True),
        "GetRun": True,
    }
    assert await places_of(fresh_database, SECRET) == []
    assert await places_of(fresh_database, hashlib.sha256(QUOTED.encode()).digest()) == []
    assert await places_of(fresh_database, b"a name stays clear") != [], "the search finds things"
    assert await get_blob(kernel, story.blob.digest) == LARGE
    assert story.blob.digest != story.artifact.digest, "equal blobs are not seen to be equal"
    assert story.blob.digest != hashlib.sha256(LARGE).digest()
    part = await get_blob(kernel, story.blob.digest, offset_bytes=524_200, length_bytes=600_000)
    assert part == LARGE[524_200 : 524_200 + 600_000]
    raw = await kernel.events.ReadStream(
        log_pb.ReadStreamRequest(
            stream=story.run.rpartition("/")[2], form=log_pb.EventForm(stored_bytes=True)
        )
    )
    assert all(SECRET not in each.stored_bytes for each in raw.events), "as it is exported"
    assert all(each.event.key_id for each in raw.events)
    assert await whole(kernel)


async def test_artifacts_are_listed_by_what_is_stored_and_read_in_clear(kernel: Served) -> None:
    story = Story(kernel)
    await story.play()
    request = pb.ListArtifactsRequest(parent=story.run)
    (found,) = (await kernel.runs.ListArtifacts(request)).artifacts
    assert (found.task, found.artifact.name) == ("good", "report"), "names stay clear"
    assert found.artifact.blob == story.artifact
    assert await get_blob(kernel, found.artifact.blob.digest) == LARGE
    await shred(kernel, story.run)
    assert list((await kernel.runs.ListArtifacts(request)).artifacts) == [found], "a fact stays"
    assert await reason_of(get_blob(kernel, found.artifact.blob.digest)) == "BLOB_SHREDDED"
    used = await kernel.runs.GetUsage(pb.GetUsageRequest(parent=story.run))
    assert (used.total.attempt_count, used.total.running_count) == (2, 0)


async def test_a_restart_folds_what_it_decrypts_and_knows_repeats(fresh_database: str) -> None:
    async with served(fresh_database) as kernel, projected(kernel):
        await set_encryption(kernel)
        story = Story(kernel)
        await story.play()
    async with served(fresh_database) as kernel, projected(kernel):
        story.kernel = kernel
        again = await kernel.runs.StartRun(pb.StartRunRequest(**story.request))
        assert again.run.name == story.run
        other = {**story.request, "input": Payload(json='"other"')}
        call = kernel.runs.StartRun(pb.StartRunRequest(**other))
        assert await reason_of(call) == "REQUEST_ID_REUSED"
        shown = await story.seen()
        assert [name for name, text in shown.items() if SECRET not in text] == []
        fresh = (
            await kernel.runs.StartRun(
                pb.StartRunRequest(**{**story.request, "request_id": IDS.uuid7()})
            )
        ).run
        assert fresh.encrypted, "the setting outlasts the kernel"


async def test_after_a_shredding_nobody_reads_it_and_the_chain_is_whole(
    kernel: Served, fresh_database: str
) -> None:
    story = Story(kernel)
    await story.play()
    call = shred(kernel, story.run)
    answer = await call
    assert answer.run.HasField("shred_time")
    assert answer.run.shred_reason == "they left"
    assert answer.run.state == run_pb2.RUN_STATE_FAILED
    story.position = answer.position.number
    shown = await story.seen()
    assert [name for name, text in shown.items() if SECRET in text] == []
    run = (await kernel.runs.GetRun(pb.GetRunRequest(name=story.run))).run
    assert run.input.HasField("shredded"), "a marker, never null"
    assert run.failure.message == "(shredded)"
    assert run.failure.reason == "BROKEN", "what policies and people go by stays"
    assert dict(run.labels) == {"team": "tea"} and run.display_name == "a name stays clear"
    tasks = (await kernel.runs.ListTasks(pb.ListTasksRequest(parent=story.run))).tasks
    assert [each.result.HasField("shredded") for each in tasks if each.task == "good"] == [True]
    for blob in (story.blob, story.artifact):
        assert await reason_of(get_blob(kernel, blob.digest)) == "BLOB_SHREDDED"
    assert b"(shredded)" in shown["ReadTaskLogs"]
    assert await whole(kernel)
    keys = await places_of(fresh_database, b"\x00\x00\x00\x20")  # No row of 32 bytes is left there.
    assert "stretto.run_keys" not in keys and "stretto.blob_keys" not in keys
    # And nothing can be done with it, but to shred it again.
    retry = pb.RetryRunRequest(name=story.run, request_id=IDS.uuid7())
    assert await reason_of(kernel.runs.RetryRun(retry)) == "RUN_SHREDDED"
    again = kernel.runs.StartRun(pb.StartRunRequest(**story.request))
    assert await reason_of(again) in ("RUN_SHREDDED", "BLOB_MISSING")
    assert (await shred(kernel, story.run, reason="again")).run.shred_reason == "they left"


async def test_who_may_not_be_shredded(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    run = (await kernel.start(spec("open"))).run
    assert run.encrypted
    assert await reason_of(shred(kernel, run.name)) == "RUN_NOT_ENDED"
    await kernel.runs.KillRun(pb.KillRunRequest(name=run.name, request_id=IDS.uuid7()))
    assert (await shred(kernel, run.name)).run.HasField("shred_time")
    await set_encryption(kernel, encrypts=False)
    clear = (await kernel.start(spec("clear"))).run
    assert not clear.encrypted
    await kernel.runs.KillRun(pb.KillRunRequest(name=clear.name, request_id=IDS.uuid7()))
    assert await reason_of(shred(kernel, clear.name)) == "RUN_NOT_ENCRYPTED"
    assert await reason_of(shred(kernel, NOBODYS)) == "NOT_FOUND"
    assert await reason_of(shred(kernel, clear.name, reason="x" * 1_001)) == "INVALID_ARGUMENT"
    await worker.cut()


async def test_a_blob_named_by_two_runs_lives_until_both_are_shredded(kernel: Served) -> None:
    blob = await put_blob(kernel, LARGE)
    runs = []
    for _ in range(2):
        started = await kernel.start(spec("x", inputs={"large": literal(Payload(blob=blob))}))
        await kernel.runs.KillRun(pb.KillRunRequest(name=started.run.name, request_id=IDS.uuid7()))
        runs.append(started.run.name)
    await shred(kernel, runs[0])
    assert await get_blob(kernel, blob.digest) == LARGE
    await shred(kernel, runs[1])
    assert await reason_of(get_blob(kernel, blob.digest)) == "BLOB_SHREDDED"
    late = kernel.start(spec("x", inputs={"large": literal(Payload(blob=blob))}))
    assert await reason_of(late) == "BLOB_MISSING"


async def test_a_blob_from_before_is_put_again_encrypted(fresh_database: str) -> None:
    async with served(fresh_database) as kernel:
        clear = await put_blob(kernel, LARGE)
        assert clear.digest == hashlib.sha256(LARGE).digest()
        await set_encryption(kernel)
        blobs = BlobServiceStub(kernel.channel)
        absent = await blobs.FindMissingBlobs(blob_pb.FindMissingBlobsRequest(blobs=[clear]))
        assert list(absent.missing) == [clear]
        named = kernel.start(spec("x", inputs={"large": literal(Payload(blob=clear))}))
        assert await reason_of(named) == "BLOB_MISSING"
        encrypted = await put_blob(kernel, LARGE)
        assert encrypted.digest != clear.digest
        assert await get_blob(kernel, encrypted.digest) == LARGE
        assert await get_blob(kernel, clear.digest) == LARGE
        empty = await put_blob(kernel, b"")
        assert await get_blob(kernel, empty.digest) == b""


async def test_a_crash_between_fact_and_destruction_ends_in_destroyed(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(fresh_database) as kernel, projected(kernel):
        await set_encryption(kernel)
        story = Story(kernel)
        await story.play()

        async def crash(_: int) -> None:
            raise RuntimeError("the process ends here")

        monkeypatch.setattr(kernel.kernel.ports.blobs, "forget_keys", crash)
        assert await reason_of(shred(kernel, story.run)) == "INTERNAL"
        monkeypatch.undo()
    async with served(fresh_database) as kernel, projected(kernel):
        assert kernel.kernel.ports.keys.destroyed_count == 1, "by the next owner, unasked"
        story.kernel = kernel
        story.position = await kernel.log.position()
        shown = await story.seen()
        assert [name for name, text in shown.items() if SECRET in text] == []
        assert await reason_of(get_blob(kernel, story.blob.digest)) == "BLOB_SHREDDED"
        assert (await shred(kernel, story.run)).run.shred_reason == "they left"


async def test_a_mark_without_its_fact_is_lifted(fresh_database: str) -> None:
    async with served(fresh_database) as kernel:
        await set_encryption(kernel)
        run = (await kernel.start(spec("x"), input=Payload(json=QUOTED))).run
        await kernel.runs.KillRun(pb.KillRunRequest(name=run.name, request_id=IDS.uuid7()))
        keys = kernel.kernel.ports.keys
        await keys.mark(1)
        assert [marked.key_id for marked in await keys.marked()] == [1]
    async with served(fresh_database) as kernel:
        assert await kernel.kernel.ports.keys.marked() == []
        shown = (await kernel.runs.GetRun(pb.GetRunRequest(name=run.name))).run
        assert shown.input.json == QUOTED


async def test_a_key_that_the_database_lost_is_named(fresh_database: str) -> None:
    async with served(fresh_database) as kernel:
        await set_encryption(kernel)
        run = (await kernel.start(spec("x"), input=Payload(json=QUOTED))).run
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        await connection.execute("DELETE FROM stretto.run_keys")
    async with served(fresh_database) as kernel:
        call = kernel.runs.GetRun(pb.GetRunRequest(name=run.name))
        assert await reason_of(call) == "RUN_KEY_MISSING"
