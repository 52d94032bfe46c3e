"""docs/clients.md keeps its word: its shell, Python and Node blocks run in order, its Go compiles.

Without node the page is not run; Go is compiled where it, its plugins and its modules are there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, ROOT, Suite, command
from tests.e2e.test_readme import BLOCK, FILE_NAME

PAGE = (ROOT / "docs" / "clients.md").read_text()
MODULES = (Path("/usr/share/gocode"), Path.home() / "go")
"""Where Go's modules lie when no module proxy is reached: Debian's packages, or one's own."""


def test_every_block_runs(idle_suite: Suite, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node here")
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    script = []
    for language, text in BLOCK.findall(PAGE):
        if language == "python":
            name = FILE_NAME.match(text)
            assert name, "a Python block opens with the name of its file"
            (tmp_path / name[1]).write_text(text)
        elif language == "sh":
            script.append(text)
    program = "set -euo pipefail\n" + "".join(script)
    told = command(
        "bash", "-c", program, environ=idle_suite.environ | {"PWD": str(tmp_path)}, cwd=tmp_path
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for said in ("LeaseWork", "SERVING", '"42"', "hello, Python", "hello, Grace", "stopped"):
        assert said in told.stdout + told.stderr, said


def test_its_go_compiles(tmp_path: Path) -> None:
    plugins = all(shutil.which(f"protoc-gen-{plugin}") for plugin in ("go", "go-grpc"))
    found = [path for path in MODULES if (path / "src/google.golang.org/grpc").is_dir()]
    if shutil.which("go") is None or not plugins or not found:
        pytest.skip("there is no Go here, or not all that the page asks for")
    blocks = dict(BLOCK.findall(PAGE))
    source = tmp_path / "src/example.com/client"
    source.mkdir(parents=True)
    (source / "main.go").write_text(blocks["go"])
    (tmp_path / "buf.gen.yaml").write_text(blocks["yaml"])
    # Without modules Go looks for packages by path: what is generated stands at its import path.
    (tmp_path / "gen").symlink_to(tmp_path / "src/example.com/stretto")
    (tmp_path / "src/example.com/stretto").mkdir()
    environ = dict(os.environ) | {
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": f"{tmp_path}:{found[0]}",
    }
    for step in (
        (
            BIN / "buf",
            "generate",
            ROOT,
            "--template",
            "buf.gen.yaml",
            "--path",
            ROOT / "proto/stretto",
        ),
        ("go", "vet", "example.com/client"),
    ):
        done = command(*step, environ=environ, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
