"""A run whose record was changed behind the kernel's back: refused by name, and nobody else is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
import psycopg
import pytest
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import FailedPrecondition
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.rpc.status import from_rpc_error

from tests.integration.kernel.serving import IDS, PARTITION, StreamWorker, served
from tests.waiting import until

DAMAGE: dict[str, Callable[[RecordedEvent], object]] = {
    "another principal": lambda event: setattr(event.principal, "name", "nobody"),
    "another link": lambda event: setattr(event, "previous_hash", bytes(range(32))),
    "no link": lambda event: event.ClearField("previous_hash"),
    "another stream": lambda event: setattr(event, "stream", "p0-other"),
}


async def aiter_of(request: pb.AwaitRunsRequest) -> AsyncIterator[pb.AwaitRunsRequest]:
    yield request


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_run_is_refused_and_hurts_nobody_else(
    fresh_database: str, damage: str
) -> None:
    async with served(fresh_database) as kernel:
        worker = StreamWorker(kernel.channel, credit_count=2)
        damaged = (await kernel.start()).run.name
        sound = (await kernel.start()).run.name
        await until(lambda: len(worker.assignments) == 2)
        await worker.cut()
        first = (await kernel.log.read_all(limit=1)).events[0]
    changed = RecordedEvent.FromString(first.stored_bytes)
    DAMAGE[damage](changed)
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        events = PartitionSchema(PARTITION).statement("{events}").as_string()
        connection.execute(
            f"UPDATE {events} SET state = %s WHERE notification_id = %s".encode(),
            [changed.SerializeToString(deterministic=True), first.position],
        )

    async with served(fresh_database, queue_limits={"default": 2}) as kernel:
        for call in (
            kernel.get(damaged),
            kernel.runs.CancelRun(pb.CancelRunRequest(name=damaged, request_id=IDS.uuid7())),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            refused = from_rpc_error(caught.value)
            assert isinstance(refused, FailedPrecondition)
            assert refused.reason_word == "UNREADABLE_EVENT"
            assert refused.metadata["stream"] == damaged.rpartition("/")[2]
            assert int(refused.metadata["version"]) <= 2
        assert kernel.kernel.partition.folds.damaged_count == 1
        assert (await kernel.get(sound)).run.state == run_pb2.RUN_STATE_RUNNING
        worker = StreamWorker(kernel.channel, worker_id="w2")
        other = (await kernel.start()).run.name
        # The queue's limit does not wait for what nobody can know of the damaged one.
        await until(lambda: any(other in a.token.work_item for a in worker.assignments))
        await kernel.runs.KillRun(pb.KillRunRequest(name=other, request_id=IDS.uuid7()))
        names = pb.AwaitRunsRequest(names=[damaged, other])
        ends: dict[str, str] = {}
        async for told in kernel.runs.AwaitRuns(aiter_of(names)):
            ends |= {each.name: each.WhichOneof("outcome") or "" for each in told.runs}
        assert ends == {damaged: "refused", other: "ended"}
        await worker.cut()
