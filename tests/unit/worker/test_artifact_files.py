"""Which files a command leaves behind: below its directory, in order, no more than may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stretto_core.errors import InvalidArgument
from stretto_sdk.arguments.process import Command, parse_command
from stretto_sdk.worker.artifacts import ARTIFACTS_MAX
from stretto_worker.processes.artifact_files import find_artifacts


def command(directory: Path, *patterns: str) -> Command:
    arguments = {"argv": ["true"], "cwd": str(directory), "artifacts": list(patterns)}
    return parse_command(json.dumps(arguments), {})


def test_files_come_in_order_and_at_most_so_many(tmp_path: Path) -> None:
    names = [f"{number:03}.log" for number in range(ARTIFACTS_MAX)]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert list(find_artifacts(command(tmp_path, "*.log"))) == names
    (tmp_path / "more.log").touch()
    with pytest.raises(InvalidArgument, match="at most 100 artifacts"):
        find_artifacts(command(tmp_path, "*.log"))
