"""Commands on what tasks leave behind: artifacts, cat."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from stretto_core.errors import InvalidArgument, NotFound
from stretto_sdk.artifacts import TaskArtifact
from stretto_sdk.client_pages import ArtifactsPage

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.options import All, AsJson, Limit, PageToken, RunArgument
from stretto_cli.output_file import Output, replacing
from stretto_cli.run_filter import artifact_filter_of
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
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Only of this name.")
    ] = None,
    limit: Limit = 1_000,
    everything: All = False,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List the files that the tasks of a run left behind.

        stretto artifacts last
        stretto artifacts last --task report --json | jq -r '.artifacts[].sha256'
        stretto artifacts last --name report.txt --all

    By task and name; what was acknowledged before is in it.

    --json: {"artifacts": [{"name", "sha256", "size_bytes", "content_type", "task", "epoch",
    "version"}], "next_page_token": "..."}; epoch: of the attempt that left it; version: of the fact
    that says so.
    """
    where = artifact_filter_of(task=task, name=name)

    async def read(client: Client) -> ArtifactsPage:
        found_run = await find_run(client, run)
        if everything:
            async with aclosing(client.artifacts(found_run, where)) as all_of_them:
                page = ArtifactsPage([each async for each in all_of_them], "")
        else:
            page = await client.pages.artifacts(
                found_run, where, page_size=limit, page_token=page_token
            )
        if task is not None and not page.artifacts:
            await _require_task(client, found_run, task)
        return page

    page = suite.ask(read)
    if as_json:
        printing.print_json(page)
        return
    if not page.artifacts:
        printing.note("no artifacts" + (" that match" if where else ""))
        return
    columns = ("TASK", "ARTIFACT", "BYTES", "TYPE", "SHA-256")
    printing.print_table(columns, map(_artifact_row, page.artifacts))
    printing.note_more(page.next_page_token)


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
    run, task, name = what
    found_run = await find_run(client, run)
    where = artifact_filter_of(task=task, name=name)
    async with aclosing(client.artifacts(found_run, where)) as found:
        digests = [artifact.sha256 async for artifact in found]
    if digests:
        return digests[-1]  # Of its newest attempt.
    await _require_task(client, found_run, task)
    of_task = await client.pages.artifacts(found_run, artifact_filter_of(task=task))
    known = ", ".join(artifact.name for artifact in of_task.artifacts) or "none"
    raise NotFound(f"task {task!r} has no artifact {name!r}; it has: {known}")


async def _require_task(client: Client, run: str, task: str) -> None:
    if not any(each.name == task for each in await client.tasks(run)):
        raise NotFound(f"the run has no task {task!r}; `stretto tasks` lists them")


def _artifact_row(artifact: TaskArtifact) -> tuple[str, ...]:
    return (
        printing.escape(artifact.task),
        printing.escape(artifact.name),
        str(artifact.size_bytes),
        printing.escape(artifact.content_type),
        artifact.sha256,
    )


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
