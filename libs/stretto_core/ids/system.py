"""Ids from the operating system's randomness and clock."""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
from weakref import WeakSet

from stretto_core.ids import uuid7_text

_WORDS = struct.Struct("128Q")
_sources: WeakSet[SystemIds] = WeakSet()


class SystemIds:
    """Mints UUIDv7s that rise within one process, also inside one millisecond.

    The first 12 of the 74 bits after the millisecond are its 4096ths, or more when ids are minted
    faster than that (RFC 9562, section 6.2, method 3); 62 are random.
    """

    def __init__(self) -> None:
        self._last = 0
        self._words: list[int] = []
        self._lock = threading.Lock()
        _sources.add(self)

    def uuid7(self) -> str:
        """Return a new UUIDv7, greater than every one this source gave before."""
        with self._lock:
            if not self._words:
                # Random words: one system call serves many ids.
                self._words = list(_WORDS.unpack(secrets.token_bytes(_WORDS.size)))
            self._last = max(self._last + 1, (time.time_ns() << 12) // 1_000_000)
            return uuid7_text(self._last >> 12, (self._last & 0xFFF) << 62 | self._words.pop() >> 2)

    def forget_entropy(self) -> None:
        """Draw anew: a forked child must not mint its parent's ids."""
        self._lock = threading.Lock()  # A thread of the parent may have held it.
        self._words = []


def _forked() -> None:
    for source in _sources:
        source.forget_entropy()


os.register_at_fork(after_in_child=_forked)
