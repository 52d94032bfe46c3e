"""When the kernel collects garbage: in callbacks of its own, little at a time, never all of it.

Left to itself Python collects on top of whatever happens to make the object too many, and after a
while walks all that is in memory, which for a million queued tasks is seconds. What the kernel
holds are trees without cycles, freed as they are let go of; the cycles are those of gRPC, a few
objects for every call, which are garbage at once. So the young are looked at often, the little that
survives beside a rest once more, and then never again. Owns Python's collector for the
process of the kernel; the projector, which answers nobody, has `rest_mostly`.
"""

from __future__ import annotations

import asyncio
import gc
from typing import NoReturn

YOUNG_OBJECTS_MAX = 25_000
"""Python's own limit stays, for a stretch or a fold that makes so many at once: some 5 ms."""
NEVER = 1_000_000_000
INTERVAL_S_MIN = 0.05
INTERVAL_S_MAX = 0.5
YOUNG_S = 0.005
"""How long to collect the young; the interval follows from what it took."""
MIDDLE_S = 0.006
"""What survived is looked at once more when the kernel rests, unless the collections that it
survived took longer together: then it is what many calls or a large plan brought in."""
REST_S = 0.000_3
"""The kernel rests when collecting the young takes no longer."""


def rest_mostly() -> None:
    """Let Python collect by itself, but seldom: folds are many objects and few cycles."""
    gc.set_threshold(50_000, 20, 100)


async def keep_collecting() -> NoReturn:
    """Collect until cancelled, some milliseconds at a time."""
    gc.set_threshold(YOUNG_OBJECTS_MAX, NEVER, NEVER)
    interval_s = INTERVAL_S_MAX
    generation, middle_s, young_count = 0, 0.0, 0
    while True:
        await asyncio.sleep(interval_s)
        took_s = _collect(generation)
        if generation:
            middle_s, young_count = 0.0, 0
        else:
            middle_s, young_count = middle_s + took_s, young_count + 1
        if middle_s > MIDDLE_S or gc.get_count()[1] > young_count:  # Python did so by itself, too.
            gc.freeze()
            middle_s, young_count = 0.0, 0
        interval_s = min(max(interval_s * YOUNG_S / took_s, INTERVAL_S_MIN), INTERVAL_S_MAX)
        generation = 1 if took_s < REST_S else 0


def _collect(generation: int) -> float:
    """Collect this generation and the younger; return how long it took, in seconds."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    gc.collect(generation)
    return max(loop.time() - began_s, 1e-6)
