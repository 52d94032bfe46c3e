"""Garbage is collected in callbacks of its own, and only what is young or was a moment ago."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from stretto_kernel import garbage

from tests.waiting import until


class Circle:
    """Only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)


async def test_the_young_are_collected_and_so_is_what_survived_that_once(
    collector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "MIDDLE_S_MAX", 0.0)
    monkeypatch.setattr(garbage, "INTERVAL_S_MAX", garbage.INTERVAL_S_MIN)
    older = Circle()
    gc.collect(0)
    young = Circle()
    refs = [weakref.ref(older), weakref.ref(young)]
    del older, young
    collecting = asyncio.create_task(garbage.keep_collecting())
    await until(lambda: [ref() for ref in refs] == [None, None])
    collecting.cancel()


async def test_what_is_old_is_never_walked_by_itself(collector: None) -> None:
    old = Circle()
    gc.collect(1)
    ref = weakref.ref(old)
    del old
    collecting = asyncio.create_task(garbage.keep_collecting())
    await asyncio.sleep(0)
    kept = [[] for _ in range(3 * garbage.YOUNG_OBJECTS_MAX)]  # type: ignore[var-annotated]
    assert kept and ref() is not None
    collecting.cancel()
    gc.collect()
    assert ref() is None
