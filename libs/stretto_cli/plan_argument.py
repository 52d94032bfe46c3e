"""How a command takes a plan: FILE or stdin, its parameters, and where it includes from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_sdk.plan_files.read import read_plan_file, read_plan_text
from stretto_sdk.plan_files.text import PLAN_BYTES_MAX
from stretto_sdk.plan_form import RunForm

PlanFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A plan file, YAML or JSON; - reads it from stdin.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="The value of a parameter that the plan declares; may be given again for another.",
        show_default=False,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="What the plan includes must lie in DIR. Default: the directory of FILE.",
        show_default=False,
    ),
]


def plan_of(file: str, settings: Sequence[str] | None, root: Path | None) -> RunForm:
    """Return the run that FILE describes. Raises InvalidArgument with every mistake."""
    parameters = _parameters(settings or ())
    if file != "-":
        return read_plan_file(Path(file), parameters=parameters, root=root)
    return read_plan_text(
        sys.stdin.buffer.read(PLAN_BYTES_MAX + 1),
        source="standard input",
        parameters=parameters,
        directory=root,
    )


def _parameters(settings: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"--set {setting}: must be NAME=VALUE, like --set size=10")
        if name in found:
            raise InvalidArgument(f"--set {name}: is given twice")
        found[name] = value
    return found
