"""Stepping through a replay by keys: SPACE or n next, b back, e the rest, q end.

Steps seen are kept so that one can go back, the newest of them only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import typer

from stretto_cli import printing
from stretto_cli.change_text import print_step

if TYPE_CHECKING:
    from stretto_sdk.client_history import ReplayStep

SEEN_MAX = 10_000
_NEXT = (" ", "n", "\r", "\n", "\x1b[C", "\x1b[B")
_BACK = ("b", "p", "\x1b[D", "\x1b[A")


async def step_by_keys(steps: AsyncIterator[ReplayStep]) -> None:
    """Show a step for each key until the last step, or q."""
    printing.note("SPACE next · b back · e all the rest · q end")
    seen: deque[ReplayStep] = deque(maxlen=SEEN_MAX)
    back = 0  # How many steps before the newest seen is the one shown.
    to_end = False
    while True:
        if back:
            back -= 1
            step = seen[-1 - back]
        else:
            found = await anext(steps, None)
            if found is None:
                printing.note("that is all")
                return
            step = found
            seen.append(step)
        print_step(step)
        while not to_end:
            key = await asyncio.to_thread(typer.getchar)
            if key in _NEXT:
                break
            if key == "e":
                to_end = True
            elif key in ("q", "\x04", ""):
                return
            elif key in _BACK and back + 1 < len(seen):
                back += 1
                print_step(seen[-1 - back])
