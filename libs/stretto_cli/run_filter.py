"""Options that choose runs, and the filter that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument

STATES = (
    "PENDING", "PLANNING", "RUNNING", "PAUSED", "CANCELLING",
    "SUCCEEDED", "FAILED", "CANCELLED", "KILLED",
)  # fmt: skip


def _complete_state(incomplete: str) -> list[str]:
    return [each for each in STATES if each.startswith(incomplete.upper())]


States = Annotated[
    str | None,
    typer.Option(
        metavar="STATE",
        help=f"Only runs in this state: {', '.join(STATES)}.",
        show_default=False,
        autocompletion=_complete_state,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="Only runs with this label; may be repeated.", show_default=False
    ),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only runs of this name.", show_default=False)
]


def filter_of(*, states: str | None, labels: Sequence[str] | None, name: str | None) -> str:
    """Return the filter, "" for none. Raises InvalidArgument naming the option."""
    terms = []
    if states:
        terms.append(f"state = {_known_state(states)}")
    for label in labels or ():
        key, equals, value = label.partition("=")
        if not equals:
            raise InvalidArgument(f"--label {label}: is KEY=VALUE")
        terms.append(f"labels.{key} = {_quoted(value)}")
    if name:
        terms.append(f"display_name = {_quoted(name)}")
    return " AND ".join(terms)


def _known_state(asked: str) -> str:
    if asked.upper() in STATES:
        return asked.upper()
    near = get_close_matches(asked.upper(), STATES, n=1)
    hint = f", did you mean {near[0]}?" if near else f"; they are {', '.join(STATES)}"
    raise InvalidArgument(f"--state {asked}: no such state{hint}")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
