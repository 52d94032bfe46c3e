"""Commands on the tokens of a suite's users: token add, token remove."""

from __future__ import annotations

from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_core.rpc.tokens import TokenRefused, add_token, ensure_tokens, remove_token

from stretto_cli import printing
from stretto_cli.command_form import add_command
from stretto_cli.connection import LocalSuite

UserName = Annotated[str, typer.Argument(metavar="NAME", help="The user: a-z, 0-9 and -.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    tokens = typer.Typer(
        name="token",
        no_args_is_help=True,
        help="Give users tokens of their own, list them, take them back.",
    )
    add_command(tokens, add, "add")
    add_command(tokens, remove, "remove")
    app.add_typer(tokens)


def add(suite: LocalSuite, name: UserName) -> None:
    """Make a user's token and print it, once; the user presents it in $STRETTO_TOKEN.

    A running suite takes it from the next second on.
    """
    directory = suite.directory.tokens_path
    try:
        ensure_tokens(directory)
        printing.print_line(add_token(directory, name).reveal())
    except TokenRefused as refused:
        raise InvalidArgument(str(refused)) from None


def remove(suite: LocalSuite, name: UserName) -> None:
    """Make a user's token worthless, from the next second on."""
    directory = suite.directory.tokens_path
    try:
        remove_token(directory, name)
    except TokenRefused as refused:
        raise InvalidArgument(str(refused)) from None
    printing.note(f"removed the token of {name}")
