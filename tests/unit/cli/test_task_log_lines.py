"""Lines of task logs for people."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from stretto_cli.task_log_commands import RawLog
from stretto_cli.task_log_lines import TaskLogLines
from stretto_sdk.task_log import LogEntry, LogStream


def entry(
    content: bytes, *, task: str = "build", attempt: int = 1, activation: int = 1
) -> LogEntry:
    return LogEntry(
        task=task,
        activation=activation,
        attempt=attempt,
        stream=LogStream.STDOUT,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        content=content,
        dropped_bytes=0,
        truncated=False,
        missing_count=0,
        cursor="",
    )


def lines() -> TaskLogLines:
    return TaskLogLines(timestamps=False, coloured=False)


def test_a_line_is_shown_once_it_is_whole() -> None:
    shown = lines()
    assert shown.add(entry(b"one\ntw")) == "build | one\n"
    assert shown.add(entry(b"o\n")) == "build | two\n"
    assert shown.add(entry(b"no end")) == "" and shown.rest() == "build | no end\n"


def test_tries_after_the_first_are_told_apart() -> None:
    shown = lines()
    assert shown.add(entry(b"x\n")) == "build | x\n"
    assert shown.add(entry(b"x\n", attempt=2)) == "build#2 | x\n"
    assert lines().add(entry(b"x\n", activation=2)) == "build#2.1 | x\n"


def test_the_tries_of_one_task_part_on_standard_error(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    raw = RawLog(attempt=1)
    for content, attempt in ((b"a\n", 1), (b"b\n", 1), (b"c\n", 2), (b"d\n", 2)):
        raw.write(entry(content, attempt=attempt))
    raw.write(entry(b"e", activation=2))
    written = capfdbinary.readouterr()
    assert written.out == b"a\nb\nc\nd\ne"
    assert written.err == b"[build#2]\n[build#2.1]\n"
    RawLog(attempt=2).write(entry(b"asked for\n", attempt=2))
    assert capfdbinary.readouterr().err == b""


def test_what_a_task_wrote_does_not_take_the_terminal_over() -> None:
    assert "\x1b[2J" not in lines().add(entry(b"\x1b[2Jx\n"))
