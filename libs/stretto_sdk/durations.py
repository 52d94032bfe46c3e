"""Spans of time as people write them in plans: `500ms`, `30s`, `1m30s`, `2h`, `1.5s`.

A bare number is refused: nobody should have to remember its unit.
"""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

_UNIT_NS = {"ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
SPAN_PATTERN = r"(?:[0-9]+(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+"
"""What every written span matches."""
SPAN_NS_MAX = 10_000 * 86_400 * 10**9

EXPLANATION = 'a span of time like "500ms", "30s", "1m30s" or "2h"'


def parse_duration_ns(text: str) -> int:
    """Return the nanoseconds of a written span, 0 to 10,000 days. Raises ValueError otherwise."""
    position = total_ns = 0
    for part in _PART.finditer(text):
        if part.start() != position:
            break
        whole, _, fraction = part[1].partition(".")
        unit_ns = _UNIT_NS[part[2]]
        total_ns += int(whole[:12]) * unit_ns + int(fraction.ljust(9, "0")) * unit_ns // 10**9
        position = part.end()
    if position != len(text) or not text or total_ns > SPAN_NS_MAX:
        raise ValueError(f"{text[:40]!r} is not {EXPLANATION}")
    return total_ns


def duration_of(span: str | timedelta) -> Duration:
    """Return the message of a written span or a timedelta >= 0. Raises ValueError."""
    if isinstance(span, timedelta):
        if span < timedelta(0):
            raise ValueError("a span of time cannot be negative")
        total_ns = span // timedelta(microseconds=1) * 1_000
    else:
        total_ns = parse_duration_ns(span)
    return Duration(seconds=total_ns // 10**9, nanos=total_ns % 10**9)
