"""The one loop timer of a partition: rings when the earliest of everything armed is due.

`look` is called after anything may have become due earlier; arming is lazy, so that it costs one
comparison per call. Late rings are told how late they are: a stalled loop is nobody's fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stretto_core.clock import NS_PER_S, Clock


class Alarm:
    """Rings `ring(late_ns)` at the instant `next_due` names (monotonic; None = nothing armed)."""

    def __init__(
        self, clock: Clock, ring: Callable[[int], None], next_due: Callable[[], int | None]
    ) -> None:
        self._clock = clock
        self._ring = ring
        self._next_due = next_due
        self._handle: asyncio.TimerHandle | None = None
        self._due_mono_ns = 0
        self._running = False

    def start(self) -> None:
        """Ring from now on."""
        self._running = True
        self.look()

    def stop(self) -> None:
        """Ring no more."""
        self._running = False
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def look(self) -> None:
        """Arm for the next instant if it is earlier than what is armed."""
        if not self._running:
            return
        due = self._next_due()
        if due is None or (self._handle is not None and self._due_mono_ns <= due):
            return
        if self._handle is not None:
            self._handle.cancel()
        self._due_mono_ns = due
        delay_s = max(0, due - self._clock.mono_ns()) / NS_PER_S
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._rang)

    def _rang(self) -> None:
        self._handle = None
        try:
            self._ring(self._clock.mono_ns() - self._due_mono_ns)
        finally:
            self.look()  # A bug in one ring must not silence all timers after it.
