"""Commands on namespaces and what they forget: namespace list, namespace set, shred."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from stretto_core.errors import InvalidArgument

from stretto_cli import printing
from stretto_cli.command_form import add_command, add_commands
from stretto_cli.confirming import confirm
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson, Reason, RunArgument, one_of_two
from stretto_cli.run_reference import find_run
from stretto_cli.run_view import run_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stretto_sdk.client import Client
    from stretto_sdk.client_namespaces import NamespaceSettings
    from stretto_sdk.runs import Run

Encrypt = Annotated[
    bool,
    typer.Option(
        "--encrypt",
        help="Give every run started from now on a data key of its own.",
        show_default=False,
    ),
]
NoEncrypt = Annotated[
    bool, typer.Option("--no-encrypt", help="Give them none.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(
        name="namespace",
        no_args_is_help=True,
        help="Say what holds for the runs that are started in a namespace.",
    )
    add_command(group, list_namespaces, name="list")
    add_command(group, set_namespace, name="set")
    app.add_typer(group)
    add_commands(app, shred)


def list_namespaces(suite: Suite, as_json: AsJson = False) -> None:
    """List the namespaces of which a setting was ever changed.

        stretto namespace list
        stretto namespace list --json | jq -r '.namespaces[] | select(.encrypt_payloads).namespace'

    --json: {"namespaces": [{"namespace", "encrypt_payloads", "update_time", "etag"}]}.
    """

    async def read(client: Client) -> Sequence[NamespaceSettings]:
        return await client.namespaces()

    found = suite.ask(read)
    if as_json:
        printing.print_json({"namespaces": found})
    elif found:
        printing.print_table(
            ("NAMESPACE", "ENCRYPTS", "CHANGED"),
            (
                (
                    escape(each.namespace),
                    "yes" if each.encrypt_payloads else "no",
                    printing.instant(each.update_time),
                )
                for each in found
            ),
        )
    else:
        printing.note("no namespace has settings: none encrypts")


def set_namespace(
    suite: Suite,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The namespace.")] = "default",
    encrypt: Encrypt = False,
    no_encrypt: NoEncrypt = False,
    as_json: AsJson = False,
) -> None:
    """Set what holds for runs that are started in a namespace from now on.

        stretto namespace set patients --encrypt
        stretto namespace set --no-encrypt

    With --encrypt what a run carries is stored, relayed and exported encrypted with a key of its
    own, and `stretto shred` can forget it. Runs that were started before stay as they are.

    --json: the namespace, as `stretto namespace list --json` has it.
    """
    encrypts = one_of_two(encrypt, no_encrypt, "--encrypt and --no-encrypt")
    if encrypts is None:
        raise InvalidArgument("nothing to set: give --encrypt or --no-encrypt")

    async def ask(client: Client) -> NamespaceSettings:
        return await client.update_namespace(name, encrypt_payloads=encrypts)

    settings = suite.ask(ask)
    if as_json:
        printing.print_json(settings)
    else:
        does = "encrypts" if settings.encrypt_payloads else "does not encrypt"
        printing.note(f"{settings.namespace}: {does} the runs that are started from now on")


def shred(
    suite: Suite,
    run: RunArgument,
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Forget for good what an ended run carried: its data key is destroyed.

        stretto shred 3dc3f --reason "the customer left"
        stretto shred last --yes

    Inputs, results, messages, arguments and task logs become unreadable, here and in every mirror
    and export; names, labels, states and times stay. Only of a run that was started while its
    namespace encrypts. There is no way back; a backup made before holds the key still.

    --json: the run as `stretto get --json` gives it.
    """

    async def find(client: Client) -> Run:
        return await client.get(await find_run(client, run))

    found = suite.ask(find)
    # A run without a key is refused by the kernel: nobody is asked about what cannot be.
    if not yes and found.encrypted and found.shred_time is None:
        printing.note(f"{found.run_id}  {found.state}  {found.name}")
        confirm("forget for good what this run carried?")

    async def ask(client: Client) -> Run:
        return await client.shred(found, reason=reason)

    shredded = suite.ask(ask)
    if as_json:
        printing.print_json(run_json(shredded))
    else:
        printing.note(f"{shredded.run_id} is shredded: nobody can read what it carried")
