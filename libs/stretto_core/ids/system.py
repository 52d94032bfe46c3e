"""Ids from the operating system's randomness and clock."""

from __future__ import annotations

import secrets
import threading
import time

from stretto_core.ids import uuid7_text


class SystemIds:
    """Mints UUIDv7s that rise within one process, also inside one millisecond."""

    def __init__(self) -> None:
        self._last_ms = 0
        self._last_random = 0
        self._lock = threading.Lock()

    def uuid7(self) -> str:
        """Return a new UUIDv7, greater than every one this source gave before."""
        with self._lock:
            unix_ms = time.time_ns() // 1_000_000
            if unix_ms <= self._last_ms:
                unix_ms = self._last_ms
                self._last_random = (self._last_random + 1 + secrets.randbits(32)) % (1 << 74)
            else:
                self._last_ms = unix_ms
                self._last_random = secrets.randbits(73)
            return uuid7_text(unix_ms, self._last_random)
