"""What people read: nothing is cut to the width of a terminal, and every complaint says enough."""

from __future__ import annotations

import pytest
from stretto_cli import printing
from stretto_cli.progress import wait_text
from stretto_sdk.runs import Task, TaskState

RUN_ID = "p0-01a1fcde9e997ae76f7cb5dfdec3dc3f"


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
