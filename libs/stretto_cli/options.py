"""Options that several commands share, and how a command reaches the suite."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from stretto_core.errors import InvalidArgument, Unavailable
from stretto_core.localstack.data_directory import default_data_directory
from stretto_sdk.client import Client
from stretto_sdk.durations import parse_duration_ns
from stretto_sdk.endpoint import NoEndpoint

from stretto_cli.suite.directory import SuiteDirectory

Answer = TypeVar("Answer")

DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="D",
        help="Where the suite keeps its data. Default: $STRETTO_DATA_DIR, else "
        "~/.local/state/stretto (root: /var/lib/stretto).",
        show_default=False,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="A suite elsewhere; the token comes from $STRETTO_TOKEN. Default: $STRETTO_ADDRESS, "
        "else the suite of the data directory.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]

RETRY_BUDGET = timedelta(seconds=15)
"""How long a command waits for a suite that is restarting before it calls it unreachable."""


def suite_directory(data_dir: Path | None) -> SuiteDirectory:
    """Return the data directory asked for, else the default one."""
    return SuiteDirectory((data_dir or default_data_directory(os.environ)).absolute())


def with_client(
    use: Callable[[Client], Awaitable[Answer]], *, data_dir: Path | None, address: str | None
) -> Answer:
    """Return what `use(client)` returns; the client is closed after it.

    Raises NoEndpoint at once when the suite of the data directory does not run, Unavailable with
    the address when it does not answer.
    """
    elsewhere = address or os.environ.get("STRETTO_ADDRESS")
    directory = suite_directory(data_dir)
    if not elsewhere and directory.running() is None:
        raise NoEndpoint(
            f"no suite runs in {directory.root}: start one with `stretto up`, or name one "
            "with --data-dir or --address",
            data_directory=str(directory.root),
        )

    async def connected() -> Answer:
        async with Client(
            address, data_directory=directory.root, retry_budget=RETRY_BUDGET
        ) as client:
            return await use(client)

    try:
        return asyncio.run(connected())
    except Unavailable as error:
        at = elsewhere or directory.address()
        raise Unavailable(f"no suite answers at {at}: {error.message}", address=at or "") from None


def span_option(text: str | None, option: str) -> timedelta | None:
    """Return a span of time given as text. Raises InvalidArgument naming the option."""
    if text is None:
        return None
    try:
        return timedelta(microseconds=parse_duration_ns(text) / 1_000)
    except ValueError as error:
        raise InvalidArgument(f"{option}: {error}") from None
