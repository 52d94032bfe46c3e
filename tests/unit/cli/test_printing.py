"""What people read: nothing is cut to the width of a terminal, and every complaint says enough."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.console import Console
from rich.text import Text
from stretto_cli import printing
from stretto_cli.progress import RunProgress, wait_text, why_text
from stretto_cli.run_filter import TASK_STATES, filter_of
from stretto_cli.run_view import print_output, print_task
from stretto_core.errors import InvalidArgument
from stretto_core.ids import RunId
from stretto_sdk.runs import Failure, Run, RunState, Task, TaskState

RUN_ID = "p0-01a1fcde9e997ae76f7cb5dfdec3dc3f"
WHY = "a rather long story"


def test_a_narrow_output_cuts_no_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    printing.print_table(
        ("RUN", "STATE", "WHY"),
        [
            (RUN_ID, printing.state("SUCCEEDED"), ""),
            (RUN_ID, "FAILED", "two mistakes:\n  argv: is required"),
        ],
    )
    assert capsys.readouterr().out.splitlines() == [
        "RUN                                  STATE      WHY",
        f"{RUN_ID}  SUCCEEDED",
        f"{RUN_ID}  FAILED     two mistakes: argv: is required",
    ]


def test_pairs_keep_the_lines_of_a_value_and_leave_empty_ones_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    printing.print_pairs([("run", RUN_ID), ("name", ""), ("why", "two mistakes:\n  argv: is bad")])
    assert capsys.readouterr().out.splitlines() == [
        f"run  {RUN_ID}",
        "why  two mistakes:",
        "       argv: is bad",
    ]


def test_every_state_of_a_task_can_be_asked_for() -> None:
    assert set(TASK_STATES) == set(TaskState) - {TaskState.UNKNOWN}


def test_a_reader_that_went_away_is_no_failed_run() -> None:
    # Rich would leave with status 1, which says that the run did not succeed.
    with pytest.raises(BrokenPipeError):
        printing.out.on_broken_pipe()


def test_what_is_piped_is_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    written = "a\tb\r\x0c:smile: [bold]\x1b[31mred\x07"
    printing.print_line(written)
    assert capsys.readouterr().out == f"{written}\n"
    printing.print_json_line({"a": ":key: \t ü"})
    assert capsys.readouterr().out == '{"a": ":key: \\t ü"}\n'


@pytest.mark.parametrize("steering", ["\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "\r", "\x08"])
def test_what_others_wrote_does_not_steer_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steering: str
) -> None:
    monkeypatch.setattr(printing, "out", Console(force_terminal=True, no_color=True, emoji=False))
    hostile = f"a{steering}b"
    printing.print_table(("NAME", "WHY"), [(printing.escape(hostile), printing.escape(hostile))])
    printing.print_pairs([("why", printing.escape(hostile))])
    printing.print_line(hostile)
    printing.complain(hostile)
    captured = capsys.readouterr()
    assert steering not in captured.out + captured.err
    assert (captured.out + captured.err).count("a\ufffd") == 5
    printing.print_line("\x1b[31mred\x1b[0m")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\n"


def test_json_says_every_character_where_the_output_lacks_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = TextIOWrapper(BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", narrow)
    printing.print_json_line({"a": "ü…"})
    assert narrow.buffer.getvalue() == b'{"a": "\\u00fc\\u2026"}\n'


def test_a_text_is_written_as_it_is_and_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    for output, written in (("a\n", "a\n"), ("a", "a\n"), ("a\n\n", "a\n\n"), ("", "\n")):
        print_output(output)
        assert capsys.readouterr().out == written


def test_the_failure_of_an_earlier_try_is_not_taken_for_the_tasks() -> None:
    failure = Failure("EXIT_STATUS", "status 1", task="a")
    task = Task(name="a", state=TaskState.FAILED, executor="process", failure=failure)
    assert why_text(task) == "EXIT_STATUS: status 1"
    for state in (TaskState.SUCCEEDED, TaskState.RUNNING, TaskState.CANCELLED):
        assert why_text(replace(task, state=state)) == "after EXIT_STATUS: status 1"


def test_a_run_may_be_called_what_looks_like_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(printing, "err", console)
    run = Run(run_id=RunId(RUN_ID), namespace="default", state=RunState.RUNNING, version=1)
    with RunProgress(replace(run, name="a[/b]")):
        assert "a[/b]" in Text.from_ansi(console.file.getvalue()).plain  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "when", ["yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59-12:00"]
)
def test_an_instant_that_is_none_is_refused(when: str) -> None:
    with pytest.raises(InvalidArgument, match="--since"):
        filter_of(since=when)


def test_a_task_that_no_worker_takes_says_what_is_missing() -> None:
    task = Task(
        name="a", state=TaskState.READY, executor="proces", queue="mine", wait_reason="NO_WORKER"
    )
    assert wait_text(task) == 'NO_WORKER: none serves executor "proces" in queue "mine"'


def test_on_a_terminal_the_last_column_gives_way_and_the_first_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for width, why in ((80, WHY), (60, "a rather long …"), (40, WHY)):
        console = Console(file=StringIO(), force_terminal=True, width=width, soft_wrap=True)
        monkeypatch.setattr(printing, "out", console)
        printing.print_table(("RUN", "STATE", "WHY"), [(RUN_ID, "FAILED", WHY)])
        written = Text.from_ansi(console.file.getvalue()).plain  # type: ignore[attr-defined]
        assert RUN_ID in written
        assert why in written


def test_a_function_that_raised_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    raised = "Traceback (most recent call last):\n  in [f]\nValueError: no"
    failure = Failure("VALUE_ERROR", "no", task="a", details={"traceback": raised})
    print_task(RUN_ID, Task(name="a", state=TaskState.FAILED, executor="python", failure=failure))
    told = capsys.readouterr().out
    assert told.endswith(f"executor  python\n{raised}\n")
    assert f"run       {RUN_ID}" in told
