"""Commands that look back: history, replay, diff. Nothing is executed again."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_sdk.runs import Event

from stretto_cli import printing
from stretto_cli.change_text import diff_json, print_diff, print_event, print_step, step_json
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.event_types import EventTypes
from stretto_cli.moments import FORMS, moment_of
from stretto_cli.options import AsJson, RunArgument
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.client_history import ReplayStep, RunDiff

Since = Annotated[int, typer.Option(metavar="VERSION", help="Only what came after.", min=0)]
Until = Annotated[
    int, typer.Option(metavar="VERSION", help="Only up to there; 0 = to the newest.", min=0)
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="NAME",
        help="Only facts of this type, like RunCancelRequested; may be repeated.",
        show_default=False,
    ),
]
_ID_TAIL = 8
_CAUSES_MAX = 100_000


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, history, replay, diff)


def history(
    suite: Suite,
    run: RunArgument,
    kind: Kinds = None,
    since: Since = 0,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many; 0 = all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print who did what to a run, when and why, oldest first.

        stretto history last
        stretto history last --type RunCancelRequested --type RunKilled
        stretto history last --since 100 --limit 20

    Why: the request that caused a fact (of a client's call, its request id), or the fact it
    followed from, by version. To go on, --since the last version shown.

    --json: one object a line: version, type, time, principal, request_id, cause (the event_id of
    the fact before it), cause_version (null when that lies before --since), correlation_id,
    event_id, stream, position, body.
    """
    types = EventTypes(kind)

    async def read(client: Client) -> None:
        found = client.events(await find_run(client, run), after_version=since)
        versions: dict[str, int] = {}
        count = 0
        async with aclosing(found):
            async for event in found:
                cause = versions.get(event.cause)
                versions[event.event_id] = event.version
                if len(versions) > _CAUSES_MAX:
                    versions.pop(next(iter(versions)))
                if not types.takes(event):
                    continue
                _print_fact(event, cause, as_json=as_json)
                count += 1
                if count == limit:
                    return
        types.note_none()

    suite.ask(read)


def replay(
    suite: Suite,
    run: RunArgument,
    since: Since = 0,
    until: Until = 0,
    as_json: AsJson = False,
) -> None:
    """Step through a run: each fact, who made it true, and what it changed. Executes nothing.

        stretto replay last
        stretto replay last --since 40 --until 60
        stretto replay last --json | jq -c '[.version, (.tasks[] | [.name, .state])]'

    On a terminal: SPACE or n the next fact, b the one before, e all the rest, q ends it. In a pipe
    all of them are written.

    --json: one object a line: version, type, time, principal, request_id, cause, body; tasks: those
    that the fact touched, as `stretto tasks --json` gives them, right after it; run: {state, holds,
    failure, end_reason} when the fact was about all of it, else null.

    A fact about the whole run (a cancel, a kill) also ends tasks that it does not touch one by one:
    `stretto tasks RUN --as-of VERSION` shows them.
    """
    if until and until < since:
        raise InvalidArgument(f"--until {until} comes before --since {since}")
    by_keys = printing.out.is_terminal and sys.stdin.isatty() and not as_json

    async def read(client: Client) -> None:
        found = client.replay(await find_run(client, run), after_version=since, until_version=until)
        async with aclosing(found):
            if by_keys:
                from stretto_cli.replay_keys import step_by_keys  # noqa: PLC0415 - a terminal's

                await step_by_keys(found)
            else:
                await _write_steps(found, as_json=as_json)

    suite.ask(read)


def diff(
    suite: Suite,
    run: RunArgument,
    first: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHEN",
            help=f"Between this moment: {FORMS}; its start by default,",
            show_default=False,
        ),
    ] = "1",
    last: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="WHEN", help="and this one; now by default.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what changed in a run between two moments, and which facts changed it.

        stretto diff last
        stretto diff last --from 10 --to 20
        stretto diff last --from 10m

    --json: {"run_id", "from", "to" (versions), "run": [{name, before, after}], "tasks": [{task,
    before, after, changes, versions}], "attempts": [{task, epoch, began, ended, how}], "board":
    [{key, before, after, versions}], "events": [...]}. A task or an entry of the blackboard that
    was not there has before null, an entry that is not there any more after null; versions are
    those of the facts that changed it.

    Exit status: 0, also when nothing changed; 2 when --to comes before --from.
    """
    before, after = moment_of(first, "--from"), moment_of(last, "--to")
    assert before is not None, "it has a default"

    async def read(client: Client) -> RunDiff:
        return await client.diff(await find_run(client, run), before, after)

    found = suite.ask(read)
    if as_json:
        printing.print_json(diff_json(found))
    else:
        print_diff(found)


async def _write_steps(steps: AsyncIterator[ReplayStep], *, as_json: bool) -> None:
    async for step in steps:
        if as_json:
            printing.print_json_line(step_json(step))
        else:
            print_step(step)


def _print_fact(event: Event, cause: int | None, *, as_json: bool) -> None:
    if as_json:
        plain = printing.plain(event)
        assert isinstance(plain, dict)
        printing.print_json_line({**plain, "cause_version": cause})
        return
    print_event(event, _why(event, cause))


def _why(event: Event, cause: int | None) -> str:
    if event.request_id:
        whole = not printing.out.is_terminal
        return f"request {event.request_id if whole else event.request_id[-_ID_TAIL:]}"
    return f"after {cause}" if cause else "after an earlier fact"
