"""How often a follower of the log works, while the log grows. Pure; seconds.

What a batch costs besides its events (looking, waking, a transaction) is paid once, however many
events it has. So a follower rests after a batch in proportion to what the batch took, as a machine
with a duty cycle does: while much comes, batches grow and it costs less; while little comes, the
first event after a rest is taken at once; where the processors are scarce it takes its turn less
often. It is never later by more than its longest rest.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyCycle:
    """Work and rest of a follower.

    rest_per_work: so many times as long as it worked it rests. rest_s_max: never longer.
    full_events: a batch of so many shows that more is waiting; none rests after it.
    """

    rest_per_work: float = 9.0
    rest_s_max: float = 0.1
    full_events: int = 500

    def __post_init__(self) -> None:
        assert min(self.rest_per_work, self.rest_s_max) >= 0, "no rest ends before it begins"
        assert self.full_events > 0, "there is no empty batch"

    def is_full(self, event_count: int) -> bool:
        """Whether a batch of so many events shows that more is waiting."""
        return event_count >= self.full_events

    def rest_s(self, worked_s: float, event_count: int) -> float:
        """Return how long to rest after a batch."""
        if self.is_full(event_count):
            return 0.0
        return min(self.rest_per_work * worked_s, self.rest_s_max)
