"""Commands on the blackboard of a run: board get, put, delete, list, watch."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from stretto_core.errors import InvalidArgument, NotFound

from stretto_cli import printing
from stretto_cli.command_form import add_command
from stretto_cli.connection import RESTART_BUDGET, Suite
from stretto_cli.moments import AsOf, moment_of
from stretto_cli.options import AsJson, RunArgument
from stretto_cli.run_input import input_given
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.blackboard import Blackboard, BoardEntry
    from stretto_sdk.client import Client

VALUE_CHARACTERS_SHOWN = 60

Key = Annotated[
    str, typer.Argument(metavar="KEY", help="NAMESPACE/PATH, or TASK:NAMESPACE/PATH of one task.")
]
Prefix = Annotated[
    str,
    typer.Argument(
        metavar="PREFIX", help="Only keys that begin so; without it, all.", show_default=False
    ),
]
Expected = Annotated[
    int | None,
    typer.Option(
        metavar="REVISION",
        help="Only if the entry has this revision; 0 = only if it is not there.",
        min=0,
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(
        name="board", no_args_is_help=True, help="Read and write the blackboard of a run."
    )
    add_command(group, get_entry, name="get")
    add_command(group, put_entry, name="put")
    add_command(group, delete_entries, name="delete")
    add_command(group, list_entries, name="list")
    add_command(group, watch_entries, name="watch")
    app.add_typer(group)


def get_entry(
    suite: Suite, run: RunArgument, key: Key, as_of: AsOf = None, as_json: AsJson = False
) -> None:
    """Print one value, as JSON.

        stretto board get last context/goal
        stretto board get last crawl/page-3:progress/percent --json | jq .revision

    What was acknowledged before is seen. A key that is not there is an error.

    --json: {"key", "value", "revision", "deleted", "write_time", "writer_kind", "writer", "task",
    "attempt", "epoch"}; bytes are hexadecimal text.
    """

    moment = moment_of(as_of, "--as-of")

    async def read(client: Client) -> BoardEntry | None:
        return await (await _board(client, run)).entry(key, as_of=moment)

    entry = suite.ask(read)
    if entry is None:
        raise NotFound(f"the blackboard has no {key}; `stretto board list {run}` shows what it has")
    if as_json:
        printing.print_json(entry)
    else:
        printing.print_line(_value_text(entry.value))


def put_entry(
    suite: Suite,
    run: RunArgument,
    key: Key,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="JSON, @FILE, or - for standard input.")
    ],
    expected: Expected = None,
    as_json: AsJson = False,
) -> None:
    """Write one value; it is recorded when this returns.

        stretto board put last human/hint '"look into the cellar"'
        stretto board put last context/goal @goal.json --expected 0

    Compare and set: with --expected the write is refused, with the current revision, when the entry
    is another. Keys of the namespace result are written so only. Safe to repeat.

    --json: {"key", "revision"}.
    """
    given = input_given(value, "VALUE")

    async def write(client: Client) -> int:
        return await (await _board(client, run)).put(key, given, expected=expected)

    revision = suite.ask(write)
    if as_json:
        printing.print_json({"key": key, "revision": revision})
    else:
        printing.note(f"{key}: revision {revision}")


def delete_entries(
    suite: Suite,
    run: RunArgument,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="What to delete.")],
    expected: Expected = None,
    as_json: AsJson = False,
) -> None:
    """Delete entries, all or nothing; those that are not there stay so.

        stretto board delete last human/hint
        stretto board delete last context/a context/b

    --json: {"keys", "revision"}; a revision of 0: none was there.
    """
    if expected is not None and len(keys) > 1:
        raise InvalidArgument("--expected: is of one entry: name one")

    async def delete(client: Client) -> int:
        return await (await _board(client, run)).delete(*keys, expected=expected)

    revision = suite.ask(delete)
    if as_json:
        printing.print_json({"keys": keys, "revision": revision})
    else:
        printing.note(f"deleted: revision {revision}" if revision else "nothing was there")


def list_entries(
    suite: Suite,
    run: RunArgument,
    prefix: Prefix = "",
    filter_text: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="FILTER",
            help='Like namespace = progress AND task = "build".',
            show_default=False,
        ),
    ] = "",
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """List entries by their keys: revision, who wrote each, when, and the value cut to fit.

        stretto board list last
        stretto board list last context/ --json | jq '.entries[].value'
        stretto board list last --filter 'namespace = progress' --as-of 10m

    --json: {"entries": [...]}, each as `stretto board get --json` has it.
    """

    moment = moment_of(as_of, "--as-of")

    async def read(client: Client) -> list[BoardEntry]:
        board = await _board(client, run)
        async with aclosing(board.list(prefix, filter=filter_text, as_of=moment)) as found:
            return [entry async for entry in found]

    found = suite.ask(read)
    if as_json:
        printing.print_json({"entries": found})
    elif found:
        printing.print_table(
            ("KEY", "REVISION", "WRITER", "WRITTEN", "VALUE"), (_row(entry) for entry in found)
        )
    else:
        printing.note("the blackboard has no such entries")


def watch_entries(
    suite: Suite,
    run: RunArgument,
    prefix: Prefix = "",
    after: Annotated[
        int | None,
        typer.Option(
            metavar="REVISION",
            help="Only changes after it; without it, what is there comes first.",
            min=0,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print each change of entries, in order, until the run ends; Ctrl-C ends only this.

        stretto board watch last
        stretto board watch last build:progress/ --json

    Goes on over a restart of the kernel; nothing is left out or told twice.

    --json: an object a line, as `stretto board get --json` has it; deleted: it is not there any
    more.
    """

    async def follow(client: Client) -> None:
        board = await _board(client, run)
        async with aclosing(board.watch(prefix, after=after)) as changes:
            async for entry in changes:
                if as_json:
                    printing.print_json_line(entry)
                else:
                    what = "deleted" if entry.deleted else _value_text(entry.value)
                    printing.print_line(f"{entry.revision}  {entry.key}  {what}")

    suite.ask(follow, retry_budget=RESTART_BUDGET)


async def _board(client: Client, run: str) -> Blackboard:
    return client.blackboard(await find_run(client, run))


def _value_text(value: object) -> str:
    return json.dumps(printing.plain(value), ensure_ascii=False)


def _row(entry: BoardEntry) -> tuple[str, ...]:
    text = _value_text(entry.value)
    if len(text) > VALUE_CHARACTERS_SHOWN:
        text = text[: VALUE_CHARACTERS_SHOWN - 1] + "…"
    return (
        escape(entry.key),
        str(entry.revision),
        escape(entry.writer),
        printing.age(entry.write_time),
        escape(text),
    )
