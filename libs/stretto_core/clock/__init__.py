"""The clock port: wall time for stamps and durable timers, monotonic time for leases and waits.

All instants are nanoseconds. Wall instants (`*_ns`) are UTC since the Unix epoch; monotonic ones
(`*_mono_ns`) only compare with each other inside one process.
"""

from __future__ import annotations

from typing import Protocol

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """Where the shell reads time. Rules never do: time reaches them inside commands."""

    def now_ns(self) -> int:
        """UTC nanoseconds since the Unix epoch; may step when the machine's clock is set."""
        ...

    def mono_ns(self) -> int:
        """Monotonic nanoseconds from an arbitrary origin; never goes back."""
        ...
