"""The sweep over a real kernel's facts: what a run names stays, what nobody names goes."""

from __future__ import annotations

import asyncio
import hashlib

import psycopg
from stretto.blob.v1 import blob_service_pb2 as pb
from stretto.blob.v1.blob_service_pb2_grpc import BlobServiceStub
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, Payload
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock.system import SystemClock
from stretto_kernel.adapters.blob_reference_table import BlobReferenceTables
from stretto_kernel.adapters.blob_table import BlobTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.app.blob_sweep import sweep
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS

from tests.integration.kernel.serving import PARTITION, Served, StreamWorker, task
from tests.waiting import until

NAMED = ("input", "literal", "result", "artifact")


async def put(kernel: Served, text: str) -> BlobRef:
    data = text.encode()
    blob = BlobRef(digest=hashlib.sha256(data).digest(), size_bytes=len(data))
    await BlobServiceStub(kernel.channel).PutBlob(iter([pb.PutBlobRequest(blob=blob, data=data)]))
    return blob


def there(dsn: str) -> set[bytes]:
    with psycopg.connect(dsn) as connection:
        return {digest for (digest,) in connection.execute("SELECT digest FROM stretto.blobs")}


async def test_what_facts_name_stays(kernel: Served, fresh_database: str) -> None:
    blobs = {name: await put(kernel, name) for name in (*NAMED, "nobody's")}
    literal = plan_pb2.Binding(literal=Payload(blob=blobs["literal"]))
    run = await kernel.start(task("a", inputs={"i": literal}), input=Payload(blob=blobs["input"]))
    worker = StreamWorker(kernel.channel)
    await until(lambda: len(worker.assignments) == 1)
    succeeded = work_pb2.OutcomeSucceeded(
        result=Payload(blob=blobs["result"]),
        artifacts=[Artifact(name="file", blob=blobs["artifact"])],
    )
    token = worker.assignments[0].token
    worker.say(outcomes=[work_pb2.Outcome(token=token, succeeded=succeeded)])
    await until(lambda: len(worker.receipts) == 1)
    assert worker.receipts[0].status.code == 0
    clock = SystemClock()
    table, tables = BlobTable(fresh_database, clock), BlobReferenceTables(fresh_database)
    with psycopg.connect(fresh_database) as connection:
        connection.execute("UPDATE stretto.blobs SET touched_ns = 1")
    try:
        swept = await sweep(table, tables, now_ns=clock.now_ns(), patience_s=0.0)
        assert swept == 0, "there is no view yet"
        views = ViewTables(PARTITION, kernel.log.tracking)
        projector = Projector(kernel.log, views, VIEWS, RUN_CODEC)
        projecting = asyncio.create_task(projector.run())
        assert await sweep(table, tables, now_ns=clock.now_ns()) == 1
        assert there(fresh_database) == {blobs[name].digest for name in NAMED}
        # What came after the view's last word is not judged by it.
        projecting.cancel()
        await asyncio.wait([projecting])
        await put(kernel, "late")
        await kernel.start(task("b"))
        with psycopg.connect(fresh_database) as connection:
            connection.execute("UPDATE stretto.blobs SET touched_ns = 1")
        assert await sweep(table, tables, now_ns=clock.now_ns(), patience_s=0.0) == 0
    finally:
        await table.close()
        await tables.close()
        await worker.cut()
    assert (await kernel.get(run.run.name)).run.output.WhichOneof("value") is None
