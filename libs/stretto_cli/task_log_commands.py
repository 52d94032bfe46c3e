"""The command that shows what tasks wrote: logs."""

from __future__ import annotations

import base64
import sys
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import InvalidArgument

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.completion import complete_task
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson, RunArgument
from stretto_cli.run_reference import find_run
from stretto_cli.task_log_lines import TaskLogLines, tried_name

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.task_log import LogEntry

_RESTART_BUDGET = timedelta(seconds=60)
"""So long a reader waits for a kernel that is gone before it gives up."""

OptionalTask = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="Only this task; without it, all.",
        show_default=False,
        autocompletion=complete_task,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    add_commands(app, logs)


def logs(
    suite: Suite,
    run: RunArgument,
    task: OptionalTask = "",
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on with what comes, until the run (or the task) has ended."
        ),
    ] = False,
    tail: Annotated[
        int, typer.Option(metavar="N", help="Only the last N lines of each task; 0 = all.", min=0)
    ] = 0,
    attempt: Annotated[
        int, typer.Option(metavar="N", help="Of a task: only try N; 0 = every.", min=0)
    ] = 0,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Put before each line when it was read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what tasks wrote: standard output, standard error, and what they logged.

        stretto logs last
        stretto logs last -f --tail 20
        stretto logs last build > build.txt
        stretto logs last build --attempt 2 --timestamps

    Of one task the bytes are written as they were, its standard output to standard output, the rest
    to standard error, where it also says which try begins when there is more than the first. Of a
    whole run, or with --timestamps, each line has its task before it: build#2 is a second try,
    build#2.1 the first after the run was retried. Following goes on over a restart of the kernel;
    Ctrl-C ends it and not the run. What is lost, cut off or swept is said on standard error.

    --json: an object a line: task, activation, attempt, stream, time, text (or base64 for what is
    not UTF-8), dropped_bytes, truncated, missing_count, cursor.
    """
    if attempt and not task:
        raise InvalidArgument("--attempt is a try of one task: name the task")
    lines = TaskLogLines(timestamps=timestamps, coloured=printing.out.is_terminal)
    raw = RawLog(attempt or 1) if task and not timestamps else None

    async def read(client: Client) -> None:
        found = client.logs(
            await find_run(client, run), task, attempt=attempt, follow=follow, tail=tail
        )
        async with aclosing(found):
            async for entry in found:
                if as_json:
                    printing.print_json_line(_plain(entry))
                    continue
                if raw is not None:
                    raw.write(entry)
                else:
                    _write(lines.add(entry))
                _note_losses(entry)
        _write(lines.rest())

    suite.ask(read, retry_budget=_RESTART_BUDGET)


class RawLog:
    """Writes the bytes of one task as they were, and on standard error where its tries part.

    attempt: the one that is expected first, of which nothing is said.
    """

    def __init__(self, attempt: int) -> None:
        self._try = (1, attempt)

    def write(self, entry: LogEntry) -> None:
        """Write an entry, before the first of a try which one it is."""
        if self._try != (entry.activation, entry.attempt):
            self._try = (entry.activation, entry.attempt)
            printing.note(f"[{tried_name(entry)}]")
        written = sys.stdout.buffer if entry.stream == "stdout" else sys.stderr.buffer
        written.write(entry.content)
        written.flush()


def _write(text: str) -> None:
    if text:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def _note_losses(entry: LogEntry) -> None:
    if entry.missing_count:
        printing.note(f"[{entry.missing_count} entries before this were swept]")
    if entry.dropped_bytes:
        printing.note(f"[{entry.dropped_bytes} bytes of {entry.task} were lost here]")
    if entry.truncated:
        printing.note(f"[{entry.task} wrote more than is kept of attempt {entry.attempt}]")


def _plain(entry: LogEntry) -> dict[str, object]:
    try:
        content = {"text": entry.content.decode()}
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(entry.content).decode()}
    return {
        "task": entry.task,
        "activation": entry.activation,
        "attempt": entry.attempt,
        "stream": entry.stream.value,
        "time": printing.instant(entry.time),
        **content,
        "dropped_bytes": entry.dropped_bytes,
        "truncated": entry.truncated,
        "missing_count": entry.missing_count,
        "cursor": entry.cursor,
    }
