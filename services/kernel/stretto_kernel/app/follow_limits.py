"""How many may follow a kernel, and how much is kept for one who does not take what comes."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowLimits:
    """Bounds of one kernel.

    buffer_events_max, buffer_bytes_max: what waits for one subscriber.
    all_buffers_bytes_max: what waits for all of them together.
    """

    watchers_max: int = 4_096
    subscribers_max: int = 1_024
    buffer_events_max: int = 10_000
    buffer_bytes_max: int = 4 * MIB
    all_buffers_bytes_max: int = 64 * MIB
