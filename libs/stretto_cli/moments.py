"""How a person names a moment: a version of a run, so long ago, an instant, a log position."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import InvalidArgument
from stretto_sdk.durations import parse_duration_ns
from stretto_sdk.runs import Position

if TYPE_CHECKING:
    from stretto_sdk.moments import Moment

FORMS = (
    'a version (7), so long ago ("10m"), an instant (2026-01-31T08:00:00Z), '
    "or a position of the log (p0:1234)"
)
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="WHEN", help=f"As it was then: {FORMS}.", show_default=False),
]
_POSITION = re.compile(r"(p[0-9]{1,4}):([0-9]{1,19})")
_VERSION = re.compile(r"[0-9]{1,18}")


def moment_of(text: str | None, option: str) -> Moment | None:
    """Return the moment that an option names. Raises InvalidArgument naming the option."""
    if text is None:
        return None
    if _VERSION.fullmatch(text):
        return int(text)
    if place := _POSITION.fullmatch(text):
        return Position(partition=place[1], number=int(place[2]))
    return instant_of(text, option, f"no moment: give {FORMS}")


def instant_of(when: str, option: str, forms: str) -> datetime:
    """Return the instant, or the one so long ago. Raises InvalidArgument naming the option."""
    with suppress(ValueError, OverflowError):
        ago = timedelta(microseconds=parse_duration_ns(when) / 1_000)
        return datetime.now(tz=UTC) - ago
    try:
        # Without an offset it is this machine's time, as a person means it.
        return datetime.fromisoformat(when).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"{option} {when}: {forms}") from None
