"""Options that choose runs or tasks, and the filter that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument

from stretto_cli.moments import instant_of

OPEN_STATES = ("PENDING", "PLANNING", "RUNNING", "PAUSED", "CANCELLING")
STATES = (*OPEN_STATES, "SUCCEEDED", "FAILED", "CANCELLED", "KILLED")


TASK_STATES = (
    "PENDING",
    "READY",
    "RUNNING",
    "VERIFYING",
    "WAITING",
    "SUCCEEDED",
    "FAILED",
    "CANCELLED",
    "SKIPPED",
)


def _complete_state(incomplete: str) -> list[str]:
    return [each for each in STATES if each.startswith(incomplete.upper())]


def _complete_task_state(incomplete: str) -> list[str]:
    return [each for each in TASK_STATES if each.startswith(incomplete.upper())]


States = Annotated[
    str | None,
    typer.Option(
        metavar="STATE",
        help=f"Only runs in this state: {', '.join(STATES)}.",
        show_default=False,
        autocompletion=_complete_state,
    ),
]
TaskStates = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help=f"Only tasks in this state: {', '.join(TASK_STATES)}.",
        show_default=False,
        autocompletion=_complete_task_state,
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

Since = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help='Only runs created since then: so long ago, like "1d", or 2026-01-31T08:00:00Z.',
        show_default=False,
    ),
]


def filter_of(
    *,
    states: str | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    since: str | None = None,
) -> str:
    """Return the filter, "" for none. Raises InvalidArgument naming the option."""
    terms = []
    if states:
        terms.append(f"state = {_known_state(states, STATES)}")
    for label in labels or ():
        key, equals, value = label.partition("=")
        if not equals:
            raise InvalidArgument(f"--label {label}: is KEY=VALUE")
        terms.append(f"labels.{key} = {_quoted(value)}")
    if name:
        terms.append(f"display_name = {_quoted(name)}")
    if since:
        terms.append(f"create_time >= {_quoted(_instant(since))}")
    return " AND ".join(terms)


def _instant(when: str) -> str:
    forms = 'is a span like "90m" or "1d", or an instant like 2026-01-31T08:00:00Z'
    return instant_of(when, "--since", forms).isoformat().replace("+00:00", "Z")


def task_filter_of(*, state: str | None, queue: str | None) -> str:
    """Return the filter of tasks, "" for none. Raises InvalidArgument naming the option."""
    terms = []
    if state:
        terms.append(f"state = {_known_state(state, TASK_STATES)}")
    if queue:
        terms.append(f"queue = {_quoted(queue)}")
    return " AND ".join(terms)


def artifact_filter_of(*, task: str | None, name: str | None = None) -> str:
    """Return the filter of artifacts, "" for none."""
    wanted = {"task": task, "name": name}
    return " AND ".join(f"{field} = {_quoted(text)}" for field, text in wanted.items() if text)


def _known_state(asked: str, states: Sequence[str]) -> str:
    if asked.upper() in states:
        return asked.upper()
    near = get_close_matches(asked.upper(), states, n=1)
    hint = f", did you mean {near[0]}?" if near else f"; they are {', '.join(states)}"
    raise InvalidArgument(f"--state {asked}: no such state{hint}")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
