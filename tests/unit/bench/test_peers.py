"""Peers beside ours: what a client of any system measures, and the table made of the rounds."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest

from tests.bench.peers.driving import measure
from tests.bench.peers.table import HEAD, table

ORDER = {"runs": 5, "outstanding": 2, "sequence": 3, "fan_tasks": 7, "chain_tasks": 4}


class Queue:
    """A system with nothing but a queue, in memory."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.seen: list[int] = []
        self.ran: list[int] = []

    async def submit(self, n: int) -> int:
        self.submitted.append(n)
        return n

    async def all_ended(self, submitted: Sequence[int]) -> None:
        self.seen = sorted(submitted)

    async def run(self, n: int) -> None:
        self.ran.append(n)


class Engine(Queue):
    """One that composes tasks too."""

    def __init__(self) -> None:
        super().__init__()
        self.composed: list[tuple[str, int]] = []

    async def fan(self, tasks: int) -> None:
        self.composed.append(("fan", tasks))

    async def chain(self, tasks: int) -> None:
        self.composed.append(("chain", tasks))


async def told_by(
    peer: Queue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, float]:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(ORDER) + "\n"))
    await measure(peer)
    told: dict[str, float] = json.loads(capsys.readouterr().out)
    return told


async def test_a_queue_is_measured_on_single_tasks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = Queue()
    told = await told_by(peer, monkeypatch, capsys)
    assert set(told) == {"tasks_per_s", "p50_ms", "p99_ms"}
    assert peer.seen == sorted(peer.submitted) == list(range(5)), "each once, and all were seen"
    assert peer.ran == list(range(3))


async def test_a_system_that_composes_tasks_is_measured_on_those_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = Engine()
    told = await told_by(peer, monkeypatch, capsys)
    assert set(told) == {"tasks_per_s", "p50_ms", "p99_ms", "wall_s", "ms_per_task"}
    assert peer.composed == [("fan", 7), ("chain", 4)]


def test_a_ratio_compares_the_same_rounds() -> None:
    slow_then_fast = [
        {"tasks_per_s": 100.0, "p50_ms": 8.0, "p99_ms": 9.0},
        {"tasks_per_s": 400.0, "p50_ms": 2.0, "p99_ms": 3.0},
    ]
    ours = [{name: 2 * value for name, value in each.items()} for each in slow_then_fast]
    ours = [{**each, "wall_s": 0.25, "ms_per_task": 2.0} for each in ours]
    *head, theirs, own = table({"queue": slow_then_fast, "ours": ours}, "ours")
    assert tuple(head) == HEAD
    assert theirs == (
        "| queue | 250 (100-400) | 2.00 (2.00-2.00) | 5.0 / 6.0 | 2.00 (2.00-2.00) | - | - |"
    )
    assert own == "| ours | 500 (200-800) | - | 10.0 / 12.0 | - | 0.25 | 2.0 |"


def test_a_system_that_failed_is_compared_in_the_rounds_it_has() -> None:
    one = {"tasks_per_s": 50.0, "p50_ms": 4.0, "p99_ms": 5.0}
    *_, theirs, _ = table({"fragile": [one], "ours": [one, one, one]}, "ours")
    assert theirs.count("1.00 (1.00-1.00)") == 2
    *_, alone = table({"fragile": [one]}, "")
    assert alone.count("| - ") == 4
