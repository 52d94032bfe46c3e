"""Follows a memory log as it is committed and checks what holds of every log.

Checked of each stream: versions 1, 2, 3 ... without gap or repeat, the hash chain, times that never
go back, positions that rise, and that no forbidden bytes (secrets) are stored. Rules of one kind
of stream are added as checks, which get every committed event in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence

from stretto_core.eventlog.chain import ChainVerifier
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import StreamId

EventCheck = Callable[[StoredEvent], None]
"""Looks at the next committed event; raises InvariantBroken when it may not stand there."""


class InvariantBroken(AssertionError):
    """What must always hold does not; the message says what and where."""


class LogWatch:
    """Checks a store's events as they are committed; `catch_up` before relying on it.

    secrets: bytes that may never be stored; it is read at each event, so it may grow.
    """

    def __init__(
        self,
        store: MemoryStore,
        *,
        checks: Sequence[EventCheck] = (),
        secrets: Collection[bytes] = (),
    ) -> None:
        self._store = store
        self._checks = checks
        self._secrets = secrets
        self._chain = ChainVerifier()
        self._digest = hashlib.sha256()
        self._seen_count = 0
        self._position = 0

    @property
    def event_count(self) -> int:
        """How many events have been checked."""
        return self._seen_count

    def catch_up(self) -> None:
        """Check everything committed since. Raises InvariantBroken."""
        while self._seen_count < len(self._store.events):
            event = self._store.events[self._seen_count]
            self._seen_count += 1
            self._check(event)

    async def follow(self) -> None:
        """Check each commit as it happens, until cancelled. Raises InvariantBroken."""
        while True:
            appended = self._store.next_append()  # Before looking: none may fall in between.
            self.catch_up()
            await appended.wait()

    def version(self, stream: StreamId) -> int:
        """Return the last committed version of a stream; 0 when it has none."""
        self.catch_up()
        return self._chain.head(stream).version

    def digest(self) -> str:
        """Return a digest of everything stored, in order, positions included."""
        self.catch_up()
        return self._digest.hexdigest()

    def _check(self, event: StoredEvent) -> None:
        place = f"{event.stream} version {event.version} ({event.type})"
        if event.position <= self._position:
            raise InvariantBroken(f"position {event.position} after {self._position}: {place}")
        self._position = event.position
        broken = self._chain.check(event)
        if broken is not None:
            raise InvariantBroken(f"{broken.description}: {place}")
        for secret in self._secrets:
            if secret in event.stored_bytes:
                raise InvariantBroken(f"a secret is stored: {place}")
        self._digest.update(event.position.to_bytes(8) + event.stored_bytes)
        for check in self._checks:
            check(event)
