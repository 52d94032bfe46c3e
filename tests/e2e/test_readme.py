"""The README keeps its word: every block of it is run, in order, as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Suite, command

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r'"""(\S+\.py): ')


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(README)


def is_make(script: str) -> bool:
    return all(line.startswith("make ") for line in script.splitlines())


def test_every_block_and_every_command_runs(idle_suite: Suite, tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    script = []
    for language, text in blocks():
        if language == "python":
            name = FILE_NAME.match(text)
            assert name, "a Python block opens with the name of its file"
            (tmp_path / name[1]).write_text(text)
        elif language == "sh" and not is_make(text):
            script.append(text)
        else:
            assert language == "sh", "a block is python or sh"
    program = "set -euo pipefail\n" + "".join(script)
    told = command(
        "bash", "-c", program, environ=idle_suite.environ | {"PWD": str(tmp_path)}, cwd=tmp_path
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for said in ("hello, ", "file_count", "RunSucceeded", "whole: ", "stopped"):
        assert said in told.stdout + told.stderr, said


def test_every_command_of_operations_runs(idle_suite: Suite, tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    backups = idle_suite.home / "backups"
    backups.mkdir()
    backups.chmod(0o711)  # The account that PostgreSQL runs as passes through it.
    page = BLOCK.findall((ROOT / "docs" / "operations.md").read_text())
    program = "set -euo pipefail\n" + "".join(text for name, text in page if name == "sh")
    environ = idle_suite.environ | {"PWD": str(tmp_path), "BACKUPS": str(backups)}
    told = command("bash", "-c", program, environ=environ, cwd=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("whole: ") == 2


@pytest.mark.parametrize("name", ["blackboard.md", "following.md", "queues.md"])
def test_every_command_of_a_page_runs(suite: Suite, name: str) -> None:
    page = BLOCK.findall((ROOT / "docs" / name).read_text())
    program = "set -euo pipefail\n" + "".join(text for language, text in page if language == "sh")
    told = command("bash", "-c", program, environ=suite.environ)
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_command_of_encryption_runs(suite: Suite) -> None:
    page = BLOCK.findall((ROOT / "docs" / "encryption.md").read_text())
    program = "set -euo pipefail\n" + "".join(text for name, text in page if name == "sh")
    told = command("bash", "-c", program, environ=suite.environ)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "(shredded)" in told.stdout or "shredded" in told.stdout


def test_every_command_of_audit_runs(idle_suite: Suite, tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    page = BLOCK.findall((ROOT / "docs" / "audit.md").read_text())
    program = "set -euo pipefail\n" + "".join(text for name, text in page if name == "sh")
    environ = idle_suite.environ | {"PWD": str(tmp_path)}
    told = command("bash", "-c", program, environ=environ, cwd=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("whole: ") == 2 and "proven: " in told.stdout
    assert "NOT PINNED" not in told.stdout


def test_every_command_of_time_travel_runs(suite: Suite) -> None:
    page = BLOCK.findall((ROOT / "docs" / "time-travel.md").read_text())
    program = "set -euo pipefail\n" + "".join(text for name, text in page if name == "sh")
    told = command("bash", "-c", program, environ=suite.environ)
    assert told.returncode == 0, told.stdout + told.stderr


def test_no_page_has_commands_that_are_not_run() -> None:
    pages = {
        page.name
        for page in (ROOT / "docs").glob("*.md")
        if any(
            language in {"sh", "bash", "console"} for language, _ in BLOCK.findall(page.read_text())
        )
    }
    assert pages == {
        "audit.md",
        "blackboard.md",
        "clients.md",
        "encryption.md",
        "following.md",
        "operations.md",
        "plan-files.md",
        "queues.md",
        "time-travel.md",
    }


def test_its_programs_are_the_examples() -> None:
    programs = [text for language, text in blocks() if language == "python"]
    assert programs == [
        (ROOT / "examples" / "hello" / name).read_text() for name in ("greeter.py", "client.py")
    ]


def test_every_make_target_it_names_exists(idle_suite: Suite) -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test", "check"} <= targets
    for target in targets:
        planned = command("make", "--dry-run", target, environ=idle_suite.environ)
        assert planned.returncode == 0, planned.stderr


def test_every_file_it_links_exists() -> None:
    for pattern in ("README.md", "docs/*.md", "docs/adr/*.md"):
        for page in ROOT.glob(pattern):
            for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_plan_files_in_the_docs_run(idle_suite: Suite, tmp_path: Path) -> None:
    page = BLOCK.findall((ROOT / "docs" / "plan-files.md").read_text())
    for language, text in page:
        if language == "yaml" and (name := re.match(r"# (\S+\.yaml)\n", text)):
            (tmp_path / name[1]).parent.mkdir(exist_ok=True)
            (tmp_path / name[1]).write_text(text)
    idle_suite.up("--workers", 1)
    script = "set -e\n" + "".join(text for language, text in page if language == "sh")
    told = command("bash", "-c", script, environ=idle_suite.environ, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert '"text": "lento, tempo"' in told.stdout
    assert '"output": "done\\n"' in told.stdout
    assert (tmp_path / "plan.dot").read_text().startswith("digraph stretto {")
    schema = (tmp_path / "plan.schema.json").read_text()
    assert schema == (ROOT / "docs" / "plan.schema.json").read_text()
