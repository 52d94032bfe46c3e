"""Commands on one run: run, retry, get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import DeadlineExceeded, InvalidArgument, NotFound
from stretto_sdk.plan_form import RunForm
from stretto_sdk.runs import Run, RunState, Task, TaskState

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.completion import complete_task
from stretto_cli.connection import Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.moments import AsOf, moment_of
from stretto_cli.options import AsJson, RunArgument, span_option
from stretto_cli.plan_argument import PlanFile, Root, Settings, plan_of
from stretto_cli.progress import RunProgress, why_text
from stretto_cli.run_input import input_given, labels_given
from stretto_cli.run_reference import find_run
from stretto_cli.run_view import ending, print_output, print_run, print_task, run_json

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.moments import Moment

OneTask = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK",
        help="A task of it.",
        show_default=False,
        autocompletion=complete_task,
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="JSON|@FILE|-",
        help="The run's input, in place of the file's own.",
        show_default=False,
    ),
]
NewLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="A label, over those of the file; may be repeated.",
        show_default=False,
    ),
]
NewName = Annotated[
    str, typer.Option("--name", metavar="TEXT", help="What to call it.", show_default=False)
]
Wait = Annotated[bool, typer.Option(help="Wait for the end, or only print the id.")]
Timeout = Annotated[
    str | None,
    typer.Option(metavar="SPAN", help='Wait at most so long, like "10m".', show_default=False),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What to start and how long to wait; timeout None: to the end."""

    form: RunForm
    input: object
    name: str
    labels: dict[str, str]
    wait: bool
    timeout: timedelta | None


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, run, retry, get)


def run(
    suite: Suite,
    file: PlanFile,
    given_input: Input = None,
    settings: Settings = None,
    root: Root = None,
    label: NewLabels = None,
    name: NewName = "",
    wait: Wait = True,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Start the run that a plan FILE describes, wait for its end, print its output.

        stretto run plan.json --input '{"who": "world"}'
        stretto run plan.yaml --input @input.json --set who=you
        python plan.py | stretto run - --name nightly --label a=b --no-wait

    The smallest plan file:

        tasks:
          - name: hello
            executor: process
            arguments: {argv: [echo, hello], output: text}
        output: {from: task, task: hello}

    With `parameters: {who: {default: world}}` in it, --set who=you replaces ${params.who}.

    --json: one object, the run as `stretto get --json` gives it: run_id, state, output,
    task_counts, failure and more.

    Exit status: 0 it succeeded (or was started, with --no-wait), 1 it did not succeed, 2 the plan
    or an option is wrong, 3 no suite answers or --timeout passed first; the run itself goes on.
    """
    if file == given_input == "-":
        raise InvalidArgument("FILE and --input cannot both be standard input")
    form = plan_of(file, settings, root)
    value = form.input if given_input is None else input_given(given_input)
    start = _Start(
        form=form,
        input=value,
        name=name,
        labels=labels_given(label or ()),
        wait=wait,
        timeout=span_option(timeout, "--timeout"),
    )
    _tell_end(suite.ask(lambda client: _run(client, start)), wait, as_json)


def retry(
    suite: Suite,
    run: RunArgument,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Only this task, and what was skipped or waited for it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Re-open a run that ended without success; finished tasks stay finished.

        stretto retry last
        stretto retry 3dc3f --task upload --no-wait

    What failed or was cancelled has its attempts anew, and what was skipped for its sake waits
    again; clean-up tasks run again at the new end. Holds stay: `resume` lifts them.

    --json: as of `run`.

    Exit status: as of `run`; 2 when nothing of it can be retried.
    """
    limit = span_option(timeout, "--timeout")

    async def retried(client: Client) -> Run:
        opened = await client.retry(await find_run(client, run), tasks=tasks or ())
        return await _to_end(client, opened, limit) if wait else opened

    _tell_end(suite.ask(retried), wait, as_json)


def get(
    suite: Suite,
    run: RunArgument,
    task: OneTask = None,
    output: Annotated[bool, typer.Option("--output", help="Print only the output.")] = False,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Show one run: where it stands, how far its tasks are, its output or failure.

        stretto get last
        stretto get last --as-of 10m
        stretto get 3dc3f --output | jq .report
        stretto get last upload

    With --as-of it shows the run, or the TASK, as it was: nothing is executed for that.

    With a TASK it shows that: what it waits for or why it failed, where and when it ran, its
    result. Of a Python function that raised it also shows where.

    --json: run_id, state, namespace, version, name, labels, input, output, failure {reason,
    message, retryable, task, details}, end_reason, holds, creator, create_time, update_time,
    end_time, growing, task_counts {total, pending, ready, running, waiting, verifying, succeeded,
    failed, cancelled, skipped}. An input or output over 64 KiB is {sha256, size_bytes,
    content_type}: --output prints it whole, `stretto cat` by its digest.

    Of a task, --json is as `stretto tasks --json` gives it.

    Exit status: 0, but with --output 1 when the run or the task has not succeeded.
    """
    moment = moment_of(as_of, "--as-of")
    if task is not None:
        _get_task(suite, run, task, moment, output=output, as_json=as_json)
        return

    async def read(client: Client) -> Run:
        found = await client.get(await find_run(client, run), as_of=moment)
        return replace(found, output=await client.fetch(found.output)) if output else found

    found = suite.ask(read)
    if output and found.state is not RunState.SUCCEEDED:
        printing.complain(f"no output: {ending(found)}")
        raise typer.Exit(ExitStatus.FAILED)
    if output:
        (printing.print_json if as_json else print_output)(found.output)
    elif as_json:
        printing.print_json(run_json(found))
    else:
        print_run(found)
        if found.tasks.ready and not found.tasks.running and not found.holds and moment is None:
            printing.note(
                f"nothing of it runs: `stretto tasks {run}` says what each task waits for"
            )


def _get_task(
    suite: Suite, run: str, name: str, moment: Moment | None, *, output: bool, as_json: bool
) -> None:
    async def read(client: Client) -> tuple[str, Task]:
        run_id = await find_run(client, run)
        for task in await client.tasks(run_id, as_of=moment):
            if task.name == name:
                result = await client.fetch(task.result) if output else task.result
                return run_id, replace(task, result=result)
        raise NotFound(f"the run has no task {name!r}; `stretto tasks` lists them")

    run_id, task = suite.ask(read)
    if output and task.state is not TaskState.SUCCEEDED:
        why = why_text(task)
        printing.complain(f"no output: {task.name} {task.state}" + (f": {why}" if why else ""))
        raise typer.Exit(ExitStatus.FAILED)
    if output:
        (printing.print_json if as_json else print_output)(task.result)
    elif as_json:
        printing.print_json(task)
    else:
        print_task(run_id, task)


async def _run(client: Client, start: _Start) -> Run:
    started = await client.start(
        start.form, input=start.input, name=start.name, labels=start.labels
    )
    return await _to_end(client, started, start.timeout) if start.wait else started


async def _to_end(client: Client, started: Run, timeout: timedelta | None) -> Run:
    follow = f"the run goes on; follow it with: stretto watch {started.run_id}"
    with RunProgress(started) as progress:
        try:
            async with progress.telling_what_waits(client):
                ended = await client.wait(started, timeout=timeout, on_change=progress.show)
                return replace(ended, output=await client.fetch(ended.output))
        except DeadlineExceeded:
            progress.leave(f"not ended in the time given; {follow}")
            return await client.get(started)
        except BaseException:
            progress.leave(follow)
            raise


def _tell_end(run: Run, waited: bool, as_json: bool) -> None:
    if as_json:
        printing.print_json(run_json(run))
    elif run.state is RunState.SUCCEEDED:
        print_output(run.output)
    elif not run.state.ended:
        printing.print_line(run.run_id)
    else:
        printing.complain(ending(run))
    if not run.state.ended:
        raise typer.Exit(ExitStatus.UNREACHABLE if waited else ExitStatus.SUCCESS)
    if run.state is not RunState.SUCCEEDED:
        raise typer.Exit(ExitStatus.FAILED)
