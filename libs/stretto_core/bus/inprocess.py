"""A bus inside one process: the default where kernel and subscribers share it, and the test double.

Publishing costs one append per matching subscriber. It belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from stretto_core.bus import (
    BUFFER_COUNT_DEFAULT,
    Hint,
    SubscriberTooSlow,
    check_hint,
    check_pattern,
    matches,
)
from stretto_core.errors import Unavailable


class InProcessBus:
    """Hands every hint to the subscriptions that match it, in their own buffers."""

    def __init__(self) -> None:
        self._by_subject: dict[str, set[_Buffer]] = {}
        self._by_pattern: set[_Buffer] = set()
        self._closed = False

    async def publish(self, hint: Hint) -> None:
        """Put the hint into every matching buffer."""
        check_hint(hint)
        if self._closed:
            raise Unavailable("the bus is closed")
        exact = self._by_subject.get(hint.subject, ())
        covering = [buffer for buffer in self._by_pattern if matches(buffer.pattern, hint.subject)]
        for buffer in (*exact, *covering):
            if not buffer.put(hint):
                self._forget(buffer)

    async def subscribe(
        self, pattern: str, *, buffer_count_max: int = BUFFER_COUNT_DEFAULT
    ) -> _Buffer:
        """Return what comes from now on, at most `buffer_count_max` (>= 1) unread at a time."""
        check_pattern(pattern)
        assert buffer_count_max >= 1, "a subscription without a buffer receives nothing"
        if self._closed:
            raise Unavailable("the bus is closed")
        buffer = _Buffer(self, pattern, buffer_count_max)
        self._home(buffer).add(buffer)
        return buffer

    async def close(self) -> None:
        """Close every subscription, after what its buffer holds."""
        self._closed = True
        for buffer in [*self._by_pattern, *(b for home in self._by_subject.values() for b in home)]:
            await buffer.close()

    def _home(self, buffer: _Buffer) -> set[_Buffer]:
        if "*" in buffer.pattern or ">" in buffer.pattern:
            return self._by_pattern
        return self._by_subject.setdefault(buffer.pattern, set())

    def _forget(self, buffer: _Buffer) -> None:
        self._home(buffer).discard(buffer)
        if not self._by_subject.get(buffer.pattern, True):
            del self._by_subject[buffer.pattern]


class _Buffer:
    """One subscription: hints that matched and were not read yet."""

    def __init__(self, bus: InProcessBus, pattern: str, count_max: int) -> None:
        self.pattern = pattern
        self._bus = bus
        self._count_max = count_max
        self._hints: deque[Hint] = deque()
        self._changed = asyncio.Event()
        self._open = True
        self._overflowed = False

    def put(self, hint: Hint) -> bool:
        """Take a hint; False when there was no room and the subscription is over."""
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
        self._open = False
        self._changed.set()
        self._bus._forget(self)
