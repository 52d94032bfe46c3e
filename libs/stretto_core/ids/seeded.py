"""Ids that repeat with their seed, for tests and the simulator."""

from __future__ import annotations

import random

from stretto_core.clock import NS_PER_MS, Clock
from stretto_core.ids import uuid7_text


class SeededIds:
    """Mints UUIDv7s from a clock and a seed: the same seed and times give the same ids."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self._random = random.Random(seed)  # Repeatable on purpose; guards nothing.
        self._clock = clock

    def uuid7(self) -> str:
        """Return the next UUIDv7 of this seed."""
        return uuid7_text(self._clock.now_ns() // NS_PER_MS, self._random.getrandbits(74))
