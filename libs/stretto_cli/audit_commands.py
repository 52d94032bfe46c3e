"""Commands for auditors: export, proof."""

from __future__ import annotations

import base64
import re
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from stretto_core.errors import InvalidArgument

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson
from stretto_cli.output_file import Output, replacing
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.client_audit import ExportPart, Proof

_STREAM = re.compile(r"p\d+-[a-z]+")
"""A stream that is no run, like `p0-queues`."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, export, proof)


def export(
    suite: Suite,
    since: Annotated[
        str,
        typer.Option(
            metavar="CURSOR",
            help="Go on where an earlier export ended: the cursor that it printed.",
            show_default=False,
        ),
    ] = "",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write the record to a file that proves itself: `stretto-verify` checks it anywhere.

        stretto export -o monday.export
        stretto-verify monday.export --key $(stretto status --json | jq -r .seal.public_key)
        stretto export --since CURSOR -o tuesday.export
        stretto-verify tuesday.export --seal SEAL_OF_MONDAY
        stretto export --namespace acme -o acme.export

    What is recorded and not sealed yet is sealed first; the file ends with that seal. It is written
    to standard output if no file is named, and progress to standard error. An export that broke
    off is none: with -o the file appears when it is whole. With --namespace, said here and not in
    the environment, only events of that namespace are given, of all others their hashes.

    --json: with -o: {"event_count", "after_position", "position", "seal_hash", "cursor"}.
    """
    if as_json and output is None:
        raise InvalidArgument("the file goes to standard output: give -o FILE to have --json there")
    _refuse_terminal(to_file=output is not None)
    namespace = suite.settings.namespace_asked or None

    async def write(client: Client) -> ExportPart:
        if output is None:
            return await _export(client, sys.stdout.buffer, since, namespace)
        with replacing(output) as file:
            return await _export(client, file, since, namespace)

    last = suite.ask(write)
    if as_json:
        printing.print_json(
            {
                "event_count": last.event_count,
                "after_position": last.after_position,
                "position": last.end_position,
                "seal_hash": last.seal_hash,
                "cursor": last.cursor,
            }
        )
        return
    printing.note(f"{last.event_count:,} events, to position {last.end_position:,}")
    printing.note(f"seal:   {last.seal_hash}")
    printing.note(f"cursor: {last.cursor}")


async def _export(client: Client, file: BinaryIO, since: str, namespace: str | None) -> ExportPart:
    last: ExportPart | None = None
    with _progress() as bar:
        task = bar.add_task("exporting", total=None)
        async with aclosing(client.export(since=since, namespace=namespace)) as parts:
            async for part in parts:
                file.write(part.content)
                done = part.position - part.after_position
                bar.update(task, completed=done, total=part.end_position - part.after_position)
                last = part
    file.flush()
    assert last is not None, "a file has a beginning and an end"
    return last


def proof(
    suite: Suite,
    event: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN VERSION | POSITION",
            help="An event: its run (or a stream like p0-queues) and version, or its position.",
            show_default=False,
        ),
    ],
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write the proof that one event lies in the log under a seal.

        stretto proof last 1 -o started.proof
        stretto-verify started.proof --key $(stretto status --json | jq -r .seal.public_key)

    An event that is not sealed yet is sealed first. The proof holds the event and the way from its
    hash to the signed seal, and nothing of other events but hashes.

    --json: {"stream", "version", "type", "position", "seal_position", "public_key", "proof"}; the
    last is the file in Base64.
    """
    version = _number(event[-1])
    if len(event) not in (1, 2) or version is None:
        raise InvalidArgument("name an event as RUN VERSION, or by its POSITION in the log")
    if not as_json:
        _refuse_terminal(to_file=output is not None)

    async def read(client: Client) -> Proof:
        if len(event) == 1:
            return await client.proof(position=version)
        name = event[0]
        stream = name if _STREAM.fullmatch(name) else await find_run(client, name)
        return await client.proof(stream, version)

    found = suite.ask(read)
    if output is not None:
        with replacing(output) as file:
            file.write(found.content)
    if as_json:
        shown = {
            "stream": found.stream,
            "version": found.version,
            "type": found.type,
            "position": found.position,
            "seal_position": found.seal_position,
            "public_key": found.public_key,
            "proof": base64.b64encode(found.content).decode(),
        }
        printing.print_json(shown)
        return
    if output is None:
        sys.stdout.buffer.write(found.content)
        sys.stdout.buffer.flush()
    kind = found.type.rpartition(".")[2]
    printing.note(f"{found.stream} version {found.version}: {kind}, at position {found.position:,}")


def _refuse_terminal(*, to_file: bool) -> None:
    if not to_file and sys.stdout.isatty():
        raise InvalidArgument("the file is no text: write it with -o FILE, or redirect it")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 63 else None


def _progress() -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=printing.err,
        transient=True,
        disable=not printing.err.is_terminal,
    )
