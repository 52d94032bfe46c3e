"""A bus inside one process: the default where kernel and subscribers share it, and the test double.

Publishing costs one append per matching subscriber. It belongs to one event loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto_core.bus import (
    BUFFER_COUNT_DEFAULT,
    Hint,
    check_hint,
    check_pattern,
    matches,
)
from stretto_core.bus.buffer import HintBuffer
from stretto_core.errors import Unavailable


class InProcessBus:
    """Hands every hint to the subscriptions that match it, in their own buffers."""

    def __init__(self) -> None:
        self._by_subject: dict[str, set[HintBuffer]] = {}
        self._by_pattern: set[HintBuffer] = set()
        self._closed = False

    async def publish(self, hints: Sequence[Hint]) -> None:
        """Put each hint into every matching buffer."""
        for hint in hints:
            check_hint(hint)
        if self._closed:
            raise Unavailable("the bus is closed")
        for hint in hints:
            exact = self._by_subject.get(hint.subject, ())
            covering = [each for each in self._by_pattern if matches(each.pattern, hint.subject)]
            for buffer in (*exact, *covering):
                if not buffer.put(hint):
                    await self._forget(buffer)

    async def subscribe(
        self, pattern: str, *, buffer_count_max: int = BUFFER_COUNT_DEFAULT
    ) -> HintBuffer:
        """Return what comes from now on, at most `buffer_count_max` (>= 1) unread at a time."""
        check_pattern(pattern)
        if self._closed:
            raise Unavailable("the bus is closed")
        buffer = HintBuffer(pattern, buffer_count_max, self._forget)
        self._home(buffer).add(buffer)
        return buffer

    async def close(self) -> None:
        """Close every subscription, after what its buffer holds."""
        self._closed = True
        for buffer in [*self._by_pattern, *(b for home in self._by_subject.values() for b in home)]:
            await buffer.close()

    def _home(self, buffer: HintBuffer) -> set[HintBuffer]:
        if "*" in buffer.pattern or ">" in buffer.pattern:
            return self._by_pattern
        return self._by_subject.setdefault(buffer.pattern, set())

    async def _forget(self, buffer: HintBuffer) -> None:
        self._home(buffer).discard(buffer)
        if not self._by_subject.get(buffer.pattern, True):
            del self._by_subject[buffer.pattern]
