"""Large values and artifacts by the command, and an upload whose kernel is killed in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from stretto.blob.v1 import blob_service_pb2 as pb
from stretto.blob.v1.blob_service_pb2_grpc import BlobServiceStub
from stretto.common.v1.payload_pb2 import BlobRef
from stretto_core.errors import Unavailable
from stretto_core.rpc.channel import open_channel
from stretto_core.rpc.retry import RetryPolicy, refusals
from stretto_sdk.blobs import BlobClient

from tests.e2e.conftest import BIN, Suite
from tests.waiting import until

LIMIT = timedelta(seconds=60)
PICTURE = bytes(range(256)) * 4_000


def plan_of(work: Path) -> dict[str, object]:
    argv = ["sh", "-c", "cat > in.json; printf text > note.txt; cat in.json"]
    return {
        "tasks": [
            {
                "name": "work",
                "executor": "process",
                "arguments": {"argv": argv, "cwd": str(work), "artifacts": ["*.bin", "note.txt"]},
                "inputs": {"rows": {"from": "input", "pointer": "/rows"}},
            }
        ],
        "output": {"from": "task", "task": "work", "pointer": "/rows"},
    }


def test_large_input_output_and_artifacts_by_the_command(suite: Suite, tmp_path: Path) -> None:
    rows = [f"row {number}" for number in range(50_000)]
    work = tmp_path / "work"
    work.mkdir()
    (work / "picture.bin").write_bytes(PICTURE)
    plan, given = tmp_path / "plan.json", tmp_path / "big.json"
    plan.write_text(json.dumps(plan_of(work)))
    given.write_text(json.dumps({"rows": rows}))
    ended = suite.stretto("run", plan, "--input", f"@{given}", "--json")
    assert ended.returncode == 0, ended.stderr
    run = json.loads(ended.stdout)
    assert run["output"] == rows
    read = suite.stretto("get", run["run_id"], "--output")
    assert json.loads(read.stdout) == rows
    shown = json.loads(suite.stretto("get", run["run_id"], "--json").stdout)
    assert set(shown["input"]) == {"sha256", "size_bytes", "content_type"}
    listed = suite.stretto("artifacts", run["run_id"], "--json")
    found = {each["name"]: each for each in json.loads(listed.stdout)["artifacts"]}
    assert set(found) == {"note.txt", "picture.bin"}
    assert found["picture.bin"]["sha256"] == hashlib.sha256(PICTURE).hexdigest()
    assert {(each["task"], each["epoch"]) for each in found.values()} == {("work", 1)}
    assert "picture.bin" in suite.stretto("artifacts", run["run_id"], "--task", "work").stdout
    page = json.loads(suite.stretto("artifacts", run["run_id"], "--limit", "1", "--json").stdout)
    assert [each["name"] for each in page["artifacts"]] == ["note.txt"]
    rest = ("--page-token", page["next_page_token"], "--json")
    page = json.loads(suite.stretto("artifacts", run["run_id"], *rest).stdout)
    assert [each["name"] for each in page["artifacts"]] == ["picture.bin"]
    assert not page["next_page_token"]
    named = suite.stretto("artifacts", run["run_id"], "--name", "note.txt", "--all", "--json")
    assert len(json.loads(named.stdout)["artifacts"]) == 1
    used = json.loads(suite.stretto("usage", run["run_id"], "--json").stdout)
    assert used["total"].items() >= {"attempts": 1, "running": 0, "succeeded": 1}.items()
    assert used["total"]["held_s"] == used["total"]["succeeded_held_s"] > 0
    assert used["by_queue"] == {"default": used["total"]}
    assert list(used["by_worker"].values()) == [used["total"]]
    shown = suite.stretto("usage", run["run_id"])
    assert shown.returncode == 0 and "FOR RESULTS" in shown.stdout and "100%" in shown.stdout
    of_all = json.loads(suite.stretto("usage", "--json").stdout)
    assert of_all["total"]["attempts"] >= 1
    assert suite.stretto("usage", "p0-" + "0" * 32).returncode == 2
    assert suite.stretto("artifacts", run["run_id"], "--task", "none").returncode == 2
    note = suite.stretto("cat", run["run_id"], "work", "note.txt")
    assert (note.returncode, note.stdout) == (0, "text")
    for what in ([run["run_id"], "work", "picture.bin"], [found["picture.bin"]["sha256"]]):
        written = subprocess.run(
            [BIN / "stretto", "cat", *what], env=suite.environ, capture_output=True, check=True
        )
        assert written.stdout == PICTURE
    target = tmp_path / "copy"
    assert suite.stretto("cat", found["picture.bin"]["sha256"], "-o", target).returncode == 0
    assert target.read_bytes() == PICTURE
    missing = suite.stretto("cat", run["run_id"], "work", "none")
    assert missing.returncode == 2 and "picture.bin" in missing.stderr
    unknown = suite.stretto("cat", "0" * 64, "-o", tmp_path / "nothing")
    assert unknown.returncode == 2
    assert not (tmp_path / "nothing").exists()
    assert suite.stretto("cat", "nonsense").returncode == 2


async def test_a_kernel_killed_in_an_upload_leaves_nothing_to_see(suite: Suite) -> None:
    async with suite.client() as client:
        address = client.address
    whole = b"u" * 3_000_000
    blob = BlobRef(digest=hashlib.sha256(whole).digest(), size_bytes=len(whole))
    before = suite.restarts("kernel")

    async def half() -> AsyncIterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(blob=blob, data=whole[:1_500_000])
        yield pb.PutBlobRequest(data=whole[1_500_000:2_000_000])
        suite.signal("kernel", signal.SIGKILL)
        await asyncio.Event().wait()

    async with open_channel(address) as channel:
        with pytest.raises(Unavailable), refusals():
            await BlobServiceStub(channel).PutBlob(half())
        await until(lambda: suite.restarts("kernel") > before)
        blobs = BlobClient(channel, policy=RetryPolicy(budget_ms=60_000))
        assert len(await blobs.missing("default", [blob])) == 1
        assert await blobs.put("default", whole) == blob
        assert await blobs.get("default", blob.digest) == whole
