"""Commands on the event log: events, verify."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_sdk.runs import ChainCheck, Event

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.completion import complete_run
from stretto_cli.connection import RESTART_BUDGET, RETRY_BUDGET, Suite
from stretto_cli.event_line import print_fact
from stretto_cli.event_types import EventTypes
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.client import Client

OptionalRun = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Only this run; without it, all.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="NAME",
        help="Only facts of this type, like AttemptLeased; may be repeated.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, events, verify)


def events(
    suite: Suite,
    run: OptionalRun = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    kind: Types = None,
    since: Annotated[
        int, typer.Option(metavar="VERSION", help="Of a run: only what came after.", min=0)
    ] = 0,
    cursor: Annotated[
        str,
        typer.Option(
            metavar="CURSOR", help="Of all: go on after an event's cursor.", show_default=False
        ),
    ] = "",
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many; 0 = all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the recorded facts, oldest first: what is not here did not happen.

        stretto events last -f
        stretto events last --type AttemptFailed --type AttemptLost
        stretto events --json | jq -r .type | sort | uniq -c

    They are read page after page and written as they come. A reader that stopped goes on from the
    cursor of the last event it has seen, or of one run from its version. With --follow it goes on
    over a restart of the kernel, each event once. With --namespace, said here and not in the
    environment, only facts of that namespace are given, without it those of all.

    --json: one object a line: stream, version, type, time, principal, request_id, position, body,
    cursor.
    """
    if since and run is None:
        raise InvalidArgument("--since is a version of one run: name the run, or use --cursor")
    if cursor and run is not None:
        raise InvalidArgument("--cursor is a place in the whole log: use --since with a run")

    types = EventTypes(kind)

    async def read(client: Client) -> None:
        of_run = None if run is None else await find_run(client, run)
        # What is recorded is read whole, to tell which types there are when none is of these.
        found = client.events(
            of_run,
            follow=follow,
            cursor=cursor,
            after_version=since,
            types=(kind or ()) if follow else (),
            namespace=suite.settings.namespace_asked,
        )
        count = 0
        async with aclosing(found):
            async for event in found:
                if not types.takes(event):
                    continue
                _write(event, as_json=as_json, with_stream=run is None)
                count += 1
                if count == limit:
                    return
        types.note_none()
        if types.met_none and suite.settings.namespace_asked:
            after = " after that cursor" if cursor else ""
            name = suite.settings.namespace_asked
            printing.note(f"no event of the namespace {name}{after}; check its name")

    suite.ask(read, retry_budget=RESTART_BUDGET if follow else RETRY_BUDGET)


def _write(event: Event, *, as_json: bool, with_stream: bool) -> None:
    if as_json:
        printing.print_json_line(event)
    else:
        print_fact(event, ("stream", "version") if with_stream else ("version",))


def verify(suite: Suite, run: OptionalRun = None, as_json: AsJson = False) -> None:
    """Compute the hash chain again from what is stored, of one run or of all.

    --json: {"whole": true, "event_count": 1234, "stream_count": 56, "broken": ""}.

    Exit status: 0 every link holds, 1 one does not (the first is named).
    """

    async def check_chain(client: Client) -> ChainCheck:
        return await client.verify(None if run is None else await find_run(client, run))

    check = suite.ask(check_chain)
    if as_json:
        printing.print_json(check)
    elif check.whole:
        printing.print_line(f"whole: {check.event_count} events in {check.stream_count} streams")
    else:
        printing.complain(f"broken after {check.event_count} events: {check.broken}")
    if not check.whole:
        raise typer.Exit(ExitStatus.FAILED)
