"""Commands that turn workflows of other systems into plan files: import wfformat, github-jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_sdk.imports import Imported
from stretto_sdk.imports.document import read_document
from stretto_sdk.imports.github_jobs import plan_of_github_jobs
from stretto_sdk.imports.wfformat import plan_of_wfformat
from stretto_sdk.strict_json import to_json

from stretto_cli import printing
from stretto_cli.command_form import add_command
from stretto_cli.output_file import Output, write_file

Document = Annotated[
    Path, typer.Argument(metavar="FILE", help="The JSON document, gzipped or not.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    imports = typer.Typer(
        name="import",
        no_args_is_help=True,
        help="Turn a workflow of another system into a plan file whose tasks sleep.",
    )
    add_command(imports, wfformat, "wfformat")
    add_command(imports, github_jobs, "github-jobs")
    app.add_typer(imports)


def wfformat(
    file: Document,
    time_scale: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Sleep X times the recorded runtime: 1 = as long as it took, 0.001 = a second "
            "for every 17 minutes, 0 = not at all.",
        ),
    ] = 1.0,
    output: Output = None,
) -> None:
    """Make a plan of a recorded scientific workflow (WfCommons WfFormat 1.5 or 1.6).

    Each task becomes one that sleeps for its recorded runtime and comes after its parents; files,
    machines and commands are left out. Replay a trace a thousand times faster:

        stretto import wfformat montage.json --time-scale 0.001 -o plan.json
        stretto run plan.json

    or without a file in between:

        stretto import wfformat montage.json.gz --time-scale 0 | stretto run -
    """
    document = _read(file)
    _write(plan_of_wfformat(document, time_scale=time_scale, source=str(file)), output)


def github_jobs(
    file: Document,
    step_seconds: Annotated[
        float, typer.Option(metavar="X", help="How long each step of a job sleeps.")
    ] = 0.0,
    output: Output = None,
) -> None:
    """Make a plan of a job graph of GitHub Actions.

    Each job becomes a task, each combination of its matrix one of its own. FILE holds the jobs as
    JSON: {"name": ..., "jobs": {"ID": {"needs": [...], "if": ..., "matrix": {...}, "fail_fast":
    ..., "timeout_minutes": ..., "continue_on_error": ..., "steps": 3}}}.
    What only GitHub can know (most conditions, computed matrices) is told on standard error.

        stretto import github-jobs ci.jobs.json --step-seconds 0.1 | stretto run -
    """
    document = _read(file)
    _write(plan_of_github_jobs(document, step_s=step_seconds, source=str(file)), output)


def _read(file: Path) -> object:
    try:
        return read_document(file)
    except OSError as error:
        raise InvalidArgument(f"{file}: {error.strerror}") from None


def _write(imported: Imported, output: Path | None) -> None:
    for remark in imported.remarks:
        printing.note(remark)
    text = _plan_text(imported)
    if output is None:
        printing.print_line(text)
        return
    write_file(output, f"{text}\n")


def _plan_text(imported: Imported) -> str:
    """Return the plan with a task on each line: readable, and a fraction of an indented one."""
    members = []
    for name, value in imported.plan.items():
        text = to_json(value, source=name)
        if name == "tasks" and isinstance(value, list):
            lines = ",\n    ".join(to_json(each, source="a task") for each in value)
            text = f"[\n    {lines}\n  ]"
        members.append(f"  {to_json(name, source='a name')}: {text}")
    return "{\n" + ",\n".join(members) + "\n}"
