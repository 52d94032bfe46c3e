"""One heap of due instants for any number of keys: the only place where instants wait.

Owns: when which key is due. A key has at most one instant; arming it again replaces the instant,
and the replaced entry is skipped when it surfaces. Knows no clock and no unit but "an integer
that rises": one heap is fed wall nanoseconds (durable timers), another monotonic ones (leases).
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Stamp = TypeVar("Stamp")

_COMPACT_MIN = 1_024


class TimerHeap(Generic[Key, Stamp]):
    """Keys with the instant each is due, and the stamp it was armed with."""

    def __init__(self) -> None:
        self._armed: dict[Key, tuple[int, int, Stamp]] = {}
        self._heap: list[tuple[int, int, Key]] = []
        self._sequence = 0  # Ties are taken in the order they were armed; keys never compare.

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, key: Key, due: int, stamp: Stamp) -> None:
        """Make `key` due at `due` with `stamp`, whatever it was armed for before."""
        armed = self._armed.get(key)
        if armed is not None and armed[0] == due:
            self._armed[key] = (due, armed[1], stamp)
            return
        self._sequence += 1
        self._armed[key] = (due, self._sequence, stamp)
        heapq.heappush(self._heap, (due, self._sequence, key))
        if len(self._heap) > _COMPACT_MIN and len(self._heap) > 4 * len(self._armed):
            self._compact()

    def disarm(self, key: Key) -> None:
        """Forget `key`; a no-op when it is not armed."""
        self._armed.pop(key, None)

    def drop(self, count: int) -> None:
        """Forget at most `count` keys, in no order; called again and again it forgets all."""
        for _ in range(min(count, len(self._heap))):
            self._armed.pop(self._heap.pop()[2], None)

    def due_of(self, key: Key) -> int | None:
        """The instant `key` is armed for, or None."""
        armed = self._armed.get(key)
        return None if armed is None else armed[0]

    def next_due(self) -> int | None:
        """The earliest instant any key is due, or None when nothing is armed."""
        while self._heap:
            due, sequence, key = self._heap[0]
            armed = self._armed.get(key)
            if armed is not None and armed[1] == sequence:
                return due
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: int, limit: int) -> list[tuple[Key, Stamp]]:
        """Disarm and return up to `limit` keys due at or before `now`, earliest first."""
        taken: list[tuple[Key, Stamp]] = []
        while len(taken) < limit:
            due = self.next_due()
            if due is None or due > now:
                break
            _, _, key = heapq.heappop(self._heap)
            taken.append((key, self._armed.pop(key)[2]))
        return taken

    def _compact(self) -> None:
        """Drop replaced entries, so that re-arming (each renewal does) cannot grow the heap."""
        self._heap = [(due, sequence, key) for key, (due, sequence, _) in self._armed.items()]
        heapq.heapify(self._heap)
