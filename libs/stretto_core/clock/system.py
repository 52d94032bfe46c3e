"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """Reads the operating system's wall and monotonic clocks."""

    def now_ns(self) -> int:
        """UTC nanoseconds since the Unix epoch."""
        return time.time_ns()

    def mono_ns(self) -> int:
        """Monotonic nanoseconds since an arbitrary origin."""
        return time.monotonic_ns()
