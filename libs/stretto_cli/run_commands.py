"""Commands on one run: run, get."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from stretto_core.errors import InvalidArgument
from stretto_sdk.plan_form import RunForm
from stretto_sdk.runs import Run, RunState
from stretto_sdk.strict_json import TEXT_BYTES_MAX, parse_json

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson, RunArgument, span_option
from stretto_cli.plan_argument import PlanFile, Root, Settings, plan_of
from stretto_cli.progress import RunProgress
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.client import Client

InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="JSON|@FILE",
        help="The run's input, over the file's own: JSON text, or @ and the name of a JSON file.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, run, get)


def run(
    suite: Suite,
    file: PlanFile,
    given_input: InputOption = None,
    settings: Settings = None,
    root: Root = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end and print the output.")] = True,
    timeout: Annotated[
        str | None, typer.Option(help='Wait at most so long, like "10m".', show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start the run that a plan FILE describes, wait for its end, print its output.

    A plan file is YAML or JSON. A small one:

        tasks:
          - name: hello
            executor: process
            arguments: {argv: [echo, hello], output: text}
        output: {from: task, task: hello}

    With `parameters: {who: {default: world}}` in it, --set who=you replaces ${params.who}.

    Exit status: 0 it succeeded, 1 it did not, 2 the plan is wrong, 3 no suite answers
    or --timeout passed first; the run itself goes on.
    """
    form = plan_of(file, settings, root)
    value = form.input if given_input is None else _input(given_input)
    limit = span_option(timeout, "--timeout")
    ended = suite.ask(lambda client: _run(client, form, value, wait, limit))
    if as_json:
        printing.print_json(ended)
    elif ended.state is RunState.SUCCEEDED:
        _print_output(ended.output)
    elif not ended.state.ended:
        printing.print_line(ended.run_id)
    else:
        printing.complain(_why(ended))
    if ended.state.ended and ended.state is not RunState.SUCCEEDED:
        raise typer.Exit(ExitStatus.FAILED)


def get(suite: Suite, run: RunArgument, as_json: AsJson = False) -> None:
    """Show one run: where it stands, how far its tasks are, its output or failure."""

    async def read(client: Client) -> Run:
        return await client.get(await find_run(client, run))

    found = suite.ask(read)
    if as_json:
        printing.print_json(found)
    else:
        _print_run(found)


async def _run(
    client: Client, form: RunForm, value: object, wait: bool, timeout: timedelta | None
) -> Run:
    started = await client.start(form, input=value)
    if not wait:
        return started
    with RunProgress(started) as progress:
        try:
            async with progress.telling_what_waits(client):
                return await client.wait(started, timeout=timeout, on_change=progress.show)
        except BaseException:
            progress.leave(f"the run goes on; follow it with: stretto get {started.run_id}")
            raise


def _read(file: str, bytes_max: int) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(bytes_max + 1)
    except OSError as error:
        raise InvalidArgument(f"{file}: {error.strerror}") from None


def _input(given: str) -> object:
    if given.startswith("@"):
        return parse_json(_read(given[1:], TEXT_BYTES_MAX), source=given[1:])
    return parse_json(given, source="--input")


def _print_output(output: object) -> None:
    if isinstance(output, str):
        printing.print_line(output)
    else:
        printing.print_json(output)


def _print_run(run: Run) -> None:
    counts = printing.plain(run.tasks)
    assert isinstance(counts, dict)
    printing.print_pairs(
        (
            ("run", run.run_id),
            ("name", escape(run.name)),
            ("state", printing.state(run.state)),
            ("why", escape(printing.failure_text(run.failure) or run.end_reason)),
            ("holds", escape(printing.holds_text(run.holds))),
            ("tasks", ", ".join(f"{count} {name}" for name, count in counts.items() if count)),
            ("labels", escape(", ".join(f"{key}={each}" for key, each in run.labels.items()))),
            ("created", f"{printing.instant(run.create_time)} by {escape(run.creator)}"),
            ("ended", printing.instant(run.end_time)),
            ("took", printing.span(run.create_time, run.end_time)),
            ("version", str(run.version)),
        )
    )
    if run.state is RunState.SUCCEEDED and run.output is not None:
        _print_output(run.output)


def _why(run: Run) -> str:
    cause = printing.failure_text(run.failure) or run.end_reason
    return f"{run.run_id} {run.state}" + (f": {cause}" if cause else "")
