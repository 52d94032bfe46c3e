"""What people read: nothing is cut to the width of a terminal, and every complaint says enough."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text
from stretto_cli import printing
from stretto_cli.progress import wait_text
from stretto_sdk.runs import Task, TaskState

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


def test_a_reader_that_went_away_is_no_failed_run() -> None:
    # Rich would leave with status 1, which says that the run did not succeed.
    with pytest.raises(BrokenPipeError):
        printing.out.on_broken_pipe()


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
