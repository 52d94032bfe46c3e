"""The group writer's rules, as a pure state machine: no clock, no I/O, no tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """Caps and linger of one partition's group writer.

    group_events_max, group_bytes_max: a group takes whole batches up to these (one batch at least).
    linger_ns: how long the oldest batch may wait for company.
    linger_events_max: a group of so many events goes at once.
    pending_events_max: beyond this the writer has no room.
    """

    group_events_max: int = 400
    group_bytes_max: int = 8 * 1024 * 1024
    linger_ns: int = 2_000_000
    linger_events_max: int = 100
    pending_events_max: int = 20_000
