"""The command on the relay: relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import InvalidArgument, NotFound

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.client_views import Relay, Views

_START = "start"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    add_commands(app, relay)


def relay(
    suite: Suite,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="POSITION|start",
            help="Publish again what came after this position, or everything.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far the log is relayed to the bus, or relay it again from a position.

        stretto relay
        stretto relay --from start
        stretto relay --from 120000 --json

    The bus is no record: what it lost is published again from here, and what comes follows it.
    A damaged event stops the relay before it; --from its position passes over it.

    --json: {"position", "log_position", "stop_position", "stop_reason", "stop_message"}.

    Exit status: 0 it follows, 1 it stands still, 2 there is no relay.
    """
    after = None if start is None else _position(start)

    async def ask(client: Client) -> Views:
        if after is not None:
            await client.move_relay(after)
        return await client.views()

    found = suite.ask(ask)
    standing = found.relay
    if standing is None:
        raise NotFound("nothing was ever relayed here: the suite has no bus")
    # What stood in its way is told until the relay has looked where it was set.
    stopped = bool(standing.stop_reason) and after is None
    if as_json:
        printing.print_json(_form(standing, found.log_position))
    else:
        behind = max(0, found.log_position - standing.position)
        printing.print_line(f"relayed to {standing.position:,}, {behind:,} behind the log")
        if stopped:
            printing.complain(
                f"stands still before {standing.stop_position:,}: {standing.stop_reason}: "
                f"{standing.stop_message}"
            )
    if stopped:
        raise typer.Exit(ExitStatus.FAILED)


def _position(text: str) -> int:
    if text == _START:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise InvalidArgument(f"--from {text}: a position of the log, or {_START}")
    return int(text)


def _form(relay: Relay, log_position: int) -> dict[str, object]:
    return {
        "position": relay.position,
        "log_position": log_position,
        "stop_position": relay.stop_position,
        "stop_reason": relay.stop_reason,
        "stop_message": relay.stop_message,
    }
