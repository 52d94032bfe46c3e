"""Asking a person before what cannot be taken back."""

from __future__ import annotations

import typer
from stretto_core.errors import InvalidArgument

from stretto_cli import printing
from stretto_cli.exits import ExitStatus


def confirm(question: str) -> None:
    """Return once a person said yes; else the command ends.

    Raises InvalidArgument where there is nobody to ask: then --yes has to say it.
    """
    if not printing.err.is_terminal:
        raise InvalidArgument(f"{question} say --yes to do it")
    if not typer.confirm(question, err=True):
        printing.note("nothing was done")
        raise typer.Exit(ExitStatus.USAGE)
