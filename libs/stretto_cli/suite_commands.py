"""Commands on a suite of this machine: up, down, status."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer
from stretto_core.localstack.status import ChildState, SuiteStatus

from stretto_cli import printing
from stretto_cli.command_form import add_commands, starts_a_suite
from stretto_cli.connection import LocalSuite, Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson
from stretto_cli.settings import Flags, Settings, effective_settings
from stretto_cli.suite.composition import (
    WORKERS_MAX,
    SuiteSettings,
    check_metrics_address,
    choose_port,
)
from stretto_cli.suite.detached import start_detached, stop_detached
from stretto_cli.suite.directory import DirectoryInUse, SuiteDirectory
from stretto_cli.suite.host import all_ready, run_suite
from stretto_cli.suite_status import print_status, read_status


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
    chosen_port = choose_port(port)
    check_metrics_address(os.environ, chosen_port)
    settings = SuiteSettings(
        directory=directory,
        port=chosen_port,
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
    start_detached(settings, narrator)
    if as_json:
        printing.print_json(read_status(_settings_of(directory)))


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


def status(suite: Suite, as_json: AsJson = False) -> None:
    """Show whether a suite is well: its processes, its workers, its work.

        stretto status
        stretto status --json | jq .open_runs.RUNNING

    --json: address, data_directory, supervisor_pid, ready, version, postgres, processes [{name,
    state, pid, restart_count, exit_status_last, since_ns, backoff_ms, log_path}], open_runs {state:
    count, at most 1,000 each}, view_position {partition, number}, stopped_views {name: why},
    failing_chores {name: why}, relay {position, behind, stopped}. Of a suite elsewhere, only what
    its kernel says: the rest is null.

    Exit status: 0 all of it is ready, 1 some of it is not, 3 no suite runs or answers.
    """
    found = read_status(suite.settings)
    if as_json:
        printing.print_json(found)
    else:
        print_status(found)
    if not found.ready:
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


def _settings_of(directory: SuiteDirectory) -> Settings:
    """Return what is in effect for a suite that was started just now."""
    return effective_settings(Flags(data_dir=directory.root), os.environ)
