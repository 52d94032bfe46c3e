"""The named pipe by which a program writes to the blackboard of its run: a line is a write.

    {"key": ":progress/percent", "value": 50}
    {"key": "context/goal", "delete": true, "expected": 7}

Lines are written one after another, in their order, under the lease of the attempt; who holds a
lease that was passed on writes nothing. The pipe says nothing back: of the lines that were refused
the first is the failure of an attempt that else had succeeded. While LINES_WAITING_MAX lines wait
for the kernel the pipe is not read, and holds the program back. Runs on the protocol's loop and
never blocks it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from stretto_core.errors import InvalidArgument, Refusal, Unavailable
from stretto_sdk.blackboard import Blackboard
from stretto_sdk.fields import Fields, Mistakes
from stretto_sdk.strict_json import parse_json
from stretto_sdk.worker.effects import Ending, Failed
from stretto_sdk.worker.endings import failed

from stretto_worker.domain.redaction import Redaction

LINE_BYTES_MAX = 64 * 1024
LINES_WAITING_MAX = 100
_READ_BYTES = 64 * 1024
_REST_READS_MAX = 64
"""Of what is in the pipe at the end; a process that left its group may write for ever."""


@dataclass(frozen=True, slots=True)
class BoardWrite:
    """What a line asks for. expected: the revision that the entry must have; None = any."""

    key: str
    value: object
    deletes: bool
    expected: int | None


def parse_write(line: bytes, redaction: Redaction) -> BoardWrite:
    """Return the write that a line asks for, without secrets. Raises InvalidArgument."""
    if len(line) > LINE_BYTES_MAX:
        raise InvalidArgument(f"has more than {LINE_BYTES_MAX} bytes")
    mistakes = Mistakes()
    fields = Fields(redaction.value(parse_json(line, source="it")), "", mistakes)
    write = BoardWrite(
        key=fields.text("key", required=True),
        value=fields.value("value"),
        deletes=fields.boolean("delete"),
        expected=fields.integer("expected", low=0) if fields.has("expected") else None,
    )
    if write.deletes and write.value is not None:
        fields.wrong("value", "and delete cannot both be")
    fields.finish()
    mistakes.raise_if_any("it")
    return write


class BoardPipe:
    """The pipe of one attempt, in a directory of its own that only the worker's account enters.

    Raises OSError when it cannot be made. `close` frees it, whatever became of the attempt.
    """

    def __init__(self, board: Blackboard, redaction: Redaction) -> None:
        self._board = board
        self._redaction = redaction
        self._directory = Path(tempfile.mkdtemp(prefix="stretto-board-"))
        self.path = self._directory / "board"
        self._descriptors: list[int] = []
        self._lines: deque[bytes] = deque()
        self._begun = b""  # A line whose end has not come yet.
        self._line_count = 0
        self._is_read = False
        self._is_complete = False
        self._wake = asyncio.Event()
        self._refused: Failed | None = None
        self._writing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        try:
            os.mkfifo(self.path, 0o600)
            flags = os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptors.append(os.open(self.path, os.O_RDONLY | flags))
            # A writer of our own, or the pipe would end between two of the program's.
            self._descriptors.append(os.open(self.path, os.O_WRONLY | flags))
        except OSError:
            self.close()
            raise
        self._writing = self._loop.create_task(self._write_all())
        self._read_on()

    async def ending(self, ending: Ending) -> Ending:
        """Return how the attempt ended once all that its program wrote was answered.

        Call it when the program has ended: what the pipe holds then is the rest.
        """
        self._hold_back()
        for _ in range(_REST_READS_MAX):
            if not (chunk := self._chunk()):
                break
            self._take(chunk)
        if self._begun:
            self._take(b"\n")
        self._is_complete = True
        self._wake.set()
        if self._writing is not None:
            await self._writing
        return ending if self._refused is None or isinstance(ending, Failed) else self._refused

    def close(self) -> None:
        """Write nothing more and leave nothing behind. Safe to repeat."""
        self._hold_back()
        if self._writing is not None:
            self._writing.cancel()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _read_on(self) -> None:
        if not self._is_read and not self._is_complete:
            self._is_read = True
            self._loop.add_reader(self._descriptors[0], self._readable)

    def _hold_back(self) -> None:
        if self._is_read:
            self._is_read = False
            self._loop.remove_reader(self._descriptors[0])

    def _readable(self) -> None:
        self._take(self._chunk())
        if len(self._lines) >= LINES_WAITING_MAX:
            self._hold_back()

    def _chunk(self) -> bytes:
        try:
            return os.read(self._descriptors[0], _READ_BYTES)
        except BlockingIOError:
            return b""

    def _take(self, chunk: bytes) -> None:
        *ended, self._begun = (self._begun + chunk).split(b"\n")
        # Of a line that is too long one byte too many is kept: enough to refuse it.
        self._begun = self._begun[: LINE_BYTES_MAX + 1]
        self._lines.extend(ended)
        if ended:
            self._wake.set()

    async def _write_all(self) -> None:
        while True:
            while self._lines:
                line = self._lines.popleft()
                self._line_count += 1
                if line.strip():
                    await self._write(line)
                if len(self._lines) < LINES_WAITING_MAX:
                    self._read_on()
            if self._is_complete:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _write(self, line: bytes) -> None:
        try:
            write = parse_write(line, self._redaction)
            if write.deletes:
                await self._board.delete(write.key, expected=write.expected)
            else:
                await self._board.put(write.key, write.value, expected=write.expected)
        except Refusal as refusal:
            if self._refused is None:
                self._refused = failed(
                    "BOARD_WRITE_REFUSED",
                    f"line {self._line_count} of the blackboard's pipe: {refusal.message}",
                    retryable=isinstance(refusal, Unavailable),
                )
