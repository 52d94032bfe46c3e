"""Reads a pipe for another, without the secrets that the process was given."""

from __future__ import annotations

import asyncio

from stretto_worker.domain.redaction import Redaction


class RedactedPipe(asyncio.Protocol):
    """Hands on what comes; what may be the beginning of a secret waits for more, or the end."""

    def __init__(self, reader: asyncio.Protocol, redaction: Redaction) -> None:
        self._reader = reader
        self._stream = redaction.stream()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is read from now on."""
        self._reader.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what holds no secret."""
        self._hand_on(self._stream.feed(data))

    def flush(self) -> None:
        """Hand on what waits; repeating is harmless."""
        self._hand_on(self._stream.end())

    def connection_lost(self, exc: Exception | None) -> None:
        """The pipe ended, or was closed by us."""
        self.flush()
        self._reader.connection_lost(exc)

    def _hand_on(self, data: bytes) -> None:
        if data:
            self._reader.data_received(data)
