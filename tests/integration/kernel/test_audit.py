"""Exports and proofs over real gRPC and PostgreSQL: streamed, cut, refused; nobody is disturbed."""

from __future__ import annotations

import io
import random
from collections.abc import AsyncIterable

import grpc
import psycopg
import pytest
from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto.run.v1 import plan_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.errors import Unavailable
from stretto_core.eventlog.seals import SEALED_TYPE, seal_hash
from stretto_kernel.app.sealer import SealLimits
from stretto_kernel.relay.messages import subject_of
from stretto_sdk import Client
from stretto_sdk.client_audit import ExportPart
from stretto_verify.verify import NotWhole, Report, verify, verify_proof

from tests.cut_connections import CutConnections
from tests.integration.kernel.serving import Served, reason_of, served
from tests.waiting import until

AT_ONCE = SealLimits(events_max=10_000, interval_ns=0)
NEVER = SealLimits(events_max=10_000, interval_ns=3_600 * NS_PER_S)
LARGE_RUNS = 12


async def start_large_runs(kernel: Served) -> None:
    """Record some 6 MB."""
    arguments = '{"text": "' + "x" * 50_000 + '"}'
    tasks = [
        plan_pb2.TaskSpec(name=f"task-{number}", executor="test.body", arguments_json=arguments)
        for number in range(10)
    ]
    for _ in range(LARGE_RUNS):
        await kernel.start(*tasks)


async def key_of(kernel: Served) -> bytes:
    newest = await kernel.events.GetNewestSeal(pb.GetNewestSealRequest())
    return newest.public_key


async def checked(kernel: Served, data: bytes) -> Report:
    return verify(io.BytesIO(data), key=await key_of(kernel))


async def read_all(answers: AsyncIterable[pb.ExportResponse]) -> bytes:
    return b"".join([each.content async for each in answers])


async def test_a_file_comes_in_messages_of_bounded_size_and_a_part_of_it_is_none(
    fresh_database: str,
) -> None:
    async with served(fresh_database, seals=NEVER) as kernel:
        await start_large_runs(kernel)
        answers = [each async for each in kernel.events.Export(pb.ExportRequest())]
        assert answers[0].HasField("summary") and not answers[0].content
        parts = [each.content for each in answers[1:]]
        assert all(0 < len(part) <= 1 << 20 for part in parts)
        assert sum(map(len, parts)) > 5 << 20
        report = await checked(kernel, b"".join(parts))
        assert report.event_count == answers[-1].event_count == LARGE_RUNS
        assert report.seal_hash == answers[0].summary.end_seal_hash.hex()
        for count in (1, len(parts) // 2, len(parts) - 1):
            with pytest.raises(NotWhole):
                await checked(kernel, b"".join(parts[:count]))


async def test_a_file_whose_connection_breaks_is_not_put_together_from_two(
    fresh_database: str,
) -> None:
    async with served(fresh_database, seals=NEVER) as kernel:
        await start_large_runs(kernel)
        way = CutConnections(kernel.address, random.Random(5), bytes_max=4 << 20)
        parts: list[ExportPart] = []
        async with await way.serve(), Client(way.address) as client:
            with pytest.raises(Unavailable, match="broke off"):
                async for part in client.export():
                    parts.append(part)
            assert way.cut_count and 0 < parts[-1].position < parts[0].end_position
        async with Client(kernel.address) as client:
            again = b"".join([part.content async for part in client.export()])
        assert (await checked(kernel, again)).seal_hash == parts[0].seal_hash


async def test_writes_go_on_while_a_file_is_read_slowly(fresh_database: str) -> None:
    async with served(fresh_database, seals=AT_ONCE) as kernel:
        await start_large_runs(kernel)
        answers = kernel.events.Export(pb.ExportRequest())
        content, started = b"", 0
        async for answer in answers:
            await kernel.start()
            started += 1
            content += answer.content
        assert started > 5
        report = await checked(kernel, content)
        assert report.position < (await kernel.log.position())
        whole = await checked(kernel, await read_all(kernel.events.Export(pb.ExportRequest())))
        assert whole.stream_count == LARGE_RUNS + started + 1


async def test_no_more_than_four_files_at_once(fresh_database: str) -> None:
    async with served(fresh_database, seals=NEVER) as kernel:
        await start_large_runs(kernel)
        open_calls = [kernel.events.Export(pb.ExportRequest()) for _ in range(4)]
        for call in open_calls:
            await call.read()
        refused = kernel.events.Export(pb.ExportRequest())
        assert await reason_of(refused.read()) == "OVERLOADED"
        for call in open_calls:
            call.cancel()

        async def is_free() -> bool:
            try:
                return bool(await read_all(kernel.events.Export(pb.ExportRequest())))
            except grpc.aio.AioRpcError:
                return False

        for _ in range(200):  # A cancelled call is gone a moment later.
            if await is_free():
                return
        pytest.fail("cancelled files count for ever")


@pytest.mark.parametrize(
    "request_of",
    [
        pb.GetProofRequest(),
        pb.GetProofRequest(stream="p0-queues"),
        pb.GetProofRequest(stream="p0-queues", version=1, position=1),
        pb.GetProofRequest(version=1),
        pb.GetProofRequest(position=-1),
        pb.GetProofRequest(stream="x" * 201, version=1),
    ],
)
async def test_what_names_no_event_is_refused(
    fresh_database: str, request_of: pb.GetProofRequest
) -> None:
    async with served(fresh_database, seals=NEVER) as kernel:
        assert await reason_of(kernel.events.GetProof(request_of)) == "INVALID_ARGUMENT"


async def test_refusals_have_their_reasons(fresh_database: str) -> None:
    async with served(fresh_database, seals=NEVER) as kernel:
        export, prove = kernel.events.Export, kernel.events.GetProof
        assert await reason_of(export(pb.ExportRequest()).read()) == "NOT_SEALED_YET"
        await kernel.start()
        wrong = pb.ExportRequest(cursor="mine")
        assert await reason_of(export(wrong).read()) == "INVALID_ARGUMENT"
        wrong = pb.ExportRequest(namespace="Acme!")
        assert await reason_of(export(wrong).read()) == "INVALID_ARGUMENT"
        assert await reason_of(read_all(export(pb.ExportRequest(namespace="namespaces/typo")))) == (
            "NOT_FOUND"
        )
        assert await reason_of(prove(pb.GetProofRequest(position=99))) == "NOT_FOUND"
        proof = (await prove(pb.GetProofRequest(position=1))).proof
        assert verify_proof(proof.SerializeToString(), key=await key_of(kernel))
        newest = await kernel.events.GetNewestSeal(pb.GetNewestSealRequest())
        assert newest.seal == proof.seal and newest.seal_hash == seal_hash(proof.seal)
        assert (newest.partition, newest.unsealed_event_count) == ("p0", 1)
        sealed = pb.GetProofRequest(stream="p0-seals", version=1)
        assert await reason_of(prove(sealed)) == "NOT_SEALED_YET"


async def test_what_somebody_changed_in_the_database_is_named_by_who_reads_the_export(
    fresh_database: str,
) -> None:
    async with served(fresh_database, seals=NEVER) as kernel:
        for _ in range(9):
            await kernel.start()
        proof = await kernel.events.GetProof(pb.GetProofRequest(position=1))
        assert proof.proof.seal.event_count == 9
        with psycopg.connect(fresh_database) as connection:
            connection.execute(
                "UPDATE stretto_p0.events SET state = set_byte(state, 200, 7)"
                " WHERE notification_id = 5"
            )
        assert await reason_of(kernel.events.GetProof(pb.GetProofRequest(position=1))) == (
            "SEAL_BROKEN"
        )
        data = await read_all(kernel.events.Export(pb.ExportRequest()))
        with pytest.raises(NotWhole, match=r"from position 1 to 9|position 5"):
            await checked(kernel, data)


async def test_an_event_that_cannot_be_read_stops_the_seals_and_nothing_else(
    fresh_database: str,
) -> None:
    async with served(fresh_database, seals=NEVER) as kernel:
        for _ in range(3):
            await kernel.start()
    with psycopg.connect(fresh_database) as connection:
        connection.execute("UPDATE stretto_p0.events SET state = 'x' WHERE notification_id = 2")
    async with served(fresh_database, seals=AT_ONCE) as kernel:
        stopped = await kernel.events.GetNewestSeal(pb.GetNewestSealRequest())
        assert stopped.stop_reason == "SEALING_STOPPED" and "position=2" in stopped.stop_message
        assert await reason_of(kernel.events.Export(pb.ExportRequest()).read()) == (
            "SEALING_STOPPED"
        )
        assert (await kernel.start()).run.name


async def test_seals_go_to_the_bus_and_idle_kernels_write_none(fresh_database: str) -> None:
    async with served(fresh_database, seals=AT_ONCE) as kernel:
        await kernel.start()
        sealer = kernel.kernel.partition.sealer
        await until(lambda: sealer.newest is not None and sealer.unsealed_count == 1)
        assert sealer.next_due_mono_ns() is None
        page = await kernel.log.read_all()
        (sealed,) = [event for event in page.events if event.type == SEALED_TYPE]
        assert subject_of(sealed) == "stretto-audit.eventlog.p0-seals"
        shown = pb.ReadStreamRequest(stream="p0-seals", form=pb.EventForm(body_json=True))
        answer = await kernel.events.ReadStream(shown)
        assert '"eventCount"' in answer.events[0].body_json
