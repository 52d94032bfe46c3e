"""Options and arguments that several commands share, and what they mean."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from stretto_core.errors import InvalidArgument

from stretto_cli.completion import complete_run

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run: its id, the beginning or the end of it, or `last` for the newest.",
        autocompletion=complete_run,
    ),
]
Limit = Annotated[int, typer.Option(help="At most so many.", min=1, max=1_000, metavar="N")]
All = Annotated[bool, typer.Option("--all", help="Page after page, to the end.")]
PageToken = Annotated[
    str,
    typer.Option(
        metavar="TOKEN", help="Go on where a page ended: its next_page_token.", show_default=False
    ),
]
Reason = Annotated[
    str, typer.Option(help="Why, for the record.", metavar="TEXT", show_default=False)
]


def one_of_two(on: bool, off: bool, names: str) -> bool | None:
    """Return which of two opposite flags was given; None = neither.

    names: both, for a person. Raises InvalidArgument for both: which was meant nobody knows.
    """
    if on and off:
        raise InvalidArgument(f"{names}: give one of them")
    return on if on or off else None


def span_option(text: str | None, option: str) -> timedelta | None:
    """Return a span of time given as text. Raises InvalidArgument naming the option."""
    from stretto_sdk.durations import parse_duration_ns  # noqa: PLC0415 - brings protobuf

    if text is None:
        return None
    try:
        return timedelta(microseconds=parse_duration_ns(text) / 1_000)
    except ValueError as error:
        raise InvalidArgument(f"{option}: {error}") from None
