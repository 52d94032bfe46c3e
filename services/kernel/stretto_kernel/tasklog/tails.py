"""The newest entries of the runs that somebody follows, shared by all who do.

A follower reads what is kept from the store until it meets the tail, then takes what comes from
memory: any number of followers costs the store nothing while they wait. One who falls behind the
tail reads from the store again; positions without holes show it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice

from stretto_core.ids import RunId

from stretto_kernel.tasklog.entries import Entry

PAGE_ENTRIES_MAX = 500
TAIL_ENTRIES_MAX = 1_000
TAIL_BYTES_MAX = 1024 * 1024


class Tail:
    """The newest entries of one run, without holes."""

    def __init__(self) -> None:
        self.follower_count = 0
        self.changed = asyncio.Event()
        self.keeper: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._after: int | None = None

    def begin(self, position: int) -> None:
        """A follower read all that is kept up to `position`, and nothing was stored meanwhile."""
        if self._after is None:
            self._after = position

    def add(self, entries: Sequence[Entry]) -> None:
        """Take entries over as they are stored, and wake whoever waits."""
        if self._after is None or entries[0].position != self._after + len(self._entries) + 1:
            # Another process stored what is missing: it is read from the store.
            self._entries.clear()
            self._bytes = 0
            self._after = entries[0].position - 1
        self._entries.extend(entries)
        self._bytes += sum(len(entry.content) for entry in entries)
        while len(self._entries) > 1 and (
            len(self._entries) > TAIL_ENTRIES_MAX or self._bytes > TAIL_BYTES_MAX
        ):
            gone = self._entries.popleft()
            self._bytes -= len(gone.content)
            self._after = gone.position
        self.wake()

    def after(self, position: int) -> list[Entry] | None:
        """Some of the entries after a position; None when they are to be read from the store."""
        if self._after is None or position < self._after:
            return None
        first = position - self._after
        return list(islice(self._entries, first, first + PAGE_ENTRIES_MAX))

    def wake(self) -> None:
        """Have every follower look again."""
        self.changed.set()
        self.changed = asyncio.Event()


class Tails:
    """The tails of one kernel process."""

    def __init__(self) -> None:
        self._tails: dict[RunId, Tail] = {}

    def publish(self, entries: Sequence[Entry]) -> None:
        """Tell the followers of entries that were stored."""
        for run_id, stored in groupby(
            sorted(entries, key=lambda entry: entry.lease.run_id),
            key=lambda entry: entry.lease.run_id,
        ):
            if (tail := self._tails.get(run_id)) is not None:
                tail.add(list(stored))

    @contextmanager
    def following(self, run_id: RunId) -> Iterator[Tail]:
        """The run's tail, kept as long as anybody follows it."""
        tail = self._tails.setdefault(run_id, Tail())
        tail.follower_count += 1
        try:
            yield tail
        finally:
            tail.follower_count -= 1
            if not tail.follower_count:
                del self._tails[run_id]
                if tail.keeper is not None:
                    tail.keeper.cancel()

    @property
    def follower_count(self) -> int:
        """How many read now."""
        return sum(tail.follower_count for tail in self._tails.values())
