"""What a person reads of an event: the facts, without what only machines compare."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console
from stretto_cli import printing
from stretto_cli.event_line import facts_text, print_fact
from stretto_sdk.runs import Event, Position

RUN_ID = "p0-01a1fcde9e997ae76f7cb5dfdec3dc3f"
FACT = Event(
    stream=RUN_ID,
    version=12,
    type="stretto.run.v1.RunCancelRequested",
    time=datetime(2026, 1, 1, tzinfo=UTC),
    principal="operator",
    request_id="",
    position=Position(partition="p0", number=12),
    body={"reason": "x" * 300},
)


def written(monkeypatch: pytest.MonkeyPatch, width: int, *, terminal: bool) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, no_color=True,
                      color_system=None, soft_wrap=True)  # fmt: skip
    monkeypatch.setattr(printing, "out", console)
    print_fact(FACT, ("stream", "version", "principal"), "after 3")
    return file.getvalue().splitlines()


def test_a_terminal_shows_what_happened_however_narrow_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for width in (40, 80, 100, 200):
        lines = written(monkeypatch, width, terminal=True)
        assert all(len(line) <= width for line in lines)
        assert any("RunCancelRequested after 3" in line for line in lines)
        assert len(lines) == (1 if width == 200 else 2)


def test_a_pipe_gets_the_whole_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = written(monkeypatch, 40, terminal=False)
    assert line == (
        f"2026-01-01 00:00:00.000Z {RUN_ID}    12 operator     "
        f"RunCancelRequested after 3 reason={'x' * 300}"
    )


def test_facts_are_words_and_values() -> None:
    leased = {
        "task": "list/chunk-0001",
        "kind": "WORK_ITEM_KIND_TASK",
        "epoch": "2",
        "attempt": 1,
        "workerId": "worker-1",
        "sessionId": "01a1fd5c-f46c-73b2-bf04-88642d9a996d",
        "manifestDigest": "CaPrSsDpnmYXSL949HeU1cVMIxWN21z13JzeilWIrSc=",
    }
    assert facts_text(leased) == (
        "task=list/chunk-0001 kind=TASK epoch=2 attempt=1 worker_id=worker-1"
    )


def test_payloads_and_failures_stand_as_what_they_say() -> None:
    assert facts_text({"result": {"json": '{"a":1}'}}) == 'result={"a":1}'
    failure = {"reason": "EXIT_STATUS", "message": "sh: exit status 1:\n  no flag"}
    assert facts_text({"failure": failure}) == "failure=EXIT_STATUS: sh: exit status 1: no flag"
    assert facts_text({"result": {"shredded": {}}}) == "result=(shredded)"
    assert facts_text({"cause": "LOSS_CAUSE_PROCESS_GONE"}) == "cause=PROCESS_GONE"


def test_other_values_are_json() -> None:
    assert facts_text({"reason": "no need", "spawned": [{"name": "b"}]}) == (
        'reason="no need" spawned=[{"name": "b"}]'
    )
