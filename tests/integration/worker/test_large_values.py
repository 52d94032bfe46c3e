"""Values of any size and artifacts, through a real kernel, workers and clients."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from stretto.blob.v1 import blob_service_pb2 as blob_pb
from stretto.blob.v1.blob_service_pb2_grpc import BlobServiceStub
from stretto.common.v1.payload_pb2 import BlobRef, Payload
from stretto_core.errors import NotFound
from stretto_sdk import Blob, Client, RunFailed, TaskContext, TaskResult, Worker

from tests.integration.kernel.serving import Served, reason_of, served
from tests.integration.worker.test_with_kernel import PATIENCE_S, serving, worker_service

LARGE = {"rows": ["x" * 1_000 for _ in range(5_000)], "n": 7}


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database) as kernel:
        yield kernel


def task(name: str, *after: str, **fields: Any) -> dict[str, object]:
    return {
        "name": name,
        "executor": "python",
        "arguments": {"function": name},
        "after": list(after),
        **fields,
    }


def output(name: str, pointer: str = "") -> dict[str, str]:
    return {"from": "task", "task": name, "pointer": pointer}


async def result_of(client: Client, plan: Mapping[str, object], **start: Any) -> object:
    run = await client.start(plan, **start)
    return await asyncio.wait_for(client.result(run), PATIENCE_S)


async def test_a_user_passes_and_returns_what_they_like(kernel: Served) -> None:
    worker = Worker(kernel.address, name="w")

    @worker.task
    async def make(ctx: TaskContext, given: dict[str, Any], literal: str) -> dict[str, Any]:
        return {"rows": given["rows"], "n": given["n"] + len(literal)}

    @worker.task
    def take(ctx: object, whole: dict[str, Any], row: str, n: int) -> dict[str, Any]:
        return {"rows": len(whole["rows"]), "row": row, "n": n, "echo": whole["rows"]}

    inputs = {
        "given": {"from": "input"},
        "literal": {"from": "literal", "value": "y" * 100_000},
    }
    parts = {
        "whole": output("make"),
        "row": output("make", "/rows/4999"),
        "n": output("make", "/n"),
    }
    plan = {
        "tasks": [task("make", inputs=inputs), task("take", "make", inputs=parts)],
        "output": output("take"),
    }
    async with serving(worker), Client(kernel.address) as client:
        found = await result_of(client, plan, input=LARGE)
        row = "x" * 1_000
        assert found == {"rows": 5_000, "row": row, "n": 100_007, "echo": LARGE["rows"]}
        in_part = {**plan, "output": output("take", "/n")}
        run = await client.start(in_part, input=LARGE)
        assert await asyncio.wait_for(client.result(run), PATIENCE_S) == 100_007
        read = await client.get(run)
        assert isinstance(read.input, Blob), "a read does not fetch what nobody asked for"
        assert await client.fetch(read.input) == LARGE
        made, _ = await client.tasks(run)
        assert isinstance(made.result, Blob)
        assert made.result.content_type == "application/json"


async def test_bytes_spawned_tasks_and_lists_of_outputs_are_as_large(kernel: Served) -> None:
    worker = Worker(kernel.address, name="w")
    parts = [bytes([n]) * 200_000 for n in range(3)]

    @worker.task
    async def split(ctx: TaskContext) -> TaskResult:
        await ctx.spawn([task("grow", inputs={"n": 70_000, "text": "s" * 100_000})])
        small = {**task("grow", inputs={"n": 1, "text": "t" * 90_000}), "name": "small"}
        return TaskResult(parts[1], spawn=[small])

    @worker.task
    async def grow(ctx: TaskContext, n: int, text: str) -> dict[str, str]:
        return {"text": text[:1] * n}

    @worker.task
    async def join(ctx: TaskContext, texts: list[str], raw: bytes) -> bytes:
        return raw + "".join(texts).encode()

    plan = {
        "tasks": [
            task("split", may_spawn=True),
            {
                **task("join"),
                "after": [{"task": "split", "scope": "subtree"}],
                "inputs": {
                    "texts": {"from": "subtree", "task": "split", "pointer": "/text"},
                    "raw": output("split"),
                },
            },
        ],
        "output": output("join"),
    }
    async with serving(worker), Client(kernel.address) as client:
        assert await result_of(client, plan) == parts[1] + b"s" * 70_000 + b"t"


async def test_a_pointer_that_leads_nowhere_in_a_blob_fails_the_task_once(kernel: Served) -> None:
    worker = Worker(kernel.address, name="w")

    @worker.task
    async def never(ctx: TaskContext, part: object) -> None:
        raise AssertionError("its input is not there")

    inputs = {"part": {"from": "input", "pointer": "/rows/5000"}}
    plan = {"tasks": [task("never", inputs=inputs)]}
    async with serving(worker), Client(kernel.address) as client:
        run = await client.start(plan, input=LARGE)
        with pytest.raises(RunFailed) as caught:
            await asyncio.wait_for(client.result(run), PATIENCE_S)
        assert caught.value.run.failure is not None
        assert caught.value.run.failure.reason == "INPUT_UNRESOLVED"
        (failed,) = await client.tasks(run)
        assert failed.attempt == 1


async def test_a_blob_that_is_gone_at_lease_time_fails_the_task(
    kernel: Served, fresh_database: str
) -> None:
    worker = Worker(kernel.address, name="w")

    @worker.task
    async def never(ctx: TaskContext, part: object) -> None:
        raise AssertionError("its input is not there")

    plan = {"tasks": [task("never", inputs={"part": {"from": "input"}})]}
    async with Client(kernel.address) as client:
        run = await client.start(plan, input=LARGE)
        # No sweep does this: a fact names it. A restored back-up without its blobs would.
        with psycopg.connect(fresh_database) as connection:
            connection.execute("DELETE FROM stretto.blobs")
        async with serving(worker):
            with pytest.raises(RunFailed) as caught:
                await asyncio.wait_for(client.result(run), PATIENCE_S)
        assert caught.value.run.failure is not None
        assert caught.value.run.failure.reason == "BLOB_MISSING"


async def test_commands_that_name_a_missing_blob_are_refused(kernel: Served) -> None:
    missing = Payload(blob=BlobRef(digest=hashlib.sha256(b"never put").digest(), size_bytes=9))
    assert await reason_of(kernel.start(input=missing)) == "BLOB_MISSING"
    assert await reason_of(kernel.start(input=missing, validate_only=True)) == "BLOB_MISSING"


async def test_a_blob_of_another_namespace_is_not_there(kernel: Served) -> None:
    async with Client(kernel.address, namespace="ours") as ours:
        run = await ours.start({"tasks": [task("t")]}, input=LARGE)
        read = await ours.get(run)
        assert isinstance(read.input, Blob)
        async with Client(kernel.address, namespace="theirs") as theirs:
            with pytest.raises(NotFound):
                await anext(theirs.read_blob(read.input.sha256))
        name = BlobRef(digest=bytes.fromhex(read.input.sha256), size_bytes=read.input.size_bytes)
        foreign = kernel.start(parent="namespaces/theirs", input=Payload(blob=name))
        assert await reason_of(foreign) == "BLOB_MISSING"


async def test_one_task_with_more_literals_than_a_message_holds_is_started(kernel: Served) -> None:
    worker = Worker(kernel.address, name="w", slots=2)

    @worker.task
    async def count(ctx: TaskContext, **inputs: str) -> int:
        return sum(map(len, inputs.values()))

    # Each literal may be inline; together they are more than one fact, and than one message.
    inputs = {f"i{n}": chr(65 + n % 26) * 60_000 for n in range(90)}
    plan = {"tasks": [task("count", inputs=inputs)], "output": output("count")}
    async with serving(worker), Client(kernel.address) as client:
        await client.validate(plan)
        assert await result_of(client, plan) == 90 * 60_000


async def test_the_limits_of_the_service_are_refusals(kernel: Served) -> None:
    blobs = BlobServiceStub(kernel.channel)
    digest = hashlib.sha256(b"abc").digest()

    def put(**first: Any) -> Any:
        return blobs.PutBlob(iter([blob_pb.PutBlobRequest(**first)]))

    async def got(**fields: Any) -> list[blob_pb.GetBlobResponse]:
        request = blob_pb.GetBlobRequest(digest=digest, **fields)
        return [answer async for answer in blobs.GetBlob(request)]

    assert await reason_of(put()) == "INVALID_ARGUMENT"
    too_large = BlobRef(digest=digest, size_bytes=(1 << 30) + 1)
    assert await reason_of(put(blob=too_large)) == "INVALID_ARGUMENT"
    assert await reason_of(put(blob=BlobRef(digest=digest, size_bytes=3), data=b"abX")) == (
        "DIGEST_MISMATCH"
    )
    assert await reason_of(got()) == "NOT_FOUND"
    await put(blob=BlobRef(digest=digest, size_bytes=3), data=b"abc")
    assert await reason_of(got(offset_bytes=4)) == "OUT_OF_RANGE"
    assert await reason_of(got(offset_bytes=-1)) == "INVALID_ARGUMENT"
    (answer,) = await got(offset_bytes=3)
    assert (answer.size_bytes, answer.data) == (3, b"")
    asked = [BlobRef(digest=digest, size_bytes=3)] * 1_001
    find = blobs.FindMissingBlobs(blob_pb.FindMissingBlobsRequest(blobs=asked))
    assert await reason_of(find) == "INVALID_ARGUMENT"


async def test_artifacts_of_functions_and_commands(kernel: Served, tmp_path: Path) -> None:
    worker = Worker(kernel.address, name="w", queues=["mine"])
    report = bytes(range(256)) * 4_000

    @worker.task
    async def write(ctx: TaskContext) -> str:
        await ctx.artifact("notes.txt", b"first")
        await ctx.artifact("notes.txt", b"second")
        return "written"

    @worker.task
    def draw(ctx: Any) -> None:
        path = tmp_path / "drawing.bin"
        path.write_bytes(report)
        ctx.artifact("pictures/drawing.bin", str(path), "image/x-own")
        path.unlink()

    made = tmp_path / "made"
    made.mkdir()
    script = "mkdir -p out; printf one > out/1.log; printf two > out/2.log; printf log > a.log"
    command = {
        "name": "command",
        "executor": "process",
        "arguments": {
            "argv": ["sh", "-c", script],
            "cwd": str(made),
            "output": "none",
            "artifacts": ["out/*.log", "a.log"],
        },
    }
    mine = {"queue": "mine"}
    plan = {"tasks": [task("write", **mine), task("draw", **mine), command]}
    async with (
        serving(worker),
        worker_service(kernel, "service", tmp_path),
        Client(kernel.address) as client,
    ):
        run = await client.start(plan)
        await asyncio.wait_for(client.result(run), PATIENCE_S)
        written, drawn, commanded = await client.tasks(run)
        (notes,) = written.artifacts
        assert (notes.name, notes.size_bytes, notes.content_type) == ("notes.txt", 6, "text/plain")
        (drawing,) = drawn.artifacts
        assert (drawing.name, drawing.content_type) == ("pictures/drawing.bin", "image/x-own")
        assert b"".join([part async for part in client.read_blob(drawing.sha256)]) == report
        assert [each.name for each in commanded.artifacts] == ["a.log", "out/1.log", "out/2.log"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("none.log", "ARTIFACT_MISSING"),
        ("*.none", "ARTIFACT_MISSING"),
        ("link", "ARTIFACT_MISSING"),
        ("li*", "ARTIFACT_MISSING"),
        (".", "INVALID_ARGUMENTS"),
        ("../outside", "INVALID_ARGUMENTS"),
        ("/etc/passwd", "INVALID_ARGUMENTS"),
        ("**no", "ARTIFACT_NOT_STORED"),
    ],
)
async def test_an_artifact_that_is_not_there_or_not_its_own_is_a_failure(
    kernel: Served, tmp_path: Path, pattern: str, reason: str
) -> None:
    (tmp_path / "outside").write_text("secret")
    made = tmp_path / "made"
    made.mkdir()
    (made / "link").symlink_to(tmp_path / "outside")
    command = {
        "name": "command",
        "executor": "process",
        "arguments": {"argv": [sys.executable, "-c", ""], "cwd": str(made), "artifacts": [pattern]},
        "retry": {"max_attempts": 1},
    }
    async with worker_service(kernel, "service", tmp_path), Client(kernel.address) as client:
        run = await client.start({"tasks": [command]})
        with pytest.raises(RunFailed) as caught:
            await asyncio.wait_for(client.result(run), PATIENCE_S)
        assert caught.value.run.failure is not None
        assert caught.value.run.failure.reason == reason
