"""Ids from the operating system's randomness and clock."""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
from weakref import WeakSet

from stretto_core.ids import uuid7_text

_WORDS = struct.Struct("256I")
_BITS_74 = (1 << 74) - 1
_sources: WeakSet[SystemIds] = WeakSet()


class SystemIds:
    """Mints UUIDv7s that rise within one process, also inside one millisecond."""

    def __init__(self) -> None:
        self._last_ms = 0
        self._last_random = 0
        self._words: list[int] = []
        self._lock = threading.Lock()
        _sources.add(self)

    def uuid7(self) -> str:
        """Return a new UUIDv7, greater than every one this source gave before."""
        with self._lock:
            if len(self._words) < 3:
                # Random words: one system call serves hundreds of ids.
                self._words = list(_WORDS.unpack(secrets.token_bytes(_WORDS.size)))
            unix_ms = time.time_ns() // 1_000_000
            words = self._words
            if unix_ms <= self._last_ms:
                unix_ms = self._last_ms
                self._last_random = (self._last_random + 1 + words.pop()) & _BITS_74
            else:
                self._last_ms = unix_ms
                self._last_random = (words.pop() << 64 | words.pop() << 32 | words.pop()) & _BITS_74
            return uuid7_text(unix_ms, self._last_random)

    def forget_entropy(self) -> None:
        """Draw anew: a forked child must not mint its parent's ids."""
        self._lock = threading.Lock()  # A thread of the parent may have held it.
        self._words = []


def _forked() -> None:
    for source in _sources:
        source.forget_entropy()


os.register_at_fork(after_in_child=_forked)
