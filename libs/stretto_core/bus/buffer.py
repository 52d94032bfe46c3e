"""One subscription's hints that were not read yet: bounded, read once, in order.

What both adapters share. It belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from stretto_core.bus import Hint, SubscriberTooSlow


class HintBuffer:
    """A `Subscription` that an adapter fills.

    count_max: at most so many unread hints (>= 1); the next one ends the subscription.
    stop: tells the adapter that nothing more is wanted; what it puts before it returns is read.
    """

    def __init__(
        self, pattern: str, count_max: int, stop: Callable[[HintBuffer], Awaitable[None]]
    ) -> None:
        assert count_max >= 1, "a subscription without a buffer receives nothing"
        self.pattern = pattern
        self._count_max = count_max
        self._stop = stop
        self._hints: deque[Hint] = deque()
        self._changed = asyncio.Event()
        self._open = True
        self._overflowed = False

    def put(self, hint: Hint) -> bool:
        """Take a hint; False when there was no room and the subscription is over."""
        if not self._open:
            return False
        if len(self._hints) >= self._count_max:
            self._open, self._overflowed = False, True
        else:
            self._hints.append(hint)
        self._changed.set()
        return self._open

    async def __aiter__(self) -> AsyncIterator[Hint]:
        """Yield hints as they come."""
        while True:
            # Cleared before the read: what comes in between sets it again.
            self._changed.clear()
            while self._hints:
                yield self._hints.popleft()
            if not self._open:
                break
            await self._changed.wait()
        if self._overflowed:
            raise SubscriberTooSlow("hints came faster than they were read", pattern=self.pattern)

    async def close(self) -> None:
        """End the iteration after what is buffered."""
        await self._stop(self)
        self._open = False
        self._changed.set()
