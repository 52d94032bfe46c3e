"""The data directory of a suite: one at a time, known by more than a pid."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from stretto_cli.suite.composition import (
    SuiteSettings,
    check_metrics_address,
    child_specs,
    choose_port,
)
from stretto_cli.suite.directory import DirectoryInUse, SuiteDirectory
from stretto_cli.suite.identity import ProcessIdentity, identity_of, own_identity
from stretto_core.errors import InvalidArgument


def test_a_directory_has_one_suite_at_a_time(tmp_path: Path) -> None:
    directory = SuiteDirectory(tmp_path / "suite")
    assert directory.running() is None
    with directory.own():
        assert directory.running() == own_identity()
        with pytest.raises(DirectoryInUse, match="stretto down"):
            directory.own()
    assert directory.running() is None
    with directory.own():
        assert directory.running() == own_identity()


def test_the_name_left_by_a_killed_suite_is_not_taken_for_a_running_one(tmp_path: Path) -> None:
    directory = SuiteDirectory(tmp_path)
    directory.lock_path.write_text(json.dumps({"pid": os.getpid(), "started": "long ago"}))
    assert directory.running() is None


def test_a_pid_alone_is_no_identity() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        identity = identity_of(child.pid)
        assert identity is not None
        assert identity.alive
        assert not ProcessIdentity(child.pid, "another start").alive
        child.communicate(b"\n")
    assert not identity.alive


def test_a_taken_port_is_refused_when_asked_for_and_passed_over_when_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidArgument, match=str(port)):
            choose_port(port)
        assert choose_port(0) not in {0, port}


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_an_address_of_metrics_that_is_taken_is_refused(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host.strip("[]"), 0))
        taken.listen()
        address = f"{host}:{taken.getsockname()[1]}"
        with pytest.raises(InvalidArgument, match=r"STRETTO_METRICS_LISTEN: .*already in use"):
            check_metrics_address({"STRETTO_METRICS_LISTEN": address}, 7788)
    check_metrics_address({"STRETTO_METRICS_LISTEN": address}, 7788)


def test_an_address_of_metrics_that_is_none_or_the_kernels_is_refused() -> None:
    check_metrics_address({}, 7788)
    port = choose_port(0)
    for address, says in ((f"127.0.0.1:{port}", "the kernel itself"), ("9464", "HOST:PORT")):
        with pytest.raises(InvalidArgument, match=says):
            check_metrics_address({"STRETTO_METRICS_LISTEN": address}, port)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_data_directory(tmp_path: Path, below: str) -> None:
    (tmp_path / "suite").write_text("")
    with pytest.raises(InvalidArgument, match=r"suite is a file: .*--data-dir"):
        SuiteDirectory(tmp_path / "suite" / below).running()


def test_a_suite_is_its_servers_kernel_projector_workers_in_that_order(
    postgres_directory: Path,
) -> None:
    settings = SuiteSettings(
        directory=SuiteDirectory(postgres_directory),
        port=7,
        worker_count=2,
        slot_count=3,
        environ={
            "PATH": "/bin",
            "MINE": "yes",
            "STRETTO_TOKEN": "operator's",
            "STRETTO_QUEUE_LIMITS": "gpu=2",
            "STRETTO_SECRET_API": "a worker's",
            "STRETTO_HTTP_DENY": "private",
        },
    )
    specs = {spec.name: spec for spec in child_specs(settings)}
    assert list(specs) == ["postgres", "nats", "kernel", "projector", "worker-1", "worker-2"]
    assert specs["kernel"].env["STRETTO_LISTEN"] == "127.0.0.1:7"
    assert specs["kernel"].env["STRETTO_QUEUE_LIMITS"] == "gpu=2"
    # Tasks are the caller's programs and see the caller's environment, but none of our secrets.
    assert specs["worker-1"].env["MINE"] == "yes"
    assert "STRETTO_TOKEN" not in specs["worker-1"].env
    assert specs["worker-2"].env["STRETTO_HTTP_DENY"] == "private"
    assert [name for name, spec in specs.items() if "a worker's" in spec.env.values()] == [
        "worker-1",
        "worker-2",
    ]
    assert "MINE" not in specs["kernel"].env
    assert all("operator's" not in spec.env.values() for spec in specs.values())


def test_foreign_servers_replace_the_embedded_ones(tmp_path: Path) -> None:
    settings = SuiteSettings(
        directory=SuiteDirectory(tmp_path),
        port=7,
        worker_count=0,
        postgres_dsn="postgresql://x",
        nats_url="nats://token@x",
    )
    specs = {spec.name: spec for spec in child_specs(settings)}
    assert list(specs) == ["kernel", "projector"]
    assert {spec.env["STRETTO_POSTGRES_DSN"] for spec in specs.values()} == {"postgresql://x"}
    assert not any("postgresql://x" in part for spec in specs.values() for part in spec.argv)
    assert specs["projector"].env["STRETTO_NATS_URL"] == "nats://token@x"
    assert "postgresql://x" not in repr(settings)
    assert "nats://token@x" not in repr(settings)


def test_a_strict_umask_locks_the_account_of_postgres_out_of_nothing_we_make(
    tmp_path: Path,
) -> None:
    before = os.umask(0o077)
    try:
        SuiteDirectory(tmp_path / "a b" / "data").make()
    finally:
        os.umask(before)
    modes = {(tmp_path / part).stat().st_mode & 0o777 for part in ("a b", "a b/data")}
    # Only root lends PostgreSQL another account; everyone else keeps the umask they asked for.
    assert modes == {0o711 if os.geteuid() == 0 else 0o700}
