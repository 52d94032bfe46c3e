"""Commands on a suite of this machine: up, down, status."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from stretto_core.localstack.status import ChildState, ChildStatus, SuiteStatus

from stretto_cli import printing
from stretto_cli.command_form import add_commands, starts_a_suite
from stretto_cli.connection import LocalSuite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson
from stretto_cli.suite.composition import WORKERS_MAX, SuiteSettings, choose_port
from stretto_cli.suite.detached import start_detached, stop_detached
from stretto_cli.suite.directory import DirectoryInUse, SuiteDirectory
from stretto_cli.suite.host import all_ready, run_suite


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, up, down, status)


@starts_a_suite
def up(
    suite: LocalSuite,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it is ready; `down` stops it.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="How many worker processes.", min=0, max=WORKERS_MAX)
    ] = 2,
    slots: Annotated[
        int | None,
        typer.Option(help="How many tasks each worker runs at once.", min=1, show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Where the kernel listens on 127.0.0.1; 0 takes any free port. "
            "Default: 7788 if it is free.",
            min=0,
            max=65_535,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a suite on this machine: PostgreSQL, NATS, kernel, projector and workers.

    With $STRETTO_POSTGRES_DSN and $STRETTO_NATS_URL it uses those servers and brings none of its
    own. A process that dies is started again at once, then with back-off. Everything it has
    recorded is in the data directory: the next `up` goes on where this one ends, however it ends.
    Tasks run in the directory it is called in, unless they name another.
    """
    directory = suite.directory
    _refuse_if_running(directory)
    settings = SuiteSettings(
        directory=directory,
        port=choose_port(port),
        worker_count=workers,
        slot_count=slots,
        postgres_dsn=os.environ.get("STRETTO_POSTGRES_DSN") or None,
        nats_url=os.environ.get("STRETTO_NATS_URL") or None,
        environ=os.environ,
    )
    narrator = _Narrator(settings.address)
    if not detach:
        asyncio.run(run_suite(settings, narrator))
        printing.note("stopped")
        return
    ready = start_detached(settings, narrator)
    if as_json:
        _print_status_json(directory, ready)


def down(suite: LocalSuite) -> None:
    """Stop the suite of this machine; its record stays.

    Workers finish what they run or give it back, then everything ends. Without a suite it is done
    already.
    """
    directory = suite.directory
    identity = stop_detached(directory)
    if identity is None:
        printing.note(f"no suite runs in {directory.root}")
    else:
        printing.note(f"stopped the suite in {directory.root} (pid {identity.pid})")


def status(suite: LocalSuite, as_json: AsJson = False) -> None:
    """Show whether a suite is well: its processes, its workers, its work.

    Exit status: 0 all of it is ready, 1 some of it is not, 3 no suite runs.
    """
    directory = suite.directory
    running = directory.running()
    found = directory.status()
    if running is None or found is None:
        printing.complain(f"no suite runs in {directory.root}")
        raise typer.Exit(ExitStatus.UNREACHABLE)
    if as_json:
        _print_status_json(directory, found)
    else:
        printing.print_pairs(
            (
                ("address", directory.address() or ""),
                ("data", escape(str(directory.root))),
                ("pid", str(running.pid)),
            )
        )
        printing.print_table(
            ("PROCESS", "STATE", "PID", "RESTARTS", "FOR"), map(_child_row, found.children)
        )
    if not all_ready(found):
        raise typer.Exit(ExitStatus.FAILED)


class _Narrator:
    """Says on standard error what changes in the suite."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._states: dict[str, ChildState] = {}
        self._told_ready = False

    def __call__(self, status: SuiteStatus) -> None:
        for child in status.children:
            before, self._states[child.name] = self._states.get(child.name), child.state
            never_started = before in {None, ChildState.WAITING} and child.pid is None
            if before is not child.state and not never_started:
                pid = f" (pid {child.pid})" if child.pid else ""
                printing.err.print(f"{child.name:<12} {printing.state(child.state)}{pid}")
        if not self._told_ready and all_ready(status):
            self._told_ready = True
            printing.note(f"Stretto is up at {self._address}")


def _refuse_if_running(directory: SuiteDirectory) -> None:
    running = directory.running()
    if running is not None:
        raise DirectoryInUse(
            f"a suite runs in {directory.root} already (pid {running.pid}): `stretto status` "
            "shows it, `stretto down` stops it, --data-dir starts another elsewhere",
            data_directory=str(directory.root),
            pid=str(running.pid),
        )


def _print_status_json(directory: SuiteDirectory, found: SuiteStatus) -> None:
    printing.print_json(
        {
            "address": directory.address(),
            "data_directory": str(directory.root),
            "supervisor_pid": found.supervisor_pid,
            "ready": all_ready(found),
            "processes": list(found.children),
        }
    )


def _child_row(child: ChildStatus) -> tuple[str, ...]:
    since = datetime.fromtimestamp(child.since_ns / 1e9, tz=UTC)
    return (
        child.name,
        printing.state(child.state),
        str(child.pid or ""),
        str(child.restart_count),
        printing.span(since, datetime.now(tz=UTC)).partition(".")[0] + " s",
    )
