"""`make demo` on a small directory: it exits 0 only if everything it claims held."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.e2e.conftest import ROOT, command, processes_below


def test_the_demo_holds_and_leaves_nothing_behind(tmp_path: Path, postgres_directory: Path) -> None:
    for number in range(12):
        (tmp_path / f"file-{number:02d}.txt").write_text(f"line\n{number}\n")
    told = command(
        sys.executable,
        ROOT / "scripts" / "demo.py",
        "--dir",
        tmp_path,
        environ={**os.environ, "TMPDIR": str(postgres_directory)},
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for said in (
        "SIGKILL worker-",
        "SIGKILL kernel",
        "taken over by",
        "hash chain",
        "all of it held",
    ):
        assert said in told.stdout, said
    assert "file count         12" in told.stdout
    assert processes_below(postgres_directory) == []
    assert list(postgres_directory.iterdir()) == []


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    told = command(
        sys.executable,
        ROOT / "scripts" / "demo.py",
        "--dir",
        tmp_path / "none",
        environ=dict(os.environ),
    )
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
