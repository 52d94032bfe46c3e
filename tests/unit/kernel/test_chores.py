"""What is done now and then may fail: it is told, tried again, and ends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from stretto_core.eventlog.port import StoreDown
from stretto_kernel.app import chores
from stretto_kernel.app.chores import Chore, keep_doing

from tests.waiting import until


class Board:
    """What was noted, in turn; down as often as it is told to be."""

    def __init__(self, downs: int = 0) -> None:
        self.noted: list[str] = []
        self._downs = downs

    async def note_failing(self, name: str, message: str) -> None:
        self._note(f"{name} fails: {message}")

    async def note_well(self, name: str) -> None:
        self._note(f"{name} is well")

    def _note(self, word: str) -> None:
        if self._downs:
            self._downs -= 1
            raise StoreDown("planned")
        self.noted.append(word)


class Times:
    """A chore that goes as planned, then well for ever."""

    def __init__(self, *plan: Exception | None) -> None:
        self.count = 0
        self._plan: Iterator[Exception | None] = iter(plan)

    async def do(self) -> None:
        self.count += 1
        error = next(self._plan, None)
        if error is not None:
            raise error


async def until_done(times: Times, board: Board, count: int) -> None:
    doing = asyncio.create_task(keep_doing(Chore("sweep", times.do, 0.0), board))
    await until(lambda: times.count >= count or doing.done())
    assert not doing.done(), "it goes on whatever comes"
    doing.cancel()
    await asyncio.wait([doing])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "AGAIN_S", 0.0)


async def test_what_nobody_foresaw_is_told_and_tried_again() -> None:
    board = Board()
    await until_done(Times(None, ZeroDivisionError(), KeyError("secret"), None), board, 6)
    assert board.noted == [
        "sweep is well",
        "sweep fails: ZeroDivisionError: its log says more",
        "sweep fails: KeyError: its log says more",
        "sweep is well",
    ]


async def test_a_store_that_is_down_is_no_failure() -> None:
    board = Board()
    await until_done(Times(StoreDown("planned"), StoreDown("planned")), board, 4)
    assert board.noted == ["sweep is well"]


async def test_a_board_that_is_down_is_told_the_next_time() -> None:
    board = Board(downs=2)
    await until_done(Times(ZeroDivisionError(), None, None), board, 5)
    assert board.noted == ["sweep is well"]
