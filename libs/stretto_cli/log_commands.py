"""Commands on the event log: events, verify."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Annotated

import typer
from rich.markup import escape
from stretto_sdk.client import Client
from stretto_sdk.runs import Event

from stretto_cli import printing
from stretto_cli.exits import ExitStatus, reported
from stretto_cli.options import Address, AsJson, DataDirectory, with_client

OptionalRun = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Only this run; without it, all.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (events, verify):
        app.command(rich_help_panel="Event log")(reported(command))


def events(
    run: OptionalRun = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Print the recorded facts, oldest first; with --json one JSON object a line.

    This is the record itself: what is not here did not happen.
    """

    async def read(client: Client) -> None:
        async with aclosing(client.events(run, follow=follow)) as found:
            async for event in found:
                if as_json:
                    printing.print_json_line(event)
                else:
                    _print_event(event, with_stream=run is None)

    with_client(read, data_dir=data_dir, address=address)


def verify(
    run: OptionalRun = None,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Compute the hash chain again from the stored bytes, of one run or of everything.

    Exit status: 0 every link holds, 1 one does not (the first is named).
    """
    check = with_client(lambda client: client.verify(run), data_dir=data_dir, address=address)
    if as_json:
        printing.print_json(check)
    elif check.whole:
        printing.print_line(f"whole: {check.event_count} events in {check.stream_count} streams")
    else:
        printing.complain(f"broken after {check.event_count} events: {check.broken}")
    if not check.whole:
        raise typer.Exit(ExitStatus.FAILED)


def _print_event(event: Event, *, with_stream: bool) -> None:
    kind = event.type.rpartition(".")[2]
    body = json.dumps(event.body, ensure_ascii=False, separators=(", ", ": "))
    body = body if len(body) <= 120 else f"{body[:117]}..."
    stream = f"{event.stream} " if with_stream else ""
    printing.out.print(
        f"[dim]{printing.instant(event.time)} {stream}{event.version:>5}[/] "
        f"[bold]{kind}[/] {escape(body)}"
    )
