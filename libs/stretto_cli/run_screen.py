"""How a watched run looks on a terminal: a head, one line a task, and sums of what has no line.

Draws a RunBoard into so many lines and columns; costs the lines, never the tasks. A name that is
too long loses its middle: both ends of `spawner/child` tell tasks apart.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group
from rich.text import Text
from stretto_sdk.runs import Run, Task, TaskState

from stretto_cli import printing
from stretto_cli.progress import why_text
from stretto_cli.run_board import ENDED, URGENCY, RunBoard

_GLYPHS = {
    TaskState.RUNNING: ("●", "cyan"),
    TaskState.VERIFYING: ("●", "cyan"),
    TaskState.FAILED: ("✗", "red"),
    TaskState.WAITING: ("◌", "yellow"),
    TaskState.READY: ("○", "green"),
    TaskState.CANCELLED: ("⊘", "yellow"),
    TaskState.PENDING: ("·", "dim"),
    TaskState.SKIPPED: ("↷", "dim"),
    TaskState.SUCCEEDED: ("✓", "green"),
    TaskState.UNKNOWN: ("?", "yellow"),
}
_BAR_WIDTH = 24
_NAME_WIDTH_MAX = 48
_STATE_WIDTH = max(len(state) for state in TaskState)


def screen(board: RunBoard, *, now: datetime, width: int, height: int) -> Group:
    """Return the run as at most `height` lines of `width` columns."""
    run = board.run
    assert run is not None, "a watch begins with the run as it is"
    head = [*_head(run, now)]
    rows_max = max(1, height - len(head) - 3)  # Room for the sums and for what follows.
    if len(board.tasks) <= rows_max:
        rows = list(board.tree())
        sums = []
    else:
        rows = [("", task) for task in board.most_urgent(rows_max - 1)]
        sums = [_sums(board, rows)]
    name_width = min(
        _NAME_WIDTH_MAX,
        max((len(guide) + len(task.name) for guide, task in rows), default=0),
        max(8, width // 3),
    )
    lines = [
        *head,
        *(_row(board, guide, task, name_width=name_width, now=now) for guide, task in rows),
        *sums,
    ]
    for line in lines:
        line.plain = printing.harmless(line.plain)
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def task_line(board: RunBoard, task: Task) -> str:
    """Return a task as a line of plain text, for where nothing can be redrawn.

    It begins with when the task became what it is, however late the watch came.
    """
    since = _since(board, task)
    cells = (
        printing.instant(since),
        task.name,
        str(task.state),
        _took(task, since) if task.state in ENDED else "",
        _attempt(task),
        _detail(board, task, since),
    )
    return "  ".join(cell for cell in cells if cell)


def _since(board: RunBoard, task: Task) -> datetime:
    assert board.run is not None, "a watch begins with the run as it is"
    known = board.run.update_time or board.run.create_time
    assert known is not None, "of every run it is known when it was created"
    if task.state in ENDED:
        return task.end_time or known
    if task.state is TaskState.RUNNING:
        return task.lease_time or known
    return (task.ready_time if task.state is TaskState.READY else None) or known


def _head(run: Run, now: datetime) -> tuple[Text, Text]:
    counts = run.tasks
    done = round(_BAR_WIDTH * counts.ended / counts.total) if counts.total else 0
    took = printing.span_text(run.create_time, run.end_time or now)
    title = Text.assemble((run.name or "run", "bold"), f"  {run.run_id}  ")
    title.append_text(Text.from_markup(printing.state(run.state)))
    title.append(f"  {took}")
    if run.holds and not run.state.ended:
        title.append(f"  holds: {printing.holds_text(run.holds)}", "yellow")
    bar = Text.assemble(
        ("━" * done, "green" if not counts.failed else "red"),
        ("─" * (_BAR_WIDTH - done), "dim"),
        f"  {counts.ended:,} of {counts.total:,} tasks",
    )
    if counts.failed:
        bar.append(f"  {counts.failed:,} failed", "red")
    return title, bar


def _row(board: RunBoard, guide: str, task: Task, *, name_width: int, now: datetime) -> Text:
    glyph, style = _GLYPHS[task.state]
    name = guide + middle_cut(task.name, max(4, name_width - len(guide)))
    return Text.assemble(
        (f"{glyph} ", style),
        f"{name:<{name_width}}  ",
        (f"{task.state:<{_STATE_WIDTH}}", style),
        f"  {_took(task, now):>7}  ",
        (f"{_attempt(task)}  " if task.attempt > 1 else "", "yellow"),
        (_detail(board, task, now), "" if task.failure else "dim"),
    )


def _sums(board: RunBoard, rows: list[tuple[str, Task]]) -> Text:
    shown: dict[TaskState, int] = {}
    for _, task in rows:
        shown[task.state] = shown.get(task.state, 0) + 1
    line = Text("  and ", style="dim")
    parts = []
    for state in URGENCY:
        rest = board.count(state) - shown.get(state, 0)
        if rest:
            parts.append(Text(f"{rest:,} {state.lower()}", style=_GLYPHS[state][1]))
    return line.append_text(Text(" · ", style="dim").join(parts))


def _took(task: Task, now: datetime) -> str:
    if task.lease_time is None:
        return ""
    running = task.state in {TaskState.RUNNING, TaskState.VERIFYING}
    return printing.span_text(task.lease_time, now if running else task.end_time)


def _attempt(task: Task) -> str:
    return f"attempt {task.attempt}" if task.attempt else ""


def _detail(board: RunBoard, task: Task, now: datetime) -> str:
    if task.state is TaskState.RUNNING:
        return task.worker_id
    if task.wait_reason == "BACKOFF" and task.not_before_time is not None:
        again = f"again in {printing.span_text(now, task.not_before_time)}"
        return f"{again}, {_because(task)}" if task.failure else again
    if why := why_text(task):
        return " ".join(why.split())
    if task.state is TaskState.PENDING:
        names, more = board.awaited(task, 3)
        return f"after {', '.join(names)}{' and more' if more else ''}" if names else ""
    return ""


def _because(task: Task) -> str:
    if task.failure is None:
        return ""
    return f"{task.failure.reason}: {' '.join(task.failure.message.split())}"


def middle_cut(text: str, width: int) -> str:
    """Return a text of at most `width` characters: one that is longer loses its middle."""
    if len(text) <= width:
        return text
    ahead = (width - 1) // 2
    return f"{text[:ahead]}…{text[len(text) - (width - 1 - ahead) :]}"


def now_utc() -> datetime:
    """Return this machine's time, to which running tasks are measured."""
    return datetime.now(tz=UTC)
