"""The holds of a run, and how long it has been held: what a queue timeout stands still for.

A run is held while at least one hold is on it. Holds are immutable values; `place` and `lift`
return the next. Instants are UTC nanoseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

HOLDS_MAX = 16


@dataclass(frozen=True, slots=True)
class Hold:
    """A reason not to dispatch."""

    hold_id: str
    reason: str
    placed_ns: int


@dataclass(frozen=True, slots=True)
class Holds:
    """Holds now, oldest first, and the past spans in which there was at least one.

    spans: (start, end, time held before start), disjoint and rising.
    """

    placed: tuple[Hold, ...] = ()
    held_since_ns: int = 0
    spans: tuple[tuple[int, int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.placed)

    def __contains__(self, hold_id: str) -> bool:
        return any(hold.hold_id == hold_id for hold in self.placed)

    def place(self, hold: Hold) -> Holds:
        """Return the holds with one more."""
        since_ns = self.held_since_ns if self.placed else hold.placed_ns
        return Holds((*self.placed, hold), since_ns, self.spans)

    def lift(self, hold_id: str, now_ns: int) -> Holds:
        """Return the holds without one; the last one's lifting closes a span."""
        placed = tuple(hold for hold in self.placed if hold.hold_id != hold_id)
        if placed or not self.placed:
            return Holds(placed, self.held_since_ns, self.spans)
        held_before_ns = self.held_until_ns(self.held_since_ns)
        return Holds((), 0, (*self.spans, (self.held_since_ns, now_ns, held_before_ns)))

    def held_until_ns(self, instant_ns: int) -> int:
        """Return for how long before `instant_ns` the run was held, the present hold left out."""
        index = bisect_right(self.spans, (instant_ns,))
        if index == 0:
            return 0
        start_ns, end_ns, before_ns = self.spans[index - 1]
        return before_ns + min(instant_ns, end_ns) - start_ns

    def running_deadline_ns(self, start_ns: int, span_ns: int) -> int | None:
        """Return when `span_ns` of unheld time since `start_ns` has passed; None while held.

        Only spans that end after the start matter, so the walk is over recent holds.
        """
        if self.placed:
            return None
        deadline_ns = start_ns + span_ns
        for index in range(bisect_right(self.spans, (start_ns,)), len(self.spans) + 1):
            if index == 0:
                continue
            span_start_ns, span_end_ns, _ = self.spans[index - 1]
            if span_start_ns >= deadline_ns:
                break
            deadline_ns += max(0, span_end_ns - max(span_start_ns, start_ns))
        return deadline_ns


NO_HOLDS = Holds()
"""Of a run that was never held."""
