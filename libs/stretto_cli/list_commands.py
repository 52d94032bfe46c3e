"""Commands that list: runs, tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from stretto_sdk.client_pages import PAGE_SIZE_MAX, RunsPage, TasksPage
from stretto_sdk.runs import Run, Task

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.moments import AsOf, moment_of
from stretto_cli.options import All, AsJson, Limit, PageToken, RunArgument
from stretto_cli.progress import why_text
from stretto_cli.run_filter import (
    Labels,
    Name,
    Since,
    States,
    TaskStates,
    filter_of,
    task_filter_of,
)
from stretto_cli.run_reference import find_run
from stretto_cli.run_view import run_json

if TYPE_CHECKING:
    from stretto_sdk.client import Client


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, runs, tasks)


def runs(
    suite: Suite,
    state: States = None,
    label: Labels = None,
    name: Name = None,
    since: Since = None,
    limit: Limit = 20,
    everything: All = False,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

        stretto runs --state FAILED --since 1d --label team=search
        stretto runs --all --json | jq -r '.runs[].run_id'

    The list trails the record by moments; `stretto get RUN` never does.

    --json: {"runs": [...], "next_page_token": "..."}; a run is as `stretto get --json` gives it,
    without input and output.
    """
    where = filter_of(states=state, labels=label, name=name, since=since)

    async def read(client: Client) -> RunsPage:
        size = PAGE_SIZE_MAX if everything else limit
        page = await client.pages.runs(where, page_size=size, page_token=page_token)
        found = list(page.runs)
        while everything and page.next_page_token:
            page = await client.pages.runs(where, page_size=size, page_token=page.next_page_token)
            found.extend(page.runs)
        return RunsPage(found, page.next_page_token)

    page = suite.ask(read)
    if as_json:
        shown = [run_json(each) for each in page.runs]
        printing.print_json({"runs": shown, "next_page_token": page.next_page_token})
        return
    if not page.runs:
        asked = suite.settings.namespace
        inside = "" if asked.origin == "default" else f" in the namespace {asked.value}"
        printing.note(
            f"no runs{inside}" + (" that match" if where else " yet: `stretto run FILE` starts one")
        )
        return
    printing.print_table(("RUN", "STATE", "TASKS", "CREATED", "NAME"), map(_run_row, page.runs))
    printing.note_more(page.next_page_token)


def tasks(
    suite: Suite,
    run: RunArgument,
    state: TaskStates = None,
    queue: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only tasks of this queue.", show_default=False),
    ] = None,
    as_of: AsOf = None,
    limit: Limit = 1_000,
    everything: All = False,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List the tasks of a run in the order they came to be.

        stretto tasks last
        stretto tasks last --state FAILED
        stretto tasks last --as-of 10m
        stretto tasks last --all --json | jq '.tasks[] | select(.attempt > 1)'

    --state and --queue ask a view that trails the record by moments. With --as-of the tasks are as
    they were; nothing is executed for that.

    --json: {"tasks": [...], "next_page_token": "..."}.
    """

    where, moment = task_filter_of(state=state, queue=queue), moment_of(as_of, "--as-of")

    async def read(client: Client) -> TasksPage:
        found_run = await find_run(client, run)
        if everything:
            return TasksPage(await client.tasks(found_run, where, as_of=moment), "")
        return await client.pages.tasks(
            found_run, where, as_of=moment, page_size=limit, page_token=page_token
        )

    page = suite.ask(read)
    if as_json:
        printing.print_json(page)
        return
    if not page.tasks:
        printing.note("no tasks" + (" that match" if where else ""))
        return
    printing.print_table(
        ("TASK", "STATE", "ATTEMPT", "EPOCH", "WORKER", "TOOK", "WHY"), map(_task_row, page.tasks)
    )
    printing.note_more(page.next_page_token)


def _run_row(run: Run) -> tuple[str, ...]:
    return (
        run.run_id,
        printing.state(run.state),
        f"{run.tasks.ended}/{run.tasks.total}",
        printing.age(run.create_time),
        printing.escape(run.name),
    )


def _task_row(task: Task) -> tuple[str, ...]:
    return (
        printing.escape(task.name),
        printing.state(task.state),
        str(task.attempt) if task.attempt else "",
        str(task.epoch) if task.epoch else "",
        printing.escape(task.worker_id),
        printing.span(task.lease_time, task.end_time),
        printing.escape(why_text(task)),
    )
