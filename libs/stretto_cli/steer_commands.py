"""Commands that steer runs: cancel, kill, pause, resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from stretto_core.ids import RunId
from stretto_sdk.runs import Run

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson, Reason, RunArgument, span_option
from stretto_cli.run_reference import find_run
from stretto_cli.run_view import run_json

if TYPE_CHECKING:
    from stretto_sdk.client import Client

Grace = Annotated[
    str | None,
    typer.Option(
        metavar="SPAN", help='How long attempts may take to stop, like "5s".', show_default=False
    ),
]
Hold = Annotated[str, typer.Option(metavar="NAME", help="Which hold; several may stand at once.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, cancel, kill, pause, resume)


def cancel(
    suite: Suite,
    run: RunArgument,
    reason: Reason = "",
    grace: Grace = None,
    as_json: AsJson = False,
) -> None:
    """Ask runs to stop: attempts get the signal, then clean-up tasks run."""
    span = span_option(grace, "--grace")
    _steer(suite, run, as_json, lambda client, it: client.cancel(it, reason=reason, grace=span))


def kill(suite: Suite, run: RunArgument, reason: Reason = "", as_json: AsJson = False) -> None:
    """End runs at once: no clean-up, and what workers still report is refused."""
    _steer(suite, run, as_json, lambda client, it: client.kill(it, reason=reason))


def pause(
    suite: Suite,
    run: RunArgument,
    reason: Reason = "",
    hold: Hold = "operator",
    as_json: AsJson = False,
) -> None:
    """Put a hold on runs: nothing new is leased until `resume`; what runs goes on."""
    _steer(suite, run, as_json, lambda client, it: client.pause(it, hold=hold, reason=reason))


def resume(
    suite: Suite, run: RunArgument, hold: Hold = "operator", as_json: AsJson = False
) -> None:
    """Lift a hold that `pause` placed."""
    _steer(suite, run, as_json, lambda client, it: client.resume(it, hold=hold))


def _steer(
    suite: Suite, run: str, as_json: bool, ask: Callable[[Client, RunId], Awaitable[Run]]
) -> None:
    async def steered(client: Client) -> Run:
        return await ask(client, await find_run(client, run))

    answered = suite.ask(steered)
    if as_json:
        printing.print_json(run_json(answered))
        return
    held = answered.holds and not answered.state.ended
    holds = f" (holds: {printing.holds_text(answered.holds)})" if held else ""
    printing.out.print(f"{answered.run_id} {printing.state(answered.state)}{escape(holds)}")
