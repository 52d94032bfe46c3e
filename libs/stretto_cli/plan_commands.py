"""Commands on plans: validate, render, plan-schema."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import InvalidArgument, Unimplemented
from stretto_sdk.drawings.dot import dot
from stretto_sdk.drawings.drawing import Drawing, drawing_of_plan, drawing_of_run
from stretto_sdk.drawings.mermaid import mermaid
from stretto_sdk.plan_files.mistakes import PlanMistake, PlanRefused
from stretto_sdk.plan_schema import plan_schema_text

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.completion import complete_run
from stretto_cli.connection import Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson
from stretto_cli.output_file import Output, write_file
from stretto_cli.plan_argument import PlanFile, Root, Settings, plan_of
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.client import Client

PLAN_ENDINGS = (".yaml", ".yml", ".json")


class Format(StrEnum):
    """How a drawing is written."""

    MERMAID = "mermaid"
    DOT = "dot"


WRITERS = {Format.MERMAID: mermaid, Format.DOT: dot}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, validate, render, plan_schema)


def validate(
    suite: Suite,
    file: PlanFile,
    settings: Settings = None,
    root: Root = None,
    server: Annotated[
        bool,
        typer.Option("--server", help="Ask a suite too: its limits, and what it does not serve."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a plan FILE is a plan, or everything that is wrong in it.

        stretto validate plan.yaml
        stretto validate plan.yaml --set size=10 --server --json

    Every mistake is named at once, sorted by place: file, line, column, field, and what to do.
    Without --server no suite is needed. Nothing is started or stored.

    --json: {"valid": ..., "task_count": ..., "mistakes": [{"file", "line", "column", "field",
    "description"}]}; line 0 where no line is meant.

    Exit status: 0 it is a plan, 2 it is not, 3 --server and no suite answers.
    """
    try:
        form = plan_of(file, settings, root)
        if server:
            suite.ask(lambda client: client.validate(form))
    except (InvalidArgument, Unimplemented) as refused:
        if not as_json:
            raise
        mistakes = (
            refused.mistakes
            if isinstance(refused, PlanRefused)
            else [PlanMistake("", 0, 0, "", refused.message)]
        )
        printing.print_json({"valid": False, "task_count": 0, "mistakes": list(mistakes)})
        raise typer.Exit(ExitStatus.USAGE) from None
    count = len(form.graph.tasks)
    if as_json:
        printing.print_json({"valid": True, "task_count": count, "mistakes": []})
    else:
        tasks = "1 task" if count == 1 else f"{count} tasks"
        printing.note(f"{form.source} is a plan of {tasks}")


def render(
    suite: Suite,
    drawn: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RUN",
            help="A plan file (- is stdin), or a run: its id, an end of it, or `last`.",
            autocompletion=complete_run,
        ),
    ],
    written: Annotated[Format, typer.Option("--format", help="How it is written.")] = (
        Format.MERMAID
    ),
    output: Output = None,
    settings: Settings = None,
    root: Root = None,
) -> None:
    """Draw a plan or a run as a Mermaid or Graphviz graph.

        stretto render plan.yaml
        stretto render last --format dot | dot -Tsvg > run.svg
        stretto render plan.yaml -o plan.mmd

    Of a run, colours are the states of its tasks, and what was spawned lies in a frame below its
    spawner. Thick arrows wait for a whole subtree, dotted ones lead to what was spawned; clean-up
    tasks are round. A large graph is drawn with tasks alike in one box.
    """
    drawing = _drawing(suite, drawn, settings, root)
    text = WRITERS[written](drawing)
    for note in drawing.notes:
        printing.note(note)
    if output is None:
        printing.print_line(text.removesuffix("\n"))
    else:
        write_file(output, text)


def plan_schema(output: Output = None) -> None:
    """Print the JSON Schema of plan files, for editors.

    Many editors take it from the first line of a YAML file:

        # yaml-language-server: $schema=plan.schema.json
    """
    if output is None:
        printing.print_line(plan_schema_text().removesuffix("\n"))
    else:
        write_file(output, plan_schema_text())


def _drawing(suite: Suite, drawn: str, settings: list[str] | None, root: Path | None) -> Drawing:
    if drawn == "-" or Path(drawn).suffix in PLAN_ENDINGS or Path(drawn).is_file():
        form = plan_of(drawn, settings, root)
        return drawing_of_plan(form.name, form.graph.tasks)

    async def read(client: Client) -> Drawing:
        run = await client.get(await find_run(client, drawn))
        tasks = await client.tasks(run)
        return drawing_of_run(f"{run.name or run.run_id} {run.state}", tasks)

    return suite.ask(read)
