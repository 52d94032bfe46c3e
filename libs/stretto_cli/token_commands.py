"""Commands on the tokens of a suite's users: token add, token remove."""

from __future__ import annotations

from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_core.rpc.tokens import TokenRefused, add_token, ensure_tokens, remove_token

from stretto_cli import printing
from stretto_cli.exits import reported
from stretto_cli.options import DataDirectory, suite_directory

UserName = Annotated[str, typer.Argument(metavar="NAME", help="The user: a-z, 0-9 and -.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    tokens = typer.Typer(
        name="token", no_args_is_help=True, help="Give users tokens of their own, or take them."
    )
    tokens.command("add")(reported(add))
    tokens.command("remove")(reported(remove))
    app.add_typer(tokens, rich_help_panel="Suite")


def add(name: UserName, data_dir: DataDirectory = None) -> None:
    """Make a user's token and print it, once; the user presents it in $STRETTO_TOKEN.

    A running suite takes it from the next second on.
    """
    directory = suite_directory(data_dir).tokens_path
    try:
        ensure_tokens(directory)
        printing.print_line(add_token(directory, name).reveal())
    except TokenRefused as refused:
        raise InvalidArgument(str(refused)) from None


def remove(name: UserName, data_dir: DataDirectory = None) -> None:
    """Make a user's token worthless, from the next second on."""
    directory = suite_directory(data_dir).tokens_path
    try:
        remove_token(directory, name)
    except TokenRefused as refused:
        raise InvalidArgument(str(refused)) from None
    printing.note(f"removed the token of {name}")
