"""PostgreSQL as a supervised child: back after kill -9, gone with its supervisor, whole after."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psycopg
from stretto_core.localstack.postgres import EmbeddedPostgres
from stretto_core.localstack.status import ChildState, ChildStatus, read_status
from stretto_core.localstack.supervisor import Supervisor

from tests.waiting import until

RUN = """
import asyncio, sys
from pathlib import Path
from stretto_core.localstack.postgres import EmbeddedPostgres
from stretto_core.localstack.supervisor import Supervisor
directory = Path(sys.argv[1])
spec = EmbeddedPostgres(directory=directory).child_spec()
asyncio.run(Supervisor([spec], status_path=directory / "status.json").run())
"""


async def test_a_killed_server_is_back_with_what_was_committed(postgres_directory: Path) -> None:
    server = EmbeddedPostgres(directory=postgres_directory)
    supervisor = Supervisor([server.child_spec()], status_path=postgres_directory / "status.json")
    await supervisor.start()
    try:
        _commit_one_row(server)
        first = supervisor.status.child("postgres")
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: _ready_again(supervisor.status.child("postgres"), first))
        assert _row_count(server) == 1
    finally:
        await supervisor.stop()
    assert supervisor.status.child("postgres").state is ChildState.STOPPED


async def test_no_server_outlives_a_killed_supervisor(postgres_directory: Path) -> None:
    server = EmbeddedPostgres(directory=postgres_directory)
    for round_number in (1, 2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUN, str(postgres_directory)
        )
        await until(lambda: _state(postgres_directory) is ChildState.READY)
        _commit_one_row(server)
        assert _row_count(server) == round_number
        process.send_signal(signal.SIGKILL)
        await process.wait()
        # The server removes its lock file last, when it ended in good order.
        lock = server.data_directory / "postmaster.pid"
        await until(lambda lock=lock: not lock.exists())  # type: ignore[misc]
        (postgres_directory / "status.json").unlink()


def _commit_one_row(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (7)")


def _row_count(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.dsn()) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def _ready_again(now: ChildStatus, before: ChildStatus) -> bool:
    return now.state is ChildState.READY and now.pid != before.pid


def _state(directory: Path) -> ChildState | None:
    status = read_status(directory / "status.json")
    return status.child("postgres").state if status else None
