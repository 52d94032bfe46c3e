"""A process's clock on the virtual loop: monotonic time is the loop's, wall time may be set."""

from __future__ import annotations

from stretto_core.clock.manual import DEFAULT_START_NS
from stretto_core.testing.virtual_loop import START_NS, VirtualLoop


class VirtualClock:
    """Implements the Clock port.

    start_ns: wall time when the loop starts, UTC nanoseconds since the Unix epoch.
    """

    def __init__(self, loop: VirtualLoop, *, start_ns: int = DEFAULT_START_NS) -> None:
        self._loop = loop
        self._offset_ns = start_ns - START_NS

    def now_ns(self) -> int:
        """UTC nanoseconds since the Unix epoch."""
        return self._loop.now_ns + self._offset_ns

    def mono_ns(self) -> int:
        """The loop's nanoseconds; a wall step never shows here."""
        return self._loop.now_ns

    def step_wall(self, by_ns: int) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would."""
        self._offset_ns += by_ns
