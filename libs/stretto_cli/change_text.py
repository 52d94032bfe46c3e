"""What facts of a run changed, as the command writes it: steps of a replay, and diffs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from stretto_sdk.runs import Event, Failure, Task, TaskCounts

from stretto_cli import printing
from stretto_cli.event_line import print_fact
from stretto_cli.progress import why_text

if TYPE_CHECKING:
    from stretto_sdk.blackboard import BoardEntry
    from stretto_sdk.board_diffs import BoardDiff
    from stretto_sdk.client_history import FieldChange, ReplayStep, RunDiff, TaskDiff

EVENTS_LISTED_MAX = 50
TASKS_LISTED_MAX = 20
VALUE_CHARACTERS_SHOWN = 40


def step_json(step: ReplayStep) -> dict[str, object]:
    """Return a step for programs."""
    event = printing.plain(step.event)
    assert isinstance(event, dict)
    event.pop("cursor")
    run = step.run
    about = None
    if run is not None:
        shown = {
            "state": str(run.state),
            "holds": run.holds,
            "failure": run.failure,
            "end_reason": run.end_reason,
        }
        about = printing.plain(shown)
    return {**event, "tasks": printing.plain(step.tasks), "run": about}


def print_step(step: ReplayStep) -> None:
    """Write a fact, and below it what it changed."""
    print_event(step.event)
    for text in _changed(step):
        printing.out.print(f"        {text}")


def print_event(event: Event, why: str = "") -> None:
    """Write a fact on one line: when, version, who, what, why."""
    print_fact(event, ("version", "principal"), why)


def _changed(step: ReplayStep) -> list[str]:
    lines = []
    if step.run is not None:
        why = printing.failure_text(step.run.failure) or step.run.end_reason
        holds = printing.holds_text(step.run.holds)
        rest = printing.escape("; ".join(filter(None, (holds, why))))
        lines.append(f"run {printing.state(step.run.state)} {rest}".rstrip())
    lines += [_task_line(task) for task in step.tasks[:TASKS_LISTED_MAX]]
    if more := step.tasks[TASKS_LISTED_MAX:]:
        counts = Counter(str(task.state) for task in more)
        named = ", ".join(f"{count} {state}" for state, count in counts.items())
        lines.append(f"[dim]and {len(more)} more tasks: {named}[/]")
    return lines


def _task_line(task: Task) -> str:
    held = f" attempt {task.attempt} on {task.worker_id}" if task.state == "RUNNING" else ""
    why = why_text(task)
    rest = printing.escape(held + (f" {' '.join(why.split())}" if why else ""))
    return f"{printing.escape(task.name)} {printing.state(task.state)}{rest}"


def diff_json(diff: RunDiff) -> dict[str, object]:
    """Return a diff for programs."""
    plain = printing.plain(diff)
    assert isinstance(plain, dict)
    return {
        "run_id": diff.after.run_id,
        "from": diff.before.version,
        "to": diff.after.version,
        "run": plain["changes"],
        "tasks": plain["tasks"],
        "attempts": plain["attempts"],
        "board": plain["board"],
        "events": plain["events"],
    }


def print_diff(diff: RunDiff) -> None:
    """Write what lies between two moments for people."""
    before, after = diff.before, diff.after
    printing.out.print(
        f"[dim]run[/]  {after.run_id}  [dim]version[/] {before.version} → {after.version}"
        f"  [dim]{printing.instant(before.update_time)} → {printing.instant(after.update_time)}[/]"
    )
    if not diff.events:
        printing.note("nothing changed")
        return
    for change in diff.changes:
        was, now = _value_text(change.before), _value_text(change.after)
        printing.out.print(f"[dim]{change.name}[/]  {was} → {now}")
    if diff.tasks:
        printing.out.print()
        printing.print_table(("TASK", "STATE", "BY", "ALSO"), map(_task_row, diff.tasks))
    if diff.board:
        printing.out.print()
        printing.print_table(("ENTRY", "VALUE", "BY"), map(_entry_row, diff.board))
    printing.out.print()
    listed = diff.events[:EVENTS_LISTED_MAX]
    for event in listed:
        print_event(event)
    if len(diff.events) > len(listed):
        printing.note(
            f"and {len(diff.events) - len(listed)} more facts: stretto history {after.run_id} "
            f"--since {listed[-1].version}"
        )


def _task_row(diff: TaskDiff) -> tuple[str, ...]:
    was = printing.state(diff.before.state) if diff.before is not None else "[dim]new[/]"
    state = (
        was
        if diff.before and diff.before.state == diff.after.state
        else (f"{was} → {printing.state(diff.after.state)}")
    )
    rest = [change for change in diff.changes if change.name not in ("state", "result")]
    return (
        printing.escape(diff.task),
        state,
        _versions_text(diff.versions),
        ", ".join(map(_change_text, rest)),
    )


def _entry_row(diff: BoardDiff) -> tuple[str, ...]:
    was, now = _entry_text(diff.before, "new"), _entry_text(diff.after, "deleted")
    return printing.escape(diff.key), f"{was} → {now}", _versions_text(diff.versions)


def _entry_text(entry: BoardEntry | None, absent: str) -> str:
    if entry is None:
        return f"[dim]{absent}[/]"
    text = json.dumps(printing.plain(entry.value), ensure_ascii=False)
    cut = text if len(text) <= VALUE_CHARACTERS_SHOWN else f"{text[: VALUE_CHARACTERS_SHOWN - 1]}…"
    return printing.escape(cut)


def _versions_text(versions: tuple[int, ...]) -> str:
    if len(versions) <= 4:
        return ",".join(map(str, versions))
    return f"{versions[0]},…,{versions[-1]}"


def _change_text(change: FieldChange) -> str:
    if isinstance(change.after, datetime) or isinstance(change.before, datetime):
        return printing.escape(change.name)
    return f"{change.name} {_value_text(change.before)} → {_value_text(change.after)}"


def _value_text(value: object) -> str:
    if value in (None, "", (), {}):
        return "[dim]none[/]"
    if isinstance(value, TaskCounts):
        counts = printing.plain(value)
        assert isinstance(counts, dict)
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if isinstance(value, datetime):
        return printing.instant(value)
    if isinstance(value, Failure):
        value = printing.failure_text(value)
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(printing.plain(value), ensure_ascii=False)
    text = " ".join(str(value).split())
    return printing.escape(text if len(text) <= 80 else f"{text[:79]}…")
