"""How far a run is: a live bar on a terminal, and what it waits for; always on standard error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from stretto_sdk.client import Client
from stretto_sdk.errors import Refusal
from stretto_sdk.runs import Run, RunChange, Task, TaskState

from stretto_cli import printing

STILL_S = 3.0
"""So long nothing runs before a person is told of tasks that no worker takes."""


def wait_text(task: Task) -> str:
    """Return why a ready task is not running yet, "" when that is not known."""
    if task.wait_reason != "NO_WORKER":
        return task.wait_reason
    return f'NO_WORKER: none serves executor "{task.executor}" in queue "{task.queue}"'


def why_text(task: Task) -> str:
    """Return why a task stands where it does, "" when there is nothing to say.

    What it waits for, or why it failed; of any other, after which failure it was tried again.
    """
    waits = wait_text(task)
    if waits or task.failure is None:
        return waits
    told = f"{task.failure.reason}: {task.failure.message}"
    return told if task.state is TaskState.FAILED else f"after {told}"


class RunProgress:
    """The bar of one run; a context manager that cleans the line up when it ends."""

    def __init__(self, run: Run) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=printing.err,
            transient=True,
            disable=not printing.err.is_terminal,
        )
        self._run = run
        self._told: set[str] = set()
        self._bar = self._progress.add_task(
            printing.escape(run.name) or (run.run_id if printing.err.width >= 80 else "run"),
            total=run.tasks.total or None,
            state=str(run.state),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, change: RunChange) -> None:
        """Show the run as of a change."""
        run = self._run = change.run
        self._progress.update(
            self._bar, total=run.tasks.total, completed=run.tasks.ended, state=str(run.state)
        )

    @asynccontextmanager
    async def telling_what_waits(self, client: Client) -> AsyncIterator[None]:
        """While inside, tell once of each executor and queue that tasks wait for in vain."""
        telling = asyncio.create_task(self._tell(client))
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait([telling])

    async def _tell(self, client: Client) -> None:
        while True:
            await asyncio.sleep(STILL_S)
            counts = self._run.tasks
            if not counts.ready or counts.running:
                continue
            with suppress(Refusal):  # Whoever waits for the run hears of it.
                for task in await client.tasks(self._run):
                    said = wait_text(task)
                    if task.wait_reason == "NO_WORKER" and said not in self._told:
                        self._told.add(said)
                        printing.note(f"{task.name} waits, {said}")

    def leave(self, remark: str) -> None:
        """End the bar with a remark."""
        self._progress.stop()
        printing.note(remark)
