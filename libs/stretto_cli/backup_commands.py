"""The command that copies a suite: backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import LocalSuite
from stretto_cli.options import AsJson
from stretto_cli.suite.backup import back_up

Target = Annotated[
    Path, typer.Argument(metavar="DIRECTORY", help="Where the copy goes: new, or empty.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    add_commands(app, backup)


def backup(suite: LocalSuite, target: Target, as_json: AsJson = False) -> None:
    """Copy the record of the suite on this machine while it runs.

        stretto backup /backups/monday
        stretto up --detach --data-dir /backups/monday

    The copy is a data directory: a suite started in it goes on from the instant the copy ended.
    It holds the whole record, what tasks wrote, and the tokens, but not the services' own logs.
    Keep it as you keep the original: its tokens are in it. Never let both run against one outside
    world: each would do what the record says is still to do.

    --json: {"directory": "...", "size_bytes": 12345678}.
    """
    made = back_up(suite.directory, target)
    if as_json:
        printing.print_json(made)
    else:
        printing.note(f"copied {made.size_bytes / 1e6:,.1f} MB into {made.directory}")
