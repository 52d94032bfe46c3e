"""Lines of task logs for people."""

from __future__ import annotations

from datetime import UTC, datetime

from stretto_cli.task_log_lines import TaskLogLines
from stretto_sdk.task_log import LogEntry, LogStream


def entry(content: bytes, *, task: str = "build", attempt: int = 1) -> LogEntry:
    return LogEntry(
        task=task,
        activation=1,
        attempt=attempt,
        stream=LogStream.STDOUT,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        content=content,
        dropped_bytes=0,
        truncated=False,
        missing_count=0,
        cursor="",
    )


def lines(with_task: bool = True) -> TaskLogLines:
    return TaskLogLines(with_task=with_task, timestamps=False, coloured=False)


def test_a_line_is_shown_once_it_is_whole() -> None:
    shown = lines()
    assert shown.add(entry(b"one\ntw")) == "build | one\n"
    assert shown.add(entry(b"o\n")) == "build | two\n"
    assert shown.add(entry(b"no end")) == "" and shown.rest() == "build | no end\n"


def test_tries_after_the_first_are_told_apart() -> None:
    shown = lines()
    assert shown.add(entry(b"x\n")) == "build | x\n"
    assert shown.add(entry(b"x\n", attempt=2)) == "build#2 | x\n"


def test_lines_of_one_task_stand_alone() -> None:
    assert lines(with_task=False).add(entry(b"x\n", attempt=2)) == "x\n"


def test_what_a_task_wrote_does_not_take_the_terminal_over() -> None:
    assert "\x1b[2J" not in lines().add(entry(b"\x1b[2Jx\n"))
