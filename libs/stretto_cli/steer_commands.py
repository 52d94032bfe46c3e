"""Commands that steer runs: cancel, kill, pause, resume; one run, or all that a filter chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from stretto_core.errors import InvalidArgument, Refusal, Unavailable
from stretto_core.ids import RunId
from stretto_sdk.runs import Run

from stretto_cli import printing
from stretto_cli.command_form import OptionGroup, add_commands
from stretto_cli.completion import complete_run
from stretto_cli.confirming import confirm
from stretto_cli.connection import Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson, Reason, span_option
from stretto_cli.run_filter import OPEN_STATES, Labels, Name, Since, States, filter_of
from stretto_cli.run_reference import find_run
from stretto_cli.run_view import run_json

if TYPE_CHECKING:
    from stretto_sdk.client import Client

Steer: TypeAlias = "Callable[[Client, RunId], Awaitable[Run]]"

AT_ONCE_MAX = 32
_PREVIEWED_MAX = 10

OneRun = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run: its id, the beginning or the end of it, or `last`. Or --all.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
All = Annotated[
    bool, typer.Option("--all", help="Every open run, or those that the options below choose.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --all: do not ask.")]
Grace = Annotated[
    str | None,
    typer.Option(
        metavar="SPAN", help='How long attempts may take to stop, like "5s".', show_default=False
    ),
]
Hold = Annotated[str, typer.Option(metavar="NAME", help="Which hold; several may stand at once.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which runs a command is about: one, or all that a filter admits."""

    run: str | None
    everything: bool
    yes: bool
    state: str | None
    label: list[str] | None
    name: str | None
    since: str | None

    def __post_init__(self) -> None:
        """Raise InvalidArgument for a choice that says nothing, or two things."""
        if self.run is None and not self.everything:
            raise InvalidArgument("name one RUN, or give --all")
        if self.run is not None and self.everything:
            raise InvalidArgument("a RUN and --all exclude each other")
        if self.run is not None and (self.state or self.label or self.name or self.since):
            raise InvalidArgument("--state, --label, --name and --since go with --all")


ChosenRuns = Annotated[
    Chosen,
    OptionGroup(
        {
            "run": (OneRun, None),
            "everything": (All, False),
            "state": (States, None),
            "label": (Labels, None),
            "name": (Name, None),
            "since": (Since, None),
            "yes": (Yes, False),
        },
        Chosen,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, cancel, kill, pause, resume)


def cancel(
    suite: Suite,
    chosen: ChosenRuns,
    reason: Reason = "",
    grace: Grace = None,
    as_json: AsJson = False,
) -> None:
    """Ask runs to stop: attempts get the signal, then clean-up tasks run.

        stretto cancel last --reason "wrong input" --grace 5s
        stretto cancel --all --label team=search --since 1d

    It returns when that is recorded; `stretto watch RUN` waits for the end. With --all it shows
    what it found and asks first.

    --json: the run as `stretto get --json` gives it; with --all {"runs": [...], "refused":
    [{"run_id": ..., "message": ...}]}.
    """
    span = span_option(grace, "--grace")
    _steer(
        suite,
        chosen,
        lambda client, it: client.cancel(it, reason=reason, grace=span),
        verb="cancel",
        as_json=as_json,
    )


def kill(
    suite: Suite,
    chosen: ChosenRuns,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """End runs at once: no clean-up, and what workers still report is refused.

        stretto kill 3dc3f --reason runaway
        stretto kill --all --state CANCELLING --yes

    --json: as of `stretto cancel`.
    """
    _steer(
        suite,
        chosen,
        lambda client, it: client.kill(it, reason=reason),
        verb="kill",
        as_json=as_json,
    )


def pause(
    suite: Suite,
    chosen: ChosenRuns,
    reason: Reason = "",
    hold: Hold = "operator",
    as_json: AsJson = False,
) -> None:
    """Put a hold on runs: nothing new is leased until `resume`; what runs goes on.

        stretto pause last --reason maintenance
        stretto pause --all --hold maintenance --yes

    --json: as of `stretto cancel`.
    """
    _steer(
        suite,
        chosen,
        lambda client, it: client.pause(it, hold=hold, reason=reason),
        verb="pause",
        as_json=as_json,
    )


def resume(
    suite: Suite,
    chosen: ChosenRuns,
    hold: Hold = "operator",
    as_json: AsJson = False,
) -> None:
    """Lift a hold that `pause` placed.

        stretto resume last
        stretto resume --all --hold maintenance --yes

    --json: as of `stretto cancel`.
    """
    _steer(
        suite,
        chosen,
        lambda client, it: client.resume(it, hold=hold),
        verb="resume",
        as_json=as_json,
    )


def _steer(suite: Suite, chosen: Chosen, ask: Steer, *, verb: str, as_json: bool) -> None:
    if chosen.run is None:
        _steer_all(suite, chosen, ask, verb=verb, as_json=as_json)
        return
    reference = chosen.run

    async def steered(client: Client) -> Run:
        return await ask(client, await find_run(client, reference))

    answered = suite.ask(steered)
    if as_json:
        printing.print_json(run_json(answered))
    else:
        _print(answered)


def _steer_all(suite: Suite, chosen: Chosen, ask: Steer, *, verb: str, as_json: bool) -> None:
    found = suite.ask(lambda client: _find_all(client, chosen))
    if not found:
        printing.note(f"no run to {verb}")
    elif not chosen.yes:
        _confirm(found, verb)
    outcomes = suite.ask(lambda client: _ask_all(client, found, ask))
    refused = [(run, each) for run, each in zip(found, outcomes, strict=True)
               if isinstance(each, Refusal)]  # fmt: skip
    answered = [each for each in outcomes if isinstance(each, Run)]
    if as_json:
        shown = [{"run_id": run.run_id, "message": each.message} for run, each in refused]
        printing.print_json({"runs": [run_json(each) for each in answered], "refused": shown})
    else:
        for run in answered:
            _print(run)
        for run, why in refused:
            printing.complain(f"{run.run_id}: {why.message}")
    if refused:
        raise typer.Exit(ExitStatus.USAGE)


async def _find_all(client: Client, chosen: Chosen) -> list[Run]:
    found: list[Run] = []
    for state in (chosen.state,) if chosen.state else OPEN_STATES:
        where = filter_of(states=state, labels=chosen.label, name=chosen.name, since=chosen.since)
        async with aclosing(client.list(where)) as runs:
            found.extend([run async for run in runs])
    return found


def _confirm(found: list[Run], verb: str) -> None:
    for run in found[:_PREVIEWED_MAX]:
        printing.note(f"{run.run_id}  {run.state}  {run.name}")
    if len(found) > _PREVIEWED_MAX:
        printing.note(f"and {len(found) - _PREVIEWED_MAX:,} more")
    confirm(f"{verb} this run?" if len(found) == 1 else f"{verb} these {len(found):,} runs?")


async def _ask_all(client: Client, found: list[Run], ask: Steer) -> list[Run | Refusal]:
    slots = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(run: Run) -> Run | Refusal:
        async with slots:
            try:
                return await ask(client, run.run_id)
            except Unavailable:
                raise  # The suite is gone: for all of them.
            except Refusal as refusal:
                return refusal

    return list(await asyncio.gather(*map(one, found)))


def _print(run: Run) -> None:
    held = run.holds and not run.state.ended
    holds = f" (holds: {printing.holds_text(run.holds)})" if held else ""
    printing.out.print(f"{run.run_id} {printing.state(run.state)}{printing.escape(holds)}")
