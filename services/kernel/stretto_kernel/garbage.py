"""When the kernel collects garbage: in callbacks of its own, little at a time, never all of it.

Left to itself Python collects on top of whatever happens to make the object too many, and after a
while walks all that is in memory, which for a million queued tasks is seconds. What the kernel
holds are trees without cycles, freed as they are let go of; the cycles are those of gRPC, a few
objects for every call, which are garbage at once. So the young are looked at often, what survived
that once more when there is a little of it, and then never again. Owns Python's collector for the
process of the kernel; the projector, which answers nobody, has `rest_mostly`.
"""

from __future__ import annotations

import asyncio
import gc
from typing import NoReturn

YOUNG_OBJECTS_MAX = 25_000
"""Python's own limit stays, for a stretch that makes so many: some 8 ms."""
NEVER = 1_000_000_000
INTERVAL_S_MIN = 0.05
INTERVAL_S_MAX = 0.5
YOUNG_S_AIM = 0.003
"""The interval follows from what collecting the young takes: it is to be about this."""
MIDDLE_S_MAX = 0.008
"""What survives is looked at again once the young it came from took so long together."""


def rest_mostly() -> None:
    """Let Python collect by itself, but seldom: folds are many objects and few cycles."""
    gc.set_threshold(50_000, 20, 100)


async def keep_collecting() -> NoReturn:
    """Collect until cancelled. No collection is much longer than MIDDLE_S_MAX."""
    gc.set_threshold(YOUNG_OBJECTS_MAX, NEVER, NEVER)
    interval_s, middle_s = INTERVAL_S_MAX, 0.0
    while True:
        await asyncio.sleep(interval_s)
        took_s = _collect(0)
        middle_s += took_s
        interval_s = min(max(interval_s * YOUNG_S_AIM / took_s, INTERVAL_S_MIN), INTERVAL_S_MAX)
        if middle_s > MIDDLE_S_MAX:
            await asyncio.sleep(interval_s)
            _collect(1)
            middle_s = 0.0


def _collect(generation: int) -> float:
    """Collect this generation and the younger; return how long it took, in seconds."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    gc.collect(generation)
    return max(loop.time() - began_s, 1e-6)
