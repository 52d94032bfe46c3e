"""How fast a queue leases: a token bucket, kept as one instant. Pure.

The instant is when the bucket will be full: it is one interval later for each token taken. Whole
nanoseconds of a monotonic clock, and intervals rounded up, so that no rounding ever gives a token
too many. (The generic cell rate algorithm of ITU-T I.371, read as a bucket.)
"""

from __future__ import annotations

import math

from stretto_core.clock import NS_PER_S

from stretto_kernel.domain.queue import RateLimit


class RateLimiter:
    """One queue's bucket; empty at `now_ns`, or with what `before` had left, if that is less."""

    def __init__(self, limit: RateLimit, now_ns: int, before: RateLimiter | None = None) -> None:
        self._interval_ns = math.ceil(NS_PER_S / limit.tokens_per_second)
        self._burst = limit.burst
        kept = 0 if before is None else min(before.token_count(now_ns), self._burst)
        self._full_ns = now_ns + (self._burst - kept) * self._interval_ns

    def token_count(self, now_ns: int) -> int:
        """How many tokens are in the bucket."""
        missing_ns = max(self._full_ns - now_ns, 0)
        return self._burst + -missing_ns // self._interval_ns

    def next_ns(self) -> int:
        """When the bucket has, or had, a token; at once when that is past."""
        return self._full_ns - (self._burst - 1) * self._interval_ns

    def take(self, now_ns: int) -> None:
        """Take a token; there is one."""
        assert self.next_ns() <= now_ns, "a token that is not there cannot be taken"
        self._full_ns = max(self._full_ns, now_ns) + self._interval_ns

    def give_back(self) -> None:
        """A token was taken for nothing."""
        self._full_ns -= self._interval_ns
