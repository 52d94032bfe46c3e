"""Stepping through a replay by keys: SPACE or n next, b back, e the rest, q end.

Steps seen are kept so that one can go back, the newest of them only.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stretto_cli import printing
from stretto_cli.change_text import print_step

if TYPE_CHECKING:
    from stretto_sdk.client_history import ReplayStep

SEEN_MAX = 10_000
_NEXT = (b" ", b"n", b"\r", b"\n", b"\x1b[C", b"\x1b[B")
_BACK = (b"b", b"\x1b[D", b"\x1b[A")
_END = (b"q", b"\x04", b"")
_KEY_BYTES_MAX = 3
"""An arrow is three bytes."""


async def step_by_keys(steps: AsyncIterator[ReplayStep]) -> None:
    """Show a step for each key until the last step, or q."""
    seen: deque[ReplayStep] = deque(maxlen=SEEN_MAX)
    back = 0  # How many steps before the newest seen is the one shown.
    to_end = False
    with _keys() as terminal:
        printing.note("SPACE next · b back · e all the rest · q end")
        while True:
            if back:
                back -= 1
            elif (found := await anext(steps, None)) is not None:
                seen.append(found)
            else:
                printing.note("that is all")
                return
            print_step(seen[-1 - back])
            while not to_end and (key := await _key(terminal)) not in _NEXT:
                if key in _END:
                    return
                to_end = key == b"e"
                if key in _BACK and back + 1 < len(seen):
                    back += 1
                    print_step(seen[-1 - back])


@contextmanager
def _keys() -> Iterator[int]:
    """Let keys come one by one, unseen; Ctrl-C stays what it is."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield terminal
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


async def _key(terminal: int) -> bytes:
    loop = asyncio.get_running_loop()
    pressed = asyncio.Event()
    # Not in a thread: Ctrl-C would wait for it.
    loop.add_reader(terminal, pressed.set)
    try:
        await pressed.wait()
    finally:
        loop.remove_reader(terminal)
    keys = os.read(terminal, _KEY_BYTES_MAX)
    return keys if keys.startswith(b"\x1b") else keys[:1]
