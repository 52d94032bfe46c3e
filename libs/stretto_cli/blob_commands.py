"""Commands on what tasks leave behind: artifacts, cat."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from stretto_core.errors import InvalidArgument, NotFound
from stretto_sdk.runs import Artifact

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson, RunArgument
from stretto_cli.output_file import Output, replacing
from stretto_cli.run_reference import find_run

if TYPE_CHECKING:
    from stretto_sdk.client import Client

LOOKED_AT_BYTES = 8_192
_DIGEST = re.compile(r"(sha256:)?([0-9a-fA-F]{64})")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, artifacts, cat)


def artifacts(
    suite: Suite,
    run: RunArgument,
    task: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="Only of this task.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the files that the tasks of a run left behind.

        stretto artifacts last
        stretto artifacts last --task report --json | jq -r '.artifacts[].sha256'

    --json: {"artifacts": [{"task", "name", "sha256", "size_bytes", "content_type"}]}.
    """

    async def read(client: Client) -> list[tuple[str, Artifact]]:
        tasks = await client.tasks(await find_run(client, run))
        if task is not None and not any(each.name == task for each in tasks):
            raise NotFound(f"the run has no task {task!r}; `stretto tasks` lists them")
        return [
            (each.name, artifact)
            for each in tasks
            if task in (None, each.name)
            for artifact in each.artifacts
        ]

    found = suite.ask(read)
    if as_json:
        shown = []
        for name, artifact in found:
            plain = printing.plain(artifact)
            assert isinstance(plain, dict)
            shown.append({"task": name, **plain})
        printing.print_json({"artifacts": shown})
    elif not found:
        printing.note("no artifacts")
    else:
        printing.print_table(
            ("TASK", "ARTIFACT", "BYTES", "TYPE", "SHA-256"),
            (
                (
                    printing.escape(name),
                    printing.escape(artifact.name),
                    str(artifact.size_bytes),
                    printing.escape(artifact.content_type),
                    artifact.sha256,
                )
                for name, artifact in found
            ),
        )


def cat(
    suite: Suite,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN TASK ARTIFACT | DIGEST",
            help="An artifact of a task of a run, or the SHA-256 of any blob.",
            show_default=False,
        ),
    ],
    output: Output = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write bytes that are no text to a terminal, too.")
    ] = False,
) -> None:
    """Write an artifact, or any blob by its digest, as it is.

        stretto cat last report summary.txt
        stretto cat last render frame.png -o frame.png

    The bytes are streamed, never held whole, and checked against their digest.
    """
    if len(what) not in (1, 3):
        raise InvalidArgument("name an artifact as RUN TASK ARTIFACT, or a blob by its DIGEST")
    if len(what) == 1 and not _DIGEST.fullmatch(what[0]):
        raise InvalidArgument(f"{what[0]!r} is no SHA-256: 64 hexadecimal digits")

    async def write(client: Client) -> None:
        digest = await _digest_of(client, what)
        async with aclosing(client.read_blob(digest)) as parts:
            if output is not None:
                with replacing(output) as file:
                    await _write(file, parts, refuses_bytes=False)
            else:
                await _write(sys.stdout.buffer, parts, refuses_bytes=not force)

    suite.ask(write)


async def _digest_of(client: Client, what: list[str]) -> str:
    if len(what) == 1:
        return what[0].lower().removeprefix("sha256:")
    run, task_name, artifact_name = what
    for task in await client.tasks(await find_run(client, run)):
        if task.name != task_name:
            continue
        for artifact in task.artifacts:
            if artifact.name == artifact_name:
                return artifact.sha256
        known = ", ".join(artifact.name for artifact in task.artifacts) or "none"
        raise NotFound(f"task {task_name!r} has no artifact {artifact_name!r}; it has: {known}")
    raise NotFound(f"the run has no task {task_name!r}; `stretto tasks` lists them")


async def _write(stream: BinaryIO, parts: AsyncIterator[bytes], *, refuses_bytes: bool) -> None:
    first = True
    async for part in parts:
        if first and refuses_bytes and stream.isatty() and _is_binary(part):
            raise InvalidArgument("these bytes are no text: write them with -o FILE, or --force")
        first = False
        stream.write(part)
    stream.flush()


def _is_binary(part: bytes) -> bool:
    head = part[:LOOKED_AT_BYTES]
    if b"\0" in head:
        return True
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start < len(head) - 4  # A character may be cut at the end.
    return False
