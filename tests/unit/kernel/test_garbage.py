"""Garbage is collected in callbacks of its own: the young, what survived that, and no more."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from stretto_kernel import garbage

from tests.waiting import until

MS = 0.001


class Circle:
    """Only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """The collector is the process's: as it was afterwards, and as at a start before."""
    thresholds = gc.get_threshold()
    gc.collect()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def test_the_young_are_collected_and_the_old_are_not() -> None:
    old = Circle()
    gc.collect(1)
    young = Circle()
    refs = [weakref.ref(young), weakref.ref(old)]
    del old, young
    collecting = asyncio.create_task(garbage.keep_collecting())
    await until(lambda: refs[0]() is None)
    kept = [[] for _ in range(3 * garbage.YOUNG_OBJECTS_MAX)]  # type: ignore[var-annotated]
    assert kept and refs[1]() is not None
    collecting.cancel()


@pytest.mark.parametrize(
    ("took_s", "generations", "is_frozen"),
    [
        ([MS, MS, garbage.REST_S / 2, MS, MS], [0, 0, 0, 1, 0], False),
        ([MS, garbage.MIDDLE_S, MS], [0, 0, 0], True),
    ],
)
async def test_what_survives_is_looked_at_at_rest_unless_it_came_in_a_burst(
    monkeypatch: pytest.MonkeyPatch,
    took_s: list[float],
    generations: list[int],
    is_frozen: bool,
) -> None:
    collected = []
    left_s = iter(took_s)
    frozen_count = gc.get_freeze_count()

    def collect(generation: int) -> float:
        collected.append(generation)
        return next(left_s, MS)

    monkeypatch.setattr(garbage, "INTERVAL_S_MAX", garbage.INTERVAL_S_MIN)
    monkeypatch.setattr(garbage, "_collect", collect)
    gc.disable()
    try:
        collecting = asyncio.create_task(garbage.keep_collecting())
        await until(lambda: len(collected) >= len(generations))
        collecting.cancel()
    finally:
        gc.enable()
    assert collected == generations
    assert (gc.get_freeze_count() > frozen_count) is is_frozen
