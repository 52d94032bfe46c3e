"""Commands on the tokens of a suite's users: token add, list, revoke."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer
from stretto.common.v1.principal_pb2 import PrincipalKind
from stretto_core.errors import InvalidArgument
from stretto_core.rpc import tokens

from stretto_cli import printing
from stretto_cli.command_form import add_command
from stretto_cli.connection import LocalSuite
from stretto_cli.options import AsJson

Answer = TypeVar("Answer")

UserName = Annotated[str, typer.Argument(metavar="NAME", help="The user: a-z, 0-9 and -.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(
        name="token",
        no_args_is_help=True,
        help="Give users tokens of their own, list them, take them back.",
    )
    add_command(group, add, "add")
    add_command(group, list_tokens, "list")
    add_command(group, revoke, "revoke")
    app.add_typer(group)


def add(suite: LocalSuite, name: UserName, as_json: AsJson = False) -> None:
    """Make a user's token and print it, once.

        (umask 077; stretto token add ada > ada.token)
        stretto runs --address build.example:7788 --token-file ada.token

    A running suite takes it at once. What a user may do is in docs/permissions.md.

    --json: {"name": "ada", "token": "stretto_..."}.
    """
    directory = suite.directory.tokens_path
    _refusing(lambda: tokens.ensure_tokens(directory))
    made = _refusing(lambda: tokens.add_token(directory, name)).reveal()
    if as_json:
        printing.print_json({"name": name, "token": made})
    else:
        printing.print_line(made)


def list_tokens(suite: LocalSuite, as_json: AsJson = False) -> None:
    """List who has a token; no token is shown.

    --json: {"tokens": [{"name": "ada", "kind": "USER"}]}.
    """
    found = [
        {"name": each.name, "kind": PrincipalKind.Name(each.kind).removeprefix("PRINCIPAL_KIND_")}
        for each in _refusing(lambda: tokens.list_tokens(suite.directory.tokens_path))
    ]
    if as_json:
        printing.print_json({"tokens": found})
    else:
        printing.print_table(("NAME", "KIND"), [(each["name"], each["kind"]) for each in found])


def revoke(suite: LocalSuite, name: UserName, as_json: AsJson = False) -> None:
    """Make a user's token worthless: for new calls within a second, for open streams within four.

    --json: {"name": "ada", "revoked": true}.
    """
    _refusing(lambda: tokens.remove_token(suite.directory.tokens_path, name))
    if as_json:
        printing.print_json({"name": name, "revoked": True})
    else:
        printing.note(f"revoked the token of {name}")


def _refusing(use: Callable[[], Answer]) -> Answer:
    try:
        return use()
    except tokens.TokenRefused as refused:
        raise InvalidArgument(str(refused)) from None
