"""Options that choose runs, and the filter that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_sdk.durations import parse_duration_ns

OPEN_STATES = ("PENDING", "PLANNING", "RUNNING", "PAUSED", "CANCELLING")
STATES = (*OPEN_STATES, "SUCCEEDED", "FAILED", "CANCELLED", "KILLED")


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
        terms.append(f"state = {_known_state(states)}")
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
    with suppress(ValueError):
        ago = timedelta(microseconds=parse_duration_ns(when) / 1_000)
        return (datetime.now(tz=UTC) - ago).isoformat().replace("+00:00", "Z")
    try:
        # Without an offset it is this machine's time, as a person means it.
        asked = datetime.fromisoformat(when).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f'--since {when}: is a span like "90m" or "1d", or an instant like 2026-01-31T08:00:00Z'
        ) from None
    return asked.isoformat().replace("+00:00", "Z")


def _known_state(asked: str) -> str:
    if asked.upper() in STATES:
        return asked.upper()
    near = get_close_matches(asked.upper(), STATES, n=1)
    hint = f", did you mean {near[0]}?" if near else f"; they are {', '.join(STATES)}"
    raise InvalidArgument(f"--state {asked}: no such state{hint}")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
