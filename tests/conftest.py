"""Fixtures every rung shares: a real PostgreSQL, an empty database for each test, a real NATS.

The server is the one STRETTO_TEST_POSTGRES_DSN names, else the embedded one (one per test process),
else a container when a Docker engine answers. Without any: a failure under CI, a skip elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from stretto_core.localstack.nats import EmbeddedNats, embedded_nats_present
from stretto_core.localstack.postgres import FAST, EmbeddedPostgres
from stretto_core.localstack.postgres_install import embedded_postgres_present
from xdist.scheduler import LoadScopeScheduling

from tests.jetstream import wipe
from tests.ports import free_port
from tests.traces import directory_of

TESTS = Path(__file__).parent
KINDS = ("simulation", "e2e", "integration", "contract", "model", "unit")
"""The directories, those first whose parts take long: none of the test processes shall begin with a
long one when the others have nothing left to do."""

# As in the suite's supervisor: children are forked here while gRPC's threads run, and its fork
# handlers can abort them before their exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A shell has what it runs in the background ignore Ctrl-C, and children inherit that: the commands
# that are tested would not hear it. They start as in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files: by their directory, and in it those with many tests first."""
    tests_of = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int]:
        kind = item.path.relative_to(TESTS).parts[0]
        return KINDS.index(kind) if kind in KINDS else len(KINDS), -tests_of[item.path]

    items.sort(key=place)


class FilesAndSeeds(LoadScopeScheduling):  # type: ignore[misc]
    """Gives out whole files, which share what is costly, but blocks of seeds one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if "/simulation/" in nodeid else nodeid.split("::", 1)[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Share the tests out for `--dist loadfile`."""
    return FilesAndSeeds(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A superuser's connection string; the PostgreSQL lives as long as this test process."""
    given = os.environ.get("STRETTO_TEST_POSTGRES_DSN")
    if given:
        yield given
    elif embedded_postgres_present():
        yield from _embedded()
    else:
        yield from _container()


@pytest.fixture
def fresh_database(postgres_dsn: str) -> Iterator[str]:
    """The connection string of a database that is empty now and dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        yield make_conninfo(postgres_dsn, dbname=name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    """The URL of a NATS server with JetStream that lives as long as this test process."""
    given = os.environ.get("STRETTO_TEST_NATS_URL")
    if given:
        yield given
        return
    if not embedded_nats_present():
        missing = "no NATS to test with: install stretto[server], or say STRETTO_TEST_NATS_URL"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    for directory in _reachable_directory():
        server = EmbeddedNats(directory=directory, port=free_port())
        asyncio.run(server.start())
        yield server.url()
        asyncio.run(server.stop())


@pytest.fixture
def fresh_nats(nats_url: str) -> str:
    """The URL of a NATS server whose JetStream holds nothing of ours."""
    asyncio.run(wipe(nats_url))
    return nats_url


@pytest.fixture(scope="session")
def workflows() -> Path:
    """The directory of the recorded workflows; without it a failure under CI, a skip elsewhere."""
    directory = directory_of(os.environ)
    if not (directory / "MANIFEST.tsv").is_file():
        missing = (
            f"no recorded workflows in {directory}: STRETTO_TEST_WORKFLOWS says where they are"
        )
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return directory


@pytest.fixture
def postgres_directory() -> Iterator[Path]:
    """A directory that the account of an embedded PostgreSQL can reach; removed afterwards."""
    yield from _reachable_directory()


def _reachable_directory() -> Iterator[Path]:
    # pytest's own temporary directories are closed to other accounts, `nobody` among them.
    directory = Path(tempfile.mkdtemp(prefix="stretto-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def _embedded() -> Iterator[str]:
    for directory in _reachable_directory():
        server = EmbeddedPostgres(directory=directory)
        asyncio.run(server.start())
        yield server.dsn()
        asyncio.run(server.stop(FAST))


def _container() -> Iterator[str]:
    try:
        # Loads a Docker client: only where there is no embedded server.
        from testcontainers.postgres import PostgresContainer  # noqa: PLC0415

        container = PostgresContainer("postgres:18", driver=None).start()
    except Exception as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a PostgreSQL: install stretto[server] ({error})")
        pytest.skip(f"no PostgreSQL to test with: {error}")
    yield container.get_connection_url()
    container.stop()
