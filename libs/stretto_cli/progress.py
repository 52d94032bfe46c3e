"""How far a run is: a live bar on a terminal, nothing elsewhere; always on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from stretto_sdk.runs import Run, RunChange

from stretto_cli import printing


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
        self._bar = self._progress.add_task(
            run.name or run.run_id, total=run.tasks.total or None, state=str(run.state)
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
        run = change.run
        self._progress.update(
            self._bar, total=run.tasks.total, completed=run.tasks.ended, state=str(run.state)
        )

    def leave(self, remark: str) -> None:
        """End the bar with a remark."""
        self._progress.stop()
        printing.note(remark)
