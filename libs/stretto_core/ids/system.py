"""Ids from the operating system's randomness and clock."""

from __future__ import annotations

import os
import secrets
import threading
import time

from stretto_core.ids import uuid7_text

_ENTROPY_BYTES = 1_024


class SystemIds:
    """Mints UUIDv7s that rise within one process, also inside one millisecond."""

    def __init__(self) -> None:
        self._last_ms = 0
        self._last_random = 0
        self._entropy = b""
        self._process = os.getpid()
        self._lock = threading.Lock()

    def uuid7(self) -> str:
        """Return a new UUIDv7, greater than every one this source gave before."""
        with self._lock:
            unix_ms = time.time_ns() // 1_000_000
            if unix_ms <= self._last_ms:
                unix_ms = self._last_ms
                self._last_random = (self._last_random + 1 + self._bits(4)) % (1 << 74)
            else:
                self._last_ms = unix_ms
                self._last_random = self._bits(9)
            return uuid7_text(unix_ms, self._last_random)

    def _bits(self, bytes_count: int) -> int:
        """Random bits out of a block: one system call serves hundreds of ids."""
        if len(self._entropy) < bytes_count or self._process != os.getpid():
            self._process = os.getpid()  # A forked child must not mint its parent's ids.
            self._entropy = secrets.token_bytes(_ENTROPY_BYTES)
        taken, self._entropy = self._entropy[:bytes_count], self._entropy[bytes_count:]
        return int.from_bytes(taken, "big")
