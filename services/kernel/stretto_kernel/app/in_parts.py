"""Long work on the loop, done in parts: others run in between."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


async def in_parts(work: Generator[None, None, Result]) -> Result:
    """Do work to its end, a turn of the loop for each of its parts; return what came of it."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Result = done.value
            return result
        await asyncio.sleep(0)
