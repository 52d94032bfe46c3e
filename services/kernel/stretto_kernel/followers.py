"""Who follows a kernel: its runs and its log; counted and bounded."""

from __future__ import annotations

from dataclasses import dataclass

from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.log_feed import LogFeed
from stretto_kernel.app.watching import WatcherGate
from stretto_kernel.kernel import Kernel


@dataclass(frozen=True, slots=True)
class Followers:
    """Who follows the kernel: its runs, and its log."""

    watchers: WatcherGate
    feed: LogFeed

    @classmethod
    def of(cls, kernel: Kernel, limits: FollowLimits) -> Followers:
        """Return nobody yet."""
        return cls(WatcherGate(limits.watchers_max), LogFeed(kernel.ports.log, limits))
