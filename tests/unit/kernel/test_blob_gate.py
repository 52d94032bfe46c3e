"""Every command that names blobs is held against them: no fact names what is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, Payload
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.rpc.status import from_status
from stretto_kernel.app.blob_store import BlobMissing
from stretto_kernel.domain.run import commands
from stretto_kernel.kernel import Kernel

from tests.unit.kernel.harness import (
    FrameWorker,
    graph,
    new_store,
    start,
    start_batch,
    start_kernel,
    task,
    types_of,
)
from tests.unit.kernel.test_batches import a_start
from tests.unit.kernel.test_kernel import leased, steer, steering
from tests.waiting import until

BLOB = BlobRef(digest=b"d" * 32, size_bytes=9)
NEVER_PUT = Payload(blob=BLOB, content_type="text/plain")
NAMING = task("naming", inputs={"i": plan_pb2.Binding(literal=NEVER_PUT)})


@pytest.fixture
def store() -> MemoryStore:
    return new_store()


@pytest.fixture
async def kernel(store: MemoryStore) -> AsyncIterator[Kernel]:
    kernel = await start_kernel(store)
    yield kernel
    await kernel.stop()


async def test_starts_and_slices(kernel: Kernel, store: MemoryStore) -> None:
    with pytest.raises(BlobMissing):
        await start(kernel, graph(NAMING))
    (refused,) = await start_batch(kernel, [a_start(kernel, plan=graph(NAMING))])
    assert isinstance(refused, BlobMissing)
    growing = plan_pb2.TaskGraph(tasks=[task("a")], growing=True)
    run_id = (await start(kernel, growing)).answer.run_id
    with pytest.raises(BlobMissing):
        await steer(kernel, run_id, steering(kernel, commands.AddTasks, tasks=(NAMING,)))
    assert types_of(store) == ["RunStarted"]


@pytest.mark.parametrize(
    "succeeded",
    [
        work_pb2.OutcomeSucceeded(result=NEVER_PUT),
        work_pb2.OutcomeSucceeded(spawned=[NAMING]),
        work_pb2.OutcomeSucceeded(artifacts=[Artifact(name="file", blob=BLOB)]),
    ],
)
async def test_outcomes(
    kernel: Kernel, store: MemoryStore, succeeded: work_pb2.OutcomeSucceeded
) -> None:
    worker = FrameWorker(kernel)
    await start(kernel, graph(task("a", may_spawn=True)))
    token = (await leased(worker)).token
    worker.say(outcomes=[work_pb2.Outcome(token=token, succeeded=succeeded)])
    await until(lambda: len(worker.receipts) == 1)
    assert from_status(worker.receipts[0].status).reason_word == "BLOB_MISSING"
    worker.succeed(token)
    await until(lambda: len(worker.receipts) == 2)
    assert not worker.receipts[1].status.code, "the lease goes on"


async def test_spawns(kernel: Kernel, store: MemoryStore) -> None:
    worker = FrameWorker(kernel)
    await start(kernel, graph(task("a", may_spawn=True)))
    token = (await leased(worker)).token
    worker.say(spawns=[work_pb2.Spawn(token=token, request_id="r1", tasks=[NAMING])])
    await until(lambda: len(worker.receipts) == 1)
    assert from_status(worker.receipts[0].status).reason_word == "BLOB_MISSING"
    assert "TasksSpawned" not in types_of(store)


async def test_who_holds_no_lease_is_told_nothing_of_blobs(kernel: Kernel) -> None:
    worker = FrameWorker(kernel)
    await start(kernel)
    token = (await leased(worker)).token
    token.secret = b"x" * len(token.secret)
    succeeded = work_pb2.OutcomeSucceeded(result=NEVER_PUT)
    worker.say(outcomes=[work_pb2.Outcome(token=token, succeeded=succeeded)])
    await until(lambda: len(worker.receipts) == 1)
    assert from_status(worker.receipts[0].status).reason_word == "WRONG_SECRET"
