"""The status file: what is written is what is read; and files that are replaced whole."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from stretto_core.atomic_file import write_atomically
from stretto_core.localstack.status import (
    ChildState,
    ChildStatus,
    SuiteStatus,
    read_status,
    write_status,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    child = ChildStatus(
        "kernel", ChildState.BACKING_OFF, 5, restart_count=2, exit_status_last=-9, backoff_ms=100
    )
    status = SuiteStatus(4711, (child,))
    write_status(tmp_path / "status.json", status)
    assert read_status(tmp_path / "status.json") == status
    assert status.child("kernel") is child
    with pytest.raises(KeyError):
        status.child("projector")


def test_without_a_file_there_is_no_status(tmp_path: Path) -> None:
    assert read_status(tmp_path / "status.json") is None


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old", mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
