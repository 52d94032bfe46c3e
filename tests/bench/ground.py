"""ground: what the machine gives before anything of ours runs, to compare figures of machines.

A unary echo over gRPC between two processes, protobuf of an event, and single-row inserts that
PostgreSQL syncs to disk, driven by its own pgbench.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from stretto.eventlog.v1.recorded_event_pb2 import DIGEST_ALG_SHA256, RecordedEvent
from stretto_core.localstack.postgres_install import reachable_install

from tests.bench.database import fresh_postgres
from tests.bench.figures import Round
from tests.bench.scale import Scale
from tests.bench.speeds import Measurement

PARTS = ("calls-1", "calls-64", "codec", "inserts-1", "inserts-8")
"""What is measured; a number is how many go on at once."""
EVENT_BODY_BYTES = 274
ROW = "INSERT INTO ground (body) VALUES (repeat('x', 200));\n"
_RATE = re.compile(r"^tps = ([0-9.]+) ", re.MULTILINE)


async def ground(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """Every one of PARTS that is wanted."""
    async with _echo() as address, _table() as dsn:
        for _ in range(scale.rounds):
            for name in wanted:
                kind, _, clients = name.removeprefix("ground-").partition("-")
                measured: Round
                settings: dict[str, object]
                if kind == "codec":
                    event = _event()
                    settings = {"event_bytes": event.ByteSize(), "repeated": scale.codec_events}
                    measured = codec(event, scale.codec_events)
                elif kind == "calls":
                    settings = {"calls": scale.echo_calls, "outstanding": int(clients)}
                    measured = await _calls(address, scale.echo_calls, int(clients))
                else:
                    settings = {"seconds": scale.inserts_s, "clients": int(clients)}
                    measured = await _inserts(dsn, scale.inserts_s, int(clients))
                yield name, measured, settings


def codec(event: RecordedEvent, count: int) -> Round:
    """Return the CPU time of encoding and of decoding one event, in microseconds."""
    stored = event.SerializeToString()

    def cost_us(step: Callable[[], object]) -> float:
        began_ns = time.process_time_ns()
        for _ in range(count):
            step()
        return (time.process_time_ns() - began_ns) / count / 1_000

    return {
        "encode_us": cost_us(event.SerializeToString),
        "decode_us": cost_us(lambda: RecordedEvent.FromString(stored)),
    }


def _event() -> RecordedEvent:
    """Return an event as large as those of a run are."""
    event = RecordedEvent(
        stream="run-0123456789abcdef0123456789abcdef",
        version=3,
        event_id="01234567-89ab-cdef-0123-456789abcdef",
        type="stretto.run.v1.AttemptSucceeded",
        namespace="default",
        request_id="01234567-89ab-cdef-0123-456789abcdef",
        digest_alg=DIGEST_ALG_SHA256,
        previous_hash=bytes(32),
        body=bytes(EVENT_BODY_BYTES),
    )
    event.time.seconds = 1_700_000_000
    return event


async def _calls(address: str, calls: int, outstanding: int) -> Round:
    argv = (sys.executable, "-m", "tests.bench.echo", "call", address, calls, outstanding)
    return {"calls_per_s": float(await _told(*map(str, argv)))}


async def _inserts(dsn: str, seconds: int, clients: int) -> Round:
    with tempfile.TemporaryDirectory(prefix="stretto-bench-") as directory:
        script = Path(directory) / "insert.sql"
        script.write_text(ROW)
        program = reachable_install(Path(directory), None).root / "bin" / "pgbench"
        options = {"client": clients, "jobs": min(clients, os.cpu_count() or 1), "time": seconds}
        told = await _told(
            *(str(program), "--no-vacuum", "--protocol=prepared", f"--file={script}"),
            *(f"--{name}={value}" for name, value in options.items()),
            dsn,
        )
    found = _RATE.search(told)
    assert found is not None, told
    return {"inserts_per_s": float(found[1])}


async def _told(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{argv[0]} ended with {process.returncode}")
    return told.decode()


@asynccontextmanager
async def _echo() -> AsyncIterator[str]:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.echo", "serve"), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        yield (await server.stdout.readline()).decode().strip()
    finally:
        server.kill()
        await server.wait()


@asynccontextmanager
async def _table() -> AsyncIterator[str]:
    async with fresh_postgres() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE ground (id bigserial PRIMARY KEY, body text)")
        yield dsn
