"""What a process writes: kept up to a limit, and copied to the attempt's log up to another.

A pipe is never waited for without end: a process that left its group may hold it open for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class AttemptLog:
    """One attempt's standard output and error, in one file that appears with the first byte."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.path = path
        self._bytes_left = bytes_max
        self._file: BinaryIO | None = None

    @property
    def is_written(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def write(self, chunk: bytes) -> None:
        """Add what fits; the last line says when something did not. A full disk costs the log."""
        if self._bytes_left <= 0:
            return
        try:
            if self._file is None:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = self.path.open("wb", buffering=0)
            self._file.write(chunk[: self._bytes_left])
            self._bytes_left -= len(chunk)
            if self._bytes_left < 0:
                self._file.write(b"\n[the rest is cut off]\n")
        except OSError:
            self._bytes_left = 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Capture(asyncio.Protocol):
    """Reads one pipe to its end.

    bytes_max: how much is kept, from the front or (keeps_tail) from the end; `overflow` is called
    once when there is more.
    """

    def __init__(
        self,
        log: AttemptLog,
        bytes_max: int,
        *,
        keeps_tail: bool = False,
        overflow: Callable[[], None] = lambda: None,
    ) -> None:
        self.content = bytearray()
        self.overflowed = False
        self.ended = asyncio.get_running_loop().create_future()
        self._log = log
        self._bytes_max = bytes_max
        self._keeps_tail = keeps_tail
        self._overflow = overflow

    def data_received(self, data: bytes) -> None:
        """Keep and log a chunk."""
        self._log.write(data)
        if self.overflowed and not self._keeps_tail:
            return
        self.content += data
        surplus = len(self.content) - self._bytes_max
        if surplus <= 0:
            return
        if self._keeps_tail:
            del self.content[:surplus]
        else:
            del self.content[self._bytes_max :]
        if not self.overflowed:
            self.overflowed = True
            self._overflow()

    def connection_lost(self, exc: Exception | None) -> None:
        """The pipe ended, or was closed by us."""
        if not self.ended.done():
            self.ended.set_result(None)
