"""A clock that moves only when told, for tests and the simulator."""

from __future__ import annotations

DEFAULT_START_NS = 1_750_000_000_000_000_000


class ManualClock:
    """Stands still until `advance` or `step_wall`.

    now_ns: the first wall instant, UTC nanoseconds since the Unix epoch.
    """

    def __init__(self, now_ns: int = DEFAULT_START_NS) -> None:
        self._now_ns = now_ns
        self._mono_ns = 0

    def now_ns(self) -> int:
        """UTC nanoseconds since the Unix epoch."""
        return self._now_ns

    def mono_ns(self) -> int:
        """Monotonic nanoseconds since this clock was made."""
        return self._mono_ns

    def advance(self, by_ns: int) -> None:
        """Let `by_ns` (>= 0) pass on both clocks."""
        assert by_ns >= 0, "time passes forward; use step_wall to set the wall clock"
        self._now_ns += by_ns
        self._mono_ns += by_ns

    def step_wall(self, by_ns: int) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would."""
        self._now_ns += by_ns
