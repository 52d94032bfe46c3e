"""The processes a workload runs on: PostgreSQL, NATS, kernel, projector, workers, and one client.

Everything is what `stretto up` starts, as processes of its own, on an embedded PostgreSQL with
fsync on and an embedded NATS that the projector's process relays the log to. The client is a
process too (`tests.bench.client`) and is told what to do line by line, so that its start is in no
figure.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stretto_core.localstack.child import Child, ChildFailed, ChildSpec, StopStep
from stretto_core.localstack.nats import EmbeddedNats
from stretto_core.localstack.postgres import FAST, EmbeddedPostgres
from stretto_core.localstack.readiness import grpc_serving

from tests.bench.processes import tree_cpu_us
from tests.ports import free_port

KERNEL = ("-m", "stretto_kernel")
PROJECTOR = ("-m", "stretto_kernel", "--role", "projector")
SDK_WORKER = ("-m", "tests.bench.worker")
BARE_WORKER = ("-m", "tests.bench.bare_worker")
ANSWER_BYTES_MAX = 1 << 20
STARTS_MAX = 20
_KILL = (StopStep(signal.SIGKILL, 0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What runs. kernel: how the kernel process is started, after the interpreter's name.

    views: a projector, and NATS for it to relay to.
    """

    kernel: tuple[str, ...] = KERNEL
    worker: tuple[str, ...] = SDK_WORKER
    worker_count: int = 1
    slots: int = 64
    views: bool = True
    postgres_settings: Mapping[str, str] = field(default_factory=dict)


class Stack:
    """The processes of one layout, below one directory."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        self.directory = directory
        self.layout = layout
        self.postgres = EmbeddedPostgres(directory=directory, settings=layout.postgres_settings)
        self.nats = EmbeddedNats(directory=directory / "nats", port=free_port())
        self.address = f"127.0.0.1:{free_port()}"
        self.kernel = Child(self._spec("kernel", layout.kernel))
        self.projector = Child(self._spec("projector", PROJECTOR))
        self.workers = [self._worker(number) for number in range(1, layout.worker_count + 1)]

    async def start(self) -> None:
        """Start everything; returns when the kernel serves and the workers run."""
        await self.start_postgres()
        await self.start_kernel()
        if self.layout.views:
            await self.nats.start()
            await self.projector.start()
        for worker in self.workers:
            await worker.start()

    async def start_kernel(self) -> None:
        """Start the kernel, again after its end; returns when it says SERVING."""
        await self.kernel.start()
        await self.kernel.wait_ready()

    async def start_postgres(self) -> None:
        """Start PostgreSQL, again after its end, as a supervisor does: until it runs."""
        for _ in range(STARTS_MAX):
            try:
                await self.postgres.start()
            except ChildFailed:
                # Children of a killed server hold its memory for a moment longer.
                continue
            return
        raise ChildFailed(f"PostgreSQL did not start in {STARTS_MAX} tries")

    async def kill_worker(self) -> None:
        """End the last worker by SIGKILL."""
        await self.workers.pop().stop_by(_KILL)

    async def stop(self) -> None:
        """Stop everything; the kernel by SIGTERM, so that it can write what it was asked to."""
        for worker in self.workers:
            await worker.stop_by(_KILL)
        await self.kernel.stop()
        await self.projector.stop()
        await self.nats.stop()
        await self.postgres.stop(FAST)

    def services(self) -> dict[str, int]:
        """Return the pids of the services that run, by name."""
        children = {"kernel": self.kernel, "projector": self.projector}
        children |= {f"worker-{at}": worker for at, worker in enumerate(self.workers, start=1)}
        return {name: child.pid for name, child in children.items() if child.pid is not None}

    def _worker(self, number: int) -> Child:
        name = f"worker-{number}"
        arguments = ("--address", self.address, "--slots", str(self.layout.slots), "--name", name)
        return Child(self._spec(name, (*self.layout.worker, *arguments), served=False))

    def _spec(self, name: str, arguments: tuple[str, ...], *, served: bool = True) -> ChildSpec:
        environment = {key: text for key, text in os.environ.items() if "STRETTO" not in key}
        environment |= {
            "STRETTO_POSTGRES_DSN": self.postgres.dsn(),
            "STRETTO_NATS_URL": self.nats.url(),
            "STRETTO_LISTEN": self.address,
            "STRETTO_DRAIN_GRACE_S": "0",
            "STRETTO_DATA_DIR": str(self.directory),
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }
        return ChildSpec(
            name=name,
            argv=(sys.executable, *arguments),
            env=environment,
            log_path=self.directory / f"{name}.log",
            ready=grpc_serving(self.address) if served else _at_once,
        )


class ClientProcess:
    """The one client, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, what: str, **how: object) -> dict[str, Any]:
        """Have it do something and return what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"what": what, "how": how}).encode() + b"\n")
        return await self.told()

    def begin(self, what: str, **how: object) -> None:
        """Have it do something; `told` returns what it says on the way and at the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"what": what, "how": how}).encode() + b"\n")

    async def told(self) -> dict[str, Any]:
        """Return the next thing it says."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client ended; what it said is above")
        told: dict[str, Any] = json.loads(line)
        return told

    async def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def running(layout: Layout) -> AsyncIterator[tuple[Stack, ClientProcess]]:
    """Yield a running stack and its client; afterwards nothing of either remains."""
    directory = Path(tempfile.mkdtemp(prefix="stretto-bench-"))
    directory.chmod(0o711)  # The account that PostgreSQL runs as passes through it.
    stack = Stack(directory, layout)
    try:
        await stack.start()
        client = ClientProcess(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.client", "--address", stack.address),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=ANSWER_BYTES_MAX,
            )
        )
        try:
            yield stack, client
        finally:
            await client.end()
    finally:
        await stack.stop()
        shutil.rmtree(directory, ignore_errors=True)


class CpuWatch:
    """CPU time of the harness and everything it started, since it was made."""

    def __init__(self) -> None:
        self._begin_us = tree_cpu_us(os.getpid())

    def used_us(self) -> int:
        """Return the microseconds used so far."""
        return tree_cpu_us(os.getpid()) - self._begin_us


async def _at_once(_pid: int) -> bool:
    return True
