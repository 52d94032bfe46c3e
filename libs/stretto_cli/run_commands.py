"""Commands on runs: run, get, tasks, list, cancel, kill, pause, resume."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from stretto_core.errors import InvalidArgument
from stretto_sdk.client import Client
from stretto_sdk.plan_form import PLAN_BYTES_MAX, RunForm, parse_run_text
from stretto_sdk.runs import Failure, Run, RunState, Task
from stretto_sdk.strict_json import TEXT_BYTES_MAX, parse_json

from stretto_cli import printing
from stretto_cli.exits import ExitStatus, reported
from stretto_cli.options import (
    Address,
    AsJson,
    DataDirectory,
    Reason,
    RunArgument,
    span_option,
    with_client,
)
from stretto_cli.progress import RunProgress, wait_text

InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="JSON|@FILE",
        help="The run's input, over the file's own: JSON text, or @ and the name of a JSON file.",
        show_default=False,
    ),
]
Grace = Annotated[
    str | None,
    typer.Option(help='How long attempts may take to stop, like "5s".', show_default=False),
]
Hold = Annotated[str, typer.Option(help="Which hold; several may stand at once.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (run, get, tasks, list_runs, cancel, kill, pause, resume):
        name = "list" if command is list_runs else command.__name__
        app.command(name, rich_help_panel="Runs")(reported(command))


def run(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A plan file; - reads it from stdin.")
    ],
    given_input: InputOption = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end and print the output.")] = True,
    timeout: Annotated[
        str | None, typer.Option(help='Wait at most so long, like "10m".', show_default=False)
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Start the run that a plan FILE describes, wait for its end, print its output.

    A plan file is JSON. The smallest one:

        {"tasks": [{"name": "hello", "executor": "process",
                    "arguments": {"argv": ["echo", "hello"], "output": "text"}}],
         "output": {"from": "task", "task": "hello"}}

    Exit status: 0 it succeeded, 1 it did not, 2 the plan is wrong, 3 no suite answers
    or --timeout passed first; the run itself goes on.
    """
    form = parse_run_text(
        _read(file, PLAN_BYTES_MAX), source="standard input" if file == "-" else file
    )
    value = form.input if given_input is None else _input(given_input)
    limit = span_option(timeout, "--timeout")
    ended = with_client(
        lambda client: _run(client, form, value, wait, limit),
        data_dir=data_dir,
        address=address,
    )
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


def get(
    run: RunArgument,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Show one run: where it stands, how far its tasks are, its output or failure."""
    found = with_client(lambda client: client.get(run), data_dir=data_dir, address=address)
    if as_json:
        printing.print_json(found)
    else:
        _print_run(found)


def tasks(
    run: RunArgument,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Show the tasks of a run in the order they came to be."""
    found = with_client(lambda client: client.tasks(run), data_dir=data_dir, address=address)
    if as_json:
        printing.print_json(list(found))
        return
    printing.print_table(
        ("TASK", "STATE", "ATTEMPT", "EPOCH", "WORKER", "TOOK", "WHY"), map(_task_row, found)
    )


def list_runs(
    where: Annotated[
        str,
        typer.Option(
            "--filter", help='Terms joined by AND: state = FAILED, labels.team = "search" ...'
        ),
    ] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """List runs, newest first. The list trails the record by moments; `get` never does."""

    async def read(client: Client) -> list[Run]:
        found: list[Run] = []
        async with aclosing(client.list(where)) as runs:
            async for each in runs:
                found.append(each)
                if len(found) == limit:
                    break
        return found

    found = with_client(read, data_dir=data_dir, address=address)
    if as_json:
        printing.print_json(found)
        return
    printing.print_table(
        ("RUN", "STATE", "NAME", "TASKS", "CREATED"),
        (
            (
                each.run_id,
                printing.state(each.state),
                escape(each.name),
                f"{each.tasks.ended}/{each.tasks.total}",
                printing.instant(each.create_time),
            )
            for each in found
        ),
    )


def cancel(
    run: RunArgument,
    reason: Reason = "",
    grace: Grace = None,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Ask a run to stop: attempts get the signal, clean-up tasks run, then it is CANCELLED."""
    span = span_option(grace, "--grace")
    _steer(lambda client: client.cancel(run, reason=reason, grace=span), as_json, data_dir, address)


def kill(
    run: RunArgument,
    reason: Reason = "",
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """End a run at once: no clean-up, and whatever its workers still report is refused."""
    _steer(lambda client: client.kill(run, reason=reason), as_json, data_dir, address)


def pause(
    run: RunArgument,
    reason: Reason = "",
    hold: Hold = "operator",
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Put a hold on a run: nothing new is leased until `resume`; what runs goes on."""
    _steer(lambda client: client.pause(run, hold=hold, reason=reason), as_json, data_dir, address)


def resume(
    run: RunArgument,
    hold: Hold = "operator",
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    address: Address = None,
) -> None:
    """Lift a hold that `pause` placed."""
    _steer(lambda client: client.resume(run, hold=hold), as_json, data_dir, address)


def _steer(
    ask: Callable[[Client], Awaitable[Run]],
    as_json: bool,
    data_dir: Path | None,
    address: str | None,
) -> None:
    answered = with_client(ask, data_dir=data_dir, address=address)
    if as_json:
        printing.print_json(answered)
    else:
        held = answered.holds and not answered.state.ended
        holds = f" (holds: {_holds_text(answered)})" if held else ""
        printing.out.print(f"{answered.run_id} {printing.state(answered.state)}{escape(holds)}")


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
    stream = sys.stdin.buffer if file == "-" else None
    if stream is not None:
        return stream.read(bytes_max + 1)
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
            ("why", escape(_failure_text(run.failure) or run.end_reason)),
            ("holds", escape(_holds_text(run))),
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
    cause = _failure_text(run.failure) or run.end_reason
    return f"{run.run_id} {run.state}" + (f": {cause}" if cause else "")


def _holds_text(run: Run) -> str:
    return ", ".join(f"{hold}: {why}" if why else hold for hold, why in run.holds.items())


def _failure_text(failure: Failure | None) -> str:
    if failure is None:
        return ""
    where = f" in {failure.task}" if failure.task else ""
    return f"{failure.reason}{where}: {failure.message}"


def _task_row(task: Task) -> tuple[str, ...]:
    why = wait_text(task) or _failure_text(task.failure)
    return (
        escape(task.name),
        printing.state(task.state),
        str(task.attempt) if task.attempt else "",
        str(task.epoch) if task.epoch else "",
        escape(task.worker_id),
        printing.span(task.lease_time, task.end_time),
        escape(why[:120]),
    )
