"""From what lease holders send to what may be stored: checked, fenced, one answer per lease.

A lease that has ended still takes chunks until its work item is leased again: what a body wrote
last may come after its end was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto.common.v1 import lease_pb2
from stretto.work.v1 import work_service_pb2 as pb
from stretto_core.errors import FieldViolation, InvalidArgument, NotFound, Refusal
from stretto_core.ids import TaskName

from stretto_kernel.app.asking import Decided, ask
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.dispatch.assignments import parse_work_item
from stretto_kernel.dispatch.holder_fence import check_genuine
from stretto_kernel.domain.run.refusals import LeaseLost
from stretto_kernel.domain.run.task import Leased
from stretto_kernel.owned_partition import OwnedPartition
from stretto_kernel.tasklog.entries import Chunk, LeaseId, Written

LEASES_MAX = 1_000
CHUNKS_MAX = 1_000
CHUNK_BYTES_MAX = 64 * 1024
CALL_BYTES_MAX = 2 * 1024 * 1024


def check_limits(leases: Sequence[pb.LeaseLogs]) -> None:
    """Refuse a call beyond its limits. Raises InvalidArgument with every violation."""
    chunk_count = sum(len(logs.chunks) for logs in leases)
    bytes_count = sum(len(chunk.content) for logs in leases for chunk in logs.chunks)
    limits = (
        (len(leases) <= LEASES_MAX, f"at most {LEASES_MAX} a call"),
        (chunk_count <= CHUNKS_MAX, f"at most {CHUNKS_MAX} chunks a call"),
        (bytes_count <= CALL_BYTES_MAX, f"at most {CALL_BYTES_MAX} bytes of content a call"),
    )
    violations = [FieldViolation("leases", text) for holds, text in limits if not holds]
    if violations:
        raise InvalidArgument("the request is not valid", violations=violations)


async def admit(partition: OwnedPartition, logs: pb.LeaseLogs) -> Written:
    """Return what may be stored of one lease's chunks.

    Raises InvalidArgument, WrongSecret, LeaseLost: nothing of the lease is ever stored.
    """
    named = parse_work_item(logs.token.work_item)
    if named is None:
        raise InvalidArgument("the token's work item is no task", field="token.work_item")
    _, run_id, task = named
    chunks = _chunks(logs)
    try:
        run = await partition.host.load(run_id)
        try:
            lease = _lease(partition, run, task, logs.token)
        except Refusal:
            # It may rest on facts that are not stored yet: it leaves like any other refusal.
            lease = await _lease_for_sure(partition, task, logs.token, run)
    except NotFound:
        raise LeaseLost("there is no such run", current_epoch="0") from None
    return Written(LeaseId(run_id, task, logs.token.epoch), lease[0], lease[1], chunks, run.key)


async def _lease_for_sure(
    partition: OwnedPartition, task: TaskName, token: lease_pb2.LeaseToken, run: HostedRun
) -> tuple[int, int]:
    async def find(_: int) -> HostedRun:
        return await partition.host.load(run.run_id)

    def question(found: HostedRun) -> Decided[tuple[int, int]]:
        return Decided(_lease(partition, found, task, token), own_facts=False)

    return (await ask(partition.host, find, question)).answer


def _lease(
    partition: OwnedPartition, run: HostedRun, task: TaskName, token: lease_pb2.LeaseToken
) -> tuple[int, int]:
    """The activation and the attempt of the newest lease. Raises WrongSecret, LeaseLost."""
    check_genuine(partition.keys, run, task, token)
    if run.state.shredding is not None:
        raise LeaseLost("the run was shredded", current_epoch=str(run.state.tasks[task].epoch))
    record = run.state.tasks[task]
    lease = record.phase if isinstance(record.phase, Leased) else record.last_lease
    if record.epoch != token.epoch or lease is None:
        raise LeaseLost("the lease was passed on", current_epoch=str(record.epoch))
    return record.activation, lease.attempt


def _chunks(logs: pb.LeaseLogs) -> list[Chunk]:
    chunks, newest = [], 0
    for index, chunk in enumerate(logs.chunks):
        path = f"chunks[{index}]"
        if chunk.sequence <= newest:
            raise _wrong(f"{path}.sequence", "must be above 0 and rise")
        if not 1 <= chunk.stream <= 3:
            raise _wrong(f"{path}.stream", "must be one that is known")
        if len(chunk.content) > CHUNK_BYTES_MAX:
            raise _wrong(f"{path}.content", f"at most {CHUNK_BYTES_MAX} bytes")
        if chunk.dropped_bytes < 0:
            raise _wrong(f"{path}.dropped_bytes", "must not be negative")
        newest = chunk.sequence
        time_ns = chunk.time.seconds * 1_000_000_000 + chunk.time.nanos
        if not 0 <= time_ns < 1 << 63:
            raise _wrong(f"{path}.time", "must be an instant from 1970 to 2262")
        chunks.append(
            Chunk(chunk.sequence, chunk.stream, time_ns, chunk.content, chunk.dropped_bytes)
        )
    return chunks


def _wrong(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(
        "the chunks are not valid", violations=[FieldViolation(field, description)]
    )
