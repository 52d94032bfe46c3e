"""One run or task as the command writes it: for people, and as stable JSON for programs.

The JSON of a run is what Run holds with `tasks` named `task_counts`; docs/command.md lists it.
Members are added, never renamed.
"""

from __future__ import annotations

import sys

from stretto_sdk.runs import Failure, Run, RunState, Task, TaskState
from stretto_sdk.shredded import SHREDDED

from stretto_cli import printing
from stretto_cli.progress import why_text


def run_json(run: Run) -> dict[str, object]:
    """Return a run for programs."""
    shape = printing.plain(run)
    assert isinstance(shape, dict)
    counts = shape.pop("tasks")
    shape.pop("position")
    return {"run_id": run.run_id, "state": str(run.state), **shape, "task_counts": counts}


def print_output(output: object) -> None:
    """Write a run's output: bytes as they are, text with an end of its line, the rest as JSON."""
    if isinstance(output, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    elif isinstance(output, str):
        printing.print_line(output.removesuffix("\n"))
    elif output is SHREDDED:
        printing.print_line(str(output))
    else:
        printing.print_json(output)


def print_run(run: Run) -> None:
    """Write a run for people."""
    counts = printing.plain(run.tasks)
    assert isinstance(counts, dict)
    printing.print_pairs(
        (
            ("run", run.run_id),
            ("name", printing.escape(run.name)),
            ("state", printing.state(run.state)),
            ("why", printing.escape(printing.failure_text(run.failure) or run.end_reason)),
            ("holds", printing.escape(printing.holds_text(run.holds))),
            ("tasks", ", ".join(f"{count} {name}" for name, count in counts.items() if count)),
            (
                "labels",
                printing.escape(", ".join(f"{key}={each}" for key, each in run.labels.items())),
            ),
            ("created", f"{printing.instant(run.create_time)} by {printing.escape(run.creator)}"),
            ("ended", printing.instant(run.end_time)),
            ("encrypted", "yes" if run.encrypted and run.shred_time is None else ""),
            ("shredded", _shredding(run)),
            ("took", printing.span(run.create_time, run.end_time)),
            ("version", str(run.version)),
        )
    )
    _print_details(run.failure)
    if run.state is RunState.SUCCEEDED and run.output is not None:
        printing.out.print("[dim]output[/]")
        print_output(run.output)


def _shredding(run: Run) -> str:
    if run.shred_time is None:
        return ""
    why = f": {printing.escape(run.shred_reason)}" if run.shred_reason else ""
    return f"{printing.instant(run.shred_time)}{why}"


def print_task(run_id: str, task: Task) -> None:
    """Write one task of a run for people."""
    after = (*task.dependencies, *(f"all below {each}" for each in task.subtree_dependencies))
    printing.print_pairs(
        (
            ("task", printing.escape(task.name)),
            ("run", run_id),
            ("state", printing.state(task.state)),
            ("why", printing.escape(why_text(task))),
            ("executor", printing.escape(task.executor)),
            ("queue", printing.escape(task.queue)),
            ("after", printing.escape(", ".join(after))),
            ("spawned by", printing.escape(task.spawner)),
            (
                "attempt",
                f"{task.attempt} on {printing.escape(task.worker_id)}" if task.attempt else "",
            ),
            ("ready", printing.instant(task.ready_time)),
            ("started", printing.instant(task.lease_time)),
            ("ended", printing.instant(task.end_time)),
            ("took", printing.span(task.lease_time, task.end_time)),
            ("artifacts", printing.escape(", ".join(each.name for each in task.artifacts))),
        )
    )
    if task.state is not TaskState.SUCCEEDED:
        _print_details(task.failure)
    elif task.result is not None:
        printing.out.print("[dim]result[/]")
        print_output(task.result)


def _print_details(failure: Failure | None) -> None:
    """Write what a failure has beyond its sentence: of a Python function, where it was raised."""
    if failure is None or failure.details is None:
        return
    traceback = failure.details.get("traceback") if isinstance(failure.details, dict) else None
    if isinstance(traceback, str):
        printing.print_line(traceback.rstrip())
    else:
        printing.out.print("[dim]details[/]")
        printing.print_json(failure.details)


def ending(run: Run) -> str:
    """Return how a run ended, with the cause, as one sentence."""
    cause = printing.failure_text(run.failure) or run.end_reason
    return f"{run.run_id} {run.state}" + (f": {cause}" if cause else "")
