"""The command on what runs used of workers: usage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.completion import complete_run
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.client_usage import Usage, Used


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, usage)


def usage(
    suite: Suite,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Only of this run: its id, the beginning or the end of it, or `last`.",
            autocompletion=complete_run,
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show how many attempts runs had and how long they held workers, by queue and by worker.

        stretto usage
        stretto usage last
        stretto usage last --json | jq .total.held_s

    HELD is the time from lease to end of all attempts that ended, FOR RESULTS the part of it that
    gave an accepted result; the rest was for failures, losses and what was given back or killed.
    Without RUN, of all runs; that trails the record by moments.

    --json: {"total": {"attempts", "running", "succeeded", "held_s", "succeeded_held_s"},
    "by_queue": {NAME: {...}}, "by_worker": {ID: {...}}}; of queues and workers the 1,000 that were
    held longest.
    """

    async def read(client: Client) -> Usage:
        return await client.usage(await find_run(client, run) if run else None)

    found = suite.ask(read)
    if as_json:
        printing.print_json(
            {
                "total": _used_json(found.total),
                "by_queue": {name: _used_json(used) for name, used in found.by_queue.items()},
                "by_worker": {name: _used_json(used) for name, used in found.by_worker.items()},
            }
        )
    elif not found.total.attempts:
        printing.note("no attempts yet")
    else:
        _print_shares("QUEUE", {**found.by_queue, "": found.total})
        printing.out.print()
        _print_shares("WORKER", found.by_worker)


def _print_shares(name: str, shares: Mapping[str, Used]) -> None:
    columns = (name, "ATTEMPTS", "RUNNING", "SUCCEEDED", "HELD", "FOR RESULTS")
    printing.print_table(columns, (_row(each, used) for each, used in shares.items()))


def _row(name: str, used: Used) -> tuple[str, ...]:
    return (
        printing.escape(name) or "[dim]all[/]",
        str(used.attempts),
        str(used.running),
        str(used.succeeded),
        printing.length_text(used.held),
        f"{printing.length_text(used.succeeded_held)}{_share_text(used)}",
    )


def _share_text(used: Used) -> str:
    return f" [dim]{used.succeeded_held / used.held:.0%}[/]" if used.held else ""


def _used_json(used: Used) -> dict[str, object]:
    return {
        "attempts": used.attempts,
        "running": used.running,
        "succeeded": used.succeeded,
        "held_s": used.held / timedelta(seconds=1),
        "succeeded_held_s": used.succeeded_held / timedelta(seconds=1),
    }
