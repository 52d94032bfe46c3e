"""What a watch shows of a run: the urgent before the rest, in as many lines as there are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from stretto_cli.run_board import RunBoard
from stretto_cli.run_screen import middle_cut, screen, task_line
from stretto_core.ids import RunId
from stretto_sdk.runs import Failure, Run, RunChange, RunState, Task, TaskCounts, TaskState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(
    run_id=RunId("p0-01a1fcde9e997ae76f7cb5dfdec3dc3f"),
    namespace="default",
    state=RunState.RUNNING,
    version=1,
    name="nightly",
    tasks=TaskCounts(total=5_000, succeeded=4_000, failed=1),
    create_time=NOW - timedelta(seconds=75),
)


def task(name: str, state: TaskState = TaskState.SUCCEEDED, **more: object) -> Task:
    return replace(Task(name=name, state=state, executor="sleep"), **more)  # type: ignore[arg-type]


def board_of(*tasks: Task) -> RunBoard:
    board = RunBoard()
    board.take(change(*tasks))
    return board


def change(*tasks: Task) -> RunChange:
    return RunChange(run=RUN, tasks=tasks, ended=False)


def drawn(board: RunBoard, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height)
    with console.capture() as capture:
        console.print(screen(board, now=NOW, width=width, height=height))
    return capture.get().splitlines()


def test_a_large_run_fits_and_shows_what_runs_failed_and_waits() -> None:
    board = board_of(
        *(task(f"done-{number}") for number in range(4_000)),
        *(task(f"run-{number}", TaskState.RUNNING, lease_time=NOW) for number in range(60)),
        *(task(f"later-{number}", TaskState.PENDING) for number in range(938)),
        task("broken", TaskState.FAILED, attempt=3, failure=Failure("EXIT_STATUS", "status 1")),
        task("soon", TaskState.WAITING, wait_reason="BACKOFF",
             not_before_time=NOW + timedelta(seconds=3)),
    )  # fmt: skip
    for width, height in ((80, 24), (200, 50), (40, 10)):
        lines = drawn(board, width, height)
        assert len(lines) < height
        assert all(len(line) <= width for line in lines)
        text = "\n".join(lines)
        assert "broken" in text
        assert "soon" in text
        assert "run-0" in text
        assert "done-0" not in text
    assert "attempt 3  EXIT_STATUS: status 1" in "\n".join(drawn(board))
    assert "again in 3.0s" in "\n".join(drawn(board))
    assert "938 pending · 4,000 succeeded" in drawn(board)[-1]
    assert "1m15s" in drawn(board)[0]


def test_a_small_run_is_a_tree_in_the_order_it_came_to_be() -> None:
    board = board_of(
        task("split"),
        task("split/1", TaskState.RUNNING, spawner="split", lease_time=NOW - timedelta(seconds=5)),
        task("join", TaskState.PENDING, dependencies=("split", "split/1", "split/2")),
        task("split/2", TaskState.READY, spawner="split", wait_reason="NO_WORKER", queue="gpu"),
    )
    lines = [line.rstrip() for line in drawn(board)[2:]]
    assert [line.split()[1] for line in lines] == ["split", "├─", "└─", "join"]
    assert "5.0s" in lines[1]
    assert "NO_WORKER" in lines[2]
    assert lines[3].endswith("after split/1, split/2")


def test_a_change_costs_what_changed_and_a_resumed_watch_tells_nothing_twice() -> None:
    board = board_of(task("a", TaskState.RUNNING), task("b", TaskState.PENDING))
    known = (task("a", TaskState.RUNNING), task("b", TaskState.PENDING))
    assert board.take(change(*known)) == []
    ended = task("a", TaskState.SUCCEEDED)
    assert board.take(change(known[1], ended)) == [ended]
    assert (board.count(TaskState.RUNNING), board.count(TaskState.SUCCEEDED)) == (0, 1)


def test_a_line_begins_with_when_it_became_so_however_late_the_watch_came() -> None:
    later = replace(RUN, update_time=NOW)
    began, end = NOW - timedelta(hours=30, seconds=5), NOW - timedelta(hours=30)
    tasks = (
        task("a", lease_time=began, end_time=end, attempt=1),
        task("b", TaskState.RUNNING, lease_time=began, worker_id="w", attempt=2),
        task("c", TaskState.READY, ready_time=end),
        task("d", TaskState.WAITING, wait_reason="BACKOFF",
             not_before_time=NOW + timedelta(seconds=3)),
    )  # fmt: skip
    board = RunBoard()
    board.take(RunChange(run=later, tasks=tasks, ended=False))
    assert [task_line(board, each) for each in tasks] == [
        "2025-12-30 18:00:00.000Z  a  SUCCEEDED  5.0s  attempt 1",
        "2025-12-30 17:59:55.000Z  b  RUNNING  attempt 2  w",
        "2025-12-30 18:00:00.000Z  c  READY",
        "2026-01-01 00:00:00.000Z  d  WAITING  again in 3.0s",
    ]


@pytest.mark.parametrize(("text", "cut"), [("abcdef", "abcdef"), ("abcdefgh", "ab…fgh")])
def test_a_long_name_keeps_both_ends(text: str, cut: str) -> None:
    assert middle_cut(text, 6) == cut


def test_what_a_task_says_does_not_steer_the_terminal() -> None:
    failure = Failure("EXIT_STATUS", "\x1b[2Jgone\x07")
    board = board_of(task("broken", TaskState.FAILED, attempt=1, failure=failure))
    assert any("EXIT_STATUS: \ufffd[2Jgone" in line for line in drawn(board))
