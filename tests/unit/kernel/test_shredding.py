"""Shredding against callers who leave, stores that fail, and calls that come again afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from stretto.common.v1.payload_pb2 import BlobRef, Payload
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2
from stretto.tasklog.v1 import task_log_pb2
from stretto_core.errors import InvalidArgument, Refusal
from stretto_core.eventlog.port import PartitionMoved, StoreDown
from stretto_core.ids import RequestId, RunId, StreamId, TaskName
from stretto_kernel.adapters.memory_blobs import MemoryBlobs
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.app.blob_calls import BlobShredded
from stretto_kernel.app.blob_store import BlobMissing
from stretto_kernel.app.confidential import key_ids_in
from stretto_kernel.app.fact_bytes import FactTooLarge
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.domain.namespace import UpdateNamespace
from stretto_kernel.domain.run import commands
from stretto_kernel.domain.run.blob_names import BlobName
from stretto_kernel.kernel import Kernel
from stretto_kernel.tasklog.entries import GONE, Chunk, LeaseId, Selection, Written
from stretto_kernel.tasklog.memory import MemoryTaskLogs
from stretto_kernel.tasklog.task_logs import Reading, TaskLogs

from tests.unit.kernel.harness import (
    IDS,
    NAMESPACE,
    USER,
    get,
    graph,
    new_store,
    start,
    start_kernel,
    task,
    types_of,
)
from tests.unit.kernel.test_kernel import steer, steering
from tests.waiting import until


class SlowKeys(MemoryRunKeys):
    """Destroys nothing before it may, and fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_destroy = asyncio.Event()
        self.failures_left = 0

    async def destroy(self, key_id: int) -> None:
        await self.may_destroy.wait()
        if self.failures_left:
            self.failures_left -= 1
            raise StoreDown("planned")
        await super().destroy(key_id)


class Suite:
    """Kernels one after another on the same record, keys and blobs."""

    def __init__(self) -> None:
        self.store = new_store()
        self.keys = SlowKeys()
        self.blobs = MemoryBlobs()
        self.kernel: Kernel | None = None

    async def begin(self) -> Kernel:
        if self.kernel is not None:
            await self.kernel.stop()
        self.kernel = await start_kernel(self.store, keys=self.keys, blobs=self.blobs)
        return self.kernel

    async def put(self, data: bytes, *, encrypts: bool) -> plan_pb2.TaskSpec:
        """Return a task that names a blob with this content."""
        assert self.kernel is not None

        async def parts() -> AsyncIterator[bytes]:
            yield data

        name = BlobName(hashlib.sha256(data).digest(), len(data))
        stored = await self.kernel.ports.blobs.put(NAMESPACE, name, parts(), encrypts=encrypts)
        blob = BlobRef(digest=stored.digest, size_bytes=stored.size_bytes)
        return task("naming", inputs={"i": plan_pb2.Binding(literal=Payload(blob=blob))})


@pytest.fixture
async def suite() -> AsyncIterator[Suite]:
    suite = Suite()
    await suite.begin()
    yield suite
    assert suite.kernel is not None
    suite.keys.may_destroy.set()
    await suite.kernel.stop()


async def begin_encrypting(suite: Suite) -> Kernel:
    """Start a kernel that encrypts, over keys that can be destroyed."""
    kernel = await suite.begin()
    suite.keys.may_destroy.set()
    await set_encryption(kernel)
    return kernel


async def next_owner(suite: Suite) -> Kernel:
    """Start another kernel beside the one there is, which does not hear of it."""
    return await start_kernel(suite.store, exclusive=False, keys=suite.keys, blobs=suite.blobs)


async def set_encryption(kernel: Kernel) -> None:
    command = UpdateNamespace(
        now_ns=kernel.ports.clock.now_ns(),
        request_id=RequestId(IDS.uuid7()),
        request_digest=b"d" * 32,
        namespace=NAMESPACE,
        encrypts=True,
    )
    caller = Caller(USER, command.request_id, command.request_digest)
    await kernel.partition.namespaces.update(command, caller, lambda _: None)


async def ended(kernel: Kernel, plan: plan_pb2.TaskGraph, request_id: str = "") -> RunId:
    run_id = RunId((await start(kernel, plan, request_id=request_id)).answer.run_id)
    await steer(kernel, run_id, steering(kernel, commands.Kill, reason="enough"))
    return run_id


async def shred(kernel: Kernel, run_id: RunId) -> None:
    command = steering(kernel, commands.Shred, reason="the customer left")
    caller = Caller(USER, IDS.uuid7(), b"d" * 32)
    await kernel.partition.shredder.shred_run(NAMESPACE, run_id, command, caller)


async def test_a_fact_is_as_large_as_it_is_stored(suite: Suite) -> None:
    """Many small values grow most, and a reader must get them in one message all the same."""
    kernel = await suite.begin()
    one = plan_pb2.Binding(literal=Payload(json="1"))
    plan = graph(*(task(f"t{n}", inputs={f"i{m}": one for m in range(99)}) for n in range(250)))
    await start(kernel, plan)
    await set_encryption(kernel)
    event_count = len(suite.store.events)
    with pytest.raises(FactTooLarge):
        await start(kernel, plan)
    assert len(suite.store.events) == event_count
    await start(kernel, graph(task("a")))


async def test_a_caller_who_leaves_in_the_middle_ends_nothing(suite: Suite) -> None:
    kernel = await suite.begin()
    await set_encryption(kernel)
    run_id = await ended(kernel, graph(task("a")))
    calling = asyncio.create_task(shred(kernel, run_id))
    await until(lambda: "RunShredded" in types_of(suite.store))
    await until(lambda: kernel.partition.host.find(run_id) is None)
    calling.cancel()
    with suppress(asyncio.CancelledError):
        await calling
    suite.keys.may_destroy.set()
    await until(lambda: suite.keys.secret_of(1) is None)


async def test_a_store_that_fails_is_asked_again(suite: Suite) -> None:
    kernel = await suite.begin()
    await set_encryption(kernel)
    run_id = await ended(kernel, graph(task("a")))
    suite.keys.failures_left = 2
    suite.keys.may_destroy.set()
    await shred(kernel, run_id)
    assert suite.keys.secret_of(1) is None
    assert not await suite.keys.marked()


async def test_a_start_that_comes_again_gives_a_shredded_run_no_key(suite: Suite) -> None:
    kernel = await begin_encrypting(suite)
    plan = graph(await suite.put(b"a secret", encrypts=True))
    request_id = IDS.uuid7()
    run_id = await ended(kernel, plan, request_id)
    other_id = await ended(kernel, plan)
    await shred(kernel, run_id)
    kernel = await suite.begin()
    with suppress(Refusal):  # A shredded run may or may not know its start again.
        assert (await start(kernel, plan, request_id=request_id)).answer.run_id == run_id
    assert list(await suite.keys.find(range(9))) == [2], "the other run's"
    await shred(kernel, other_id)
    assert not await suite.keys.find(range(9))
    digest = plan.tasks[0].inputs["i"].literal.blob.digest
    with pytest.raises(BlobShredded):
        await kernel.ports.blobs.get(NAMESPACE, digest, offset_bytes=0, length_bytes=0)


async def test_what_a_shredded_run_is_told_to_take_gives_it_no_key_of_a_blob(suite: Suite) -> None:
    kernel = await begin_encrypting(suite)
    naming = await suite.put(b"a secret", encrypts=True)
    other_id = await ended(kernel, graph(naming))
    run_id = await ended(kernel, graph(task("a"), growing=True))
    await shred(kernel, run_id)
    with pytest.raises(Refusal):
        await steer(kernel, run_id, steering(kernel, commands.AddTasks, tasks=(naming,)))
    await shred(kernel, other_id)
    digest = naming.inputs["i"].literal.blob.digest
    with pytest.raises(BlobShredded):
        await kernel.ports.blobs.get(NAMESPACE, digest, offset_bytes=0, length_bytes=0)


async def test_a_start_that_is_refused_keeps_no_key_of_a_blob(suite: Suite) -> None:
    """There is no run that could be shredded to let go of it."""
    kernel = await begin_encrypting(suite)
    naming = await suite.put(b"a secret", encrypts=True)
    with pytest.raises(InvalidArgument):
        await start(kernel, graph(naming, task("b", executor="?")))
    absent = BlobRef(digest=b"\1" * 32, size_bytes=9)
    inputs = {"i": plan_pb2.Binding(literal=Payload(blob=absent))}
    with pytest.raises(BlobMissing):
        await start(kernel, graph(naming, task("b", inputs=inputs)))
    await shred(kernel, await ended(kernel, graph(naming)))
    digest = naming.inputs["i"].literal.blob.digest
    with pytest.raises(BlobShredded):
        await kernel.ports.blobs.get(NAMESPACE, digest, offset_bytes=0, length_bytes=0)


async def test_a_kernel_that_lost_its_partition_reads_nothing_that_the_next_owner_shreds(
    suite: Suite,
) -> None:
    """It serves views meanwhile, and may own the partition again."""
    kernel = await begin_encrypting(suite)
    run_id = await ended(kernel, graph(task("a")))
    following = await next_owner(suite)
    with pytest.raises(Refusal):
        await get(kernel, run_id)
    await until(lambda: not kernel.is_owner)
    assert await kernel.ports.keys.find(1) is not None
    await shred(following, run_id)
    assert await kernel.ports.keys.find(1) is None
    await following.stop()
    await until(lambda: kernel.is_owner)
    assert await kernel.ports.keys.find(1) is None


async def test_a_kernel_that_does_not_know_yet_that_it_lost_its_partition_reads_no_shredded_past(
    suite: Suite,
) -> None:
    """It answers from views and the log; nothing was committed, probed or asked for since."""
    kernel = await begin_encrypting(suite)
    run_id = await ended(kernel, graph(task("a", arguments_json='{"secret": 1}')))
    (stored, *_) = (await kernel.ports.log.read_stream(StreamId(run_id))).events

    async def started() -> ev.RunStarted:
        event = ev.RunStarted.FromString(RecordedEvent.FromString(stored.stored_bytes).body)
        await kernel.ports.keys.reveal([event])
        return event

    clear = await started()
    following = await next_owner(suite)
    await shred(following, run_id)
    assert kernel.is_owner, "as far as it knows"
    gone = await started()
    assert gone != clear
    assert not list(key_ids_in([gone])), "marked as shredded, not left as it lies"
    await following.stop()


async def test_a_kernel_that_does_not_know_yet_that_it_lost_its_partition_reads_no_shredded_lines(
    suite: Suite,
) -> None:
    kernel = await begin_encrypting(suite)
    run_id = await ended(kernel, graph(task("a")))
    logs = TaskLogs(MemoryTaskLogs(), kernel.ports.clock)
    run = kernel.partition.host.find(run_id)
    assert run is not None and run.key is not None
    chunk = Chunk(1, task_log_pb2.LOG_STREAM_STDOUT, 1, b"a secret\n")
    await logs.append([Written(LeaseId(run_id, TaskName("a"), 1), 1, 1, [chunk], run.key)])
    partition = kernel.partition

    async def read() -> bytes:
        lines = logs.read(partition, Reading(namespace=NAMESPACE, selection=Selection(run_id)))
        return (await anext(lines)).entries[0].content

    assert await read() == b"a secret\n"
    following = await next_owner(suite)
    await shred(following, run_id)
    assert kernel.is_owner, "as far as it knows"
    with pytest.raises(PartitionMoved):
        await read()
    await following.stop()
    await logs.close()


async def test_a_clear_start_that_comes_again_is_answered_though_keys_are_asked_for_now(
    suite: Suite,
) -> None:
    kernel = await suite.begin()
    plan = graph(await suite.put(b"in clear", encrypts=False))
    request_id = IDS.uuid7()
    run_id = await ended(kernel, plan, request_id)
    await set_encryption(kernel)
    kernel = await suite.begin()
    assert (await start(kernel, plan, request_id=request_id)).answer.run_id == run_id
    assert not await suite.keys.find(range(9)), "a clear run has no key"


async def test_lines_that_somebody_follows_are_told_to_nobody_after_the_shredding(
    suite: Suite,
) -> None:
    kernel = await begin_encrypting(suite)
    run_id = RunId((await start(kernel, graph(task("a")))).answer.run_id)
    logs = TaskLogs(MemoryTaskLogs(), kernel.ports.clock)
    run = kernel.partition.host.find(run_id)
    assert run is not None and run.key is not None

    async def write(sequence: int) -> None:
        chunk = Chunk(sequence, task_log_pb2.LOG_STREAM_STDOUT, 1, b"a secret\n")
        await logs.append([Written(LeaseId(run_id, TaskName("a"), 1), 1, 1, [chunk], run.key)])

    await write(1)
    selection = Selection(run_id)
    followed = logs.read(
        kernel.partition, Reading(namespace=NAMESPACE, selection=selection, follow=True)
    )
    assert (await anext(followed)).entries[0].content == b"a secret\n"
    await write(2)
    assert (await anext(followed)).entries[0].content == b"a secret\n"
    await steer(kernel, run_id, steering(kernel, commands.Kill, reason="enough"))
    await shred(kernel, run_id)
    for position in (0, 1):
        read = logs.read(
            kernel.partition,
            Reading(namespace=NAMESPACE, selection=selection, after_position=position),
        )
        part = await anext(read)
        assert {entry.content for entry in part.entries} == {GONE}
        await read.aclose()
    await followed.aclose()
    await logs.close()
