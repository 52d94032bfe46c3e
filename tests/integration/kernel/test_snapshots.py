"""Snapshots on PostgreSQL: made by the projector, used by the next kernel, and never needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from stretto.projection.v1 import projection_service_pb2 as views_pb
from stretto.projection.v1.projection_service_pb2_grpc import ProjectionServiceStub
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS

from tests.integration.kernel.serving import (
    PARTITION,
    Served,
    StreamWorker,
    served,
    snapshots_of,
    task,
)
from tests.waiting import until

DAMAGE = (
    "UPDATE stretto_p0.snapshots_v1 SET bytes = set_byte(bytes, 0, get_byte(bytes, 0) # 1)",
    "UPDATE stretto_p0.snapshots_v1 SET bytes = substr(bytes, 1, length(bytes) / 2)",
    "UPDATE stretto_p0.snapshots_v1 SET rules = 'of another version'",
    "UPDATE stretto_p0.snapshots_v1 SET chain_hash = digest, version = version + 1",
    "DELETE FROM stretto_p0.snapshots_v1 WHERE part = 0",
    "DROP TABLE stretto_p0.snapshots_v1",
)


@asynccontextmanager
async def projecting(kernel: Served) -> AsyncIterator[None]:
    tables, snapshots = ViewTables(PARTITION, kernel.log.tracking), snapshots_of(kernel.log)
    projector = Projector(kernel.log, tables, VIEWS, RUN_CODEC, snapshots=snapshots)
    running = asyncio.create_task(projector.run())
    yield
    running.cancel()


async def shown(kernel: Served, name: str) -> tuple[run_pb2.Run, list[run_pb2.Task]]:
    """The run and its tasks, but for what is not recorded."""
    listed = await kernel.runs.ListTasks(pb.ListTasksRequest(parent=name))
    for each in listed.tasks:
        each.ClearField("wait_reason")
    return (await kernel.get(name)).run, list(listed.tasks)


async def snapshot_count(kernel: Served) -> int:
    stub = ProjectionServiceStub(kernel.channel)
    return (await stub.ListViews(views_pb.ListViewsRequest())).snapshot_count


async def made(dsn: str) -> tuple[str, run_pb2.Run, list[run_pb2.Task]]:
    """A run in the middle of its work, with a snapshot; its kernel is gone."""
    async with served(dsn) as kernel, projecting(kernel):
        assert await snapshot_count(kernel) == 0, "nothing is made before it is needed"
        worker = StreamWorker(kernel.channel, credit_count=4)
        run = (await kernel.start(*(task(f"t{number}") for number in range(4)))).run
        await until(lambda: len(worker.assignments) == 4)
        for assignment in worker.assignments[:3]:
            worker.succeed(assignment.token)
        await until(lambda: len(worker.receipts) == 3)
        while not await snapshot_count(kernel):
            pass
        seen = await shown(kernel, run.name)
        await worker.cut()
        return run.name, *seen


async def test_the_next_kernel_begins_with_a_snapshot(fresh_database: str) -> None:
    name, run, tasks = await made(fresh_database)
    async with served(fresh_database) as kernel:
        snapshots = kernel.kernel.ports.snapshots
        assert snapshots is not None
        found = await shown(kernel, name)
        assert found == (run, tasks)
        assert snapshots.used_count == 1
        worker = StreamWorker(kernel.channel, session_id="")
        await until(lambda: bool(worker.assignments))
        worker.succeed(worker.assignments[0].token)
        await until(lambda: len(worker.receipts) == 1)
        assert (await kernel.get(name)).run.state == run_pb2.RUN_STATE_SUCCEEDED
        await worker.cut()


@pytest.mark.parametrize("damage", DAMAGE)
async def test_one_that_is_damaged_old_or_gone_is_passed_over(
    fresh_database: str, damage: str
) -> None:
    name, run, tasks = await made(fresh_database)
    async with await psycopg.AsyncConnection.connect(fresh_database) as connection:
        await connection.execute(damage.encode())
        await connection.commit()
    async with served(fresh_database) as kernel, projecting(kernel):
        snapshots = kernel.kernel.ports.snapshots
        assert snapshots is not None
        assert await shown(kernel, name) == (run, tasks)
        assert snapshots.used_count == 0, damage
