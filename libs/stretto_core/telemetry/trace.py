"""W3C trace context (Recommendation, level 1): parse, check and carry on a `traceparent`.

No sampling and no export here: the value is kept on events and passed on, so that a run can be
joined with the trace of the call that began it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADER = "traceparent"
_PATTERN = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TraceParent:
    """trace_id: 32 hex digits; parent_id: the caller's span, 16 hex digits; flags: 0-255."""

    trace_id: str
    parent_id: str
    flags: int

    def child(self, span_id: str) -> TraceParent:
        """Return the context to send on from our own span, 16 hex digits."""
        return TraceParent(self.trace_id, span_id, self.flags)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"


def parse_traceparent(text: str) -> TraceParent | None:
    """Return the context a header holds, or None when it is not valid (it is then ignored)."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    if trace_id == "0" * 32 or parent_id == "0" * 16:
        return None
    return TraceParent(trace_id, parent_id, int(flags, 16))
