"""What a process writes to one pipe: kept up to a limit for the result, passed on to its task log.

A pipe is never waited for without end: a process that left its group may hold it open for ever. A
full task log holds the process back by not reading, once and for PATIENCE_S at most until there is
room again; then it goes on, and what the log cannot keep is lost to the log alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from stretto.tasklog.v1.task_log_pb2 import LogStream
from stretto_sdk.worker.log_forwarder import TaskLogWriter

PATIENCE_S = 1.0


class Capture(asyncio.Protocol):
    """Reads one pipe to its end.

    bytes_max: how much is kept, from the front or (keeps_tail) from the end; `overflow` is called
    once when there is more.
    """

    def __init__(
        self,
        log: TaskLogWriter,
        stream: LogStream.ValueType,
        bytes_max: int,
        *,
        keeps_tail: bool = False,
        overflow: Callable[[], None] = lambda: None,
    ) -> None:
        self.content = bytearray()
        self.overflowed = False
        self.ended = asyncio.get_running_loop().create_future()
        self._log = log
        self._stream = stream
        self._bytes_max = bytes_max
        self._keeps_tail = keeps_tail
        self._overflow = overflow
        self._transport: asyncio.ReadTransport | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._held_back = False
        self._waits_for_room = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is read from now on."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Keep and log a chunk."""
        self._log.write(self._stream, data)
        if self._log.is_full and not self._waits_for_room:
            self._hold_back()
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
        self._end_patience()
        if not self.ended.done():
            self.ended.set_result(None)

    def go_on(self) -> None:
        """Read on, whether there is room or not. Idempotent."""
        self._end_patience()
        if self._held_back and self._transport is not None:
            self._held_back = False
            self._transport.resume_reading()

    def _hold_back(self) -> None:
        assert self._transport is not None, "it was read from"
        self._waits_for_room = self._held_back = True
        self._transport.pause_reading()
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self.go_on)
        self._log.when_room(self._room)

    def _room(self) -> None:
        self._waits_for_room = False
        self.go_on()

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
