"""Who follows a kernel: its runs and its log; counted, bounded, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stretto_core.telemetry.metrics import Registry

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


def add_follower_metrics(registry: Registry, followers: Followers) -> None:
    """Let the registry tell how many follow."""
    watchers, feed = followers.watchers, followers.feed
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "run_watchers": ("Who watches runs.", lambda: watchers.watcher_count),
        "log_subscribers": ("Who follows the log.", lambda: feed.subscriber_count),
        "log_subscribers_cut_off": (
            "Subscribers cut off since the start, because they did not take what came.",
            lambda: feed.cut_count,
        ),
        "log_buffered_bytes": ("What waits for subscribers.", lambda: feed.buffered_bytes),
    }
    for name, (help_text, read) in gauges.items():
        registry.gauge(f"stretto_kernel_{name}", help_text, read=read)
