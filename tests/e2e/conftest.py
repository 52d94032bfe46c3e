"""A suite of real processes, started and stopped by the real command, one per test module."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stretto_cli.suite.directory import SuiteDirectory
from stretto_sdk import Client, Event, Run

from tests.waiting import POLL_S, passed

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DATA_DIRECTORY = "a suité"
"""Blanks and letters beyond ASCII stand in every path of it, as they may on anybody's disk."""


def command(
    *arguments: object, environ: dict[str, str], stdin: str = "", cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment to its end and return what it wrote."""
    return subprocess.run(
        [str(each) for each in arguments],
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=280,
        check=False,
    )


@dataclass
class Suite:
    """A running suite: the command line, clients, and its processes by name."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> SuiteDirectory:
        return SuiteDirectory(self.home / DATA_DIRECTORY)

    def stretto(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `stretto` with these arguments."""
        return command(BIN / "stretto", *arguments, environ=self.environ, stdin=stdin)

    def up(self, *arguments: object) -> None:
        """Start it; returns when it is ready."""
        started = self.stretto("up", "--detach", "--port", 0, *arguments)
        assert started.returncode == 0, started.stderr

    def down(self) -> None:
        """Stop it; nothing of it runs afterwards."""
        stopped = self.stretto("down")
        assert stopped.returncode == 0, stopped.stderr

    def client(self) -> Client:
        """Return a client of it, as its operator."""
        return Client(data_directory=self.directory.root)

    def pid(self, process: str) -> int | None:
        """Return the pid of a process of it, None while it does not run."""
        status = self.directory.status()
        assert status is not None
        return status.child(process).pid

    def restarts(self, process: str) -> int:
        """Return how often a process of it was restarted."""
        status = self.directory.status()
        assert status is not None
        return status.child(process).restart_count

    def signal(self, process: str, number: signal.Signals) -> int:
        """Send a signal to a process of it and return its pid."""
        pid = self.pid(process)
        assert pid is not None, f"{process} does not run"
        os.kill(pid, number)
        return pid


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    """A suite of two workers that lives as long as the module's tests."""
    for suite in fresh_suites():
        suite.up("--workers", 2, "--slots", 4)
        yield suite


@pytest.fixture
def idle_suite() -> Iterator[Suite]:
    """A suite that is not started yet; stopped after the test if it was."""
    yield from fresh_suites()


def fresh_suites() -> Iterator[Suite]:
    """Yield a suite in a directory of its own; afterwards neither it nor its processes remain."""
    home = Path(tempfile.mkdtemp(prefix="stretto-e2e-"))
    home.chmod(0o711)  # The account that PostgreSQL runs as passes through it.
    environ = {name: each for name, each in os.environ.items() if not name.startswith("STRETTO_")}
    environ |= {
        "STRETTO_DATA_DIR": str(home / DATA_DIRECTORY),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    suite = Suite(home, environ)
    try:
        yield suite
    finally:
        stopped = suite.stretto("down")
        left = processes_below(home)
        shutil.rmtree(home, ignore_errors=True)
    assert stopped.returncode == 0, stopped.stderr
    assert left == [], "everything a suite starts it also stops"


def processes_below(home: Path) -> list[str]:
    """Return the command lines of live processes that name the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in line:
            found.append(line)
    return found


@dataclass
class Gate:
    """Tasks that wait until it is opened: what makes "in mid-run" certain instead of timed."""

    directory: Path

    def task(self, name: str, **more: Any) -> dict[str, Any]:
        """Return a task that notes its start, waits for the gate, notes its end, and says so."""
        script = (
            'echo "start $1" >> "$2/ledger"; '
            'while [ ! -e "$2/open" ]; do sleep 0.02; done; '
            'echo "end $1" >> "$2/ledger"; echo "$1 done"'
        )
        return {
            "name": name,
            "executor": "process",
            "arguments": {
                "argv": ["sh", "-c", script, "gate", name, str(self.directory)],
                "output": "text",
            },
            **more,
        }

    def open(self) -> None:
        """Let every task pass, now and later."""
        (self.directory / "open").touch()

    def count(self, word: str) -> Counter[str]:
        """Return how often each task noted `word` (start or end)."""
        ledger = self.directory / "ledger"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return Counter(line.split()[1] for line in lines if line.startswith(word))


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


async def events_of(client: Client, run: Run) -> list[Event]:
    """Return the recorded facts of a run."""
    async with aclosing(client.events(run)) as events:
        return [event async for event in events]


def of_kind(events: list[Event], kind: str) -> list[Event]:
    """Return the events of a kind, by the last part of its name."""
    return [event for event in events if event.type.endswith(f".{kind}")]


def accepted(events: list[Event]) -> Counter[str]:
    """Return how many results were accepted of each task."""
    return Counter(str(event.body["task"]) for event in of_kind(events, "AttemptSucceeded"))


async def until_true(ask: Callable[[], Awaitable[bool]], deadline_s: float = 60.0) -> None:
    """Return as soon as `await ask()` is true. Raises TimeoutError at the deadline."""
    async with asyncio.timeout(deadline_s):
        while not await ask():
            await passed(POLL_S)


def json_of(result: subprocess.CompletedProcess[str]) -> Any:
    """Return what a successful command wrote, as JSON."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
