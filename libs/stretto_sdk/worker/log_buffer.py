"""What bodies wrote and the kernel does not have yet: chunks, in order, within limits. Pure.

Bytes are gathered into chunks of one stream each. Beyond the limits what comes is dropped and
counted, and the next chunk says how much. One call is on its way at a time; what it holds counts
until its answer. Sizes in bytes, instants in UTC nanoseconds since the Unix epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stretto.common.v1 import lease_pb2
from stretto.tasklog.v1.task_log_pb2 import LogStream
from stretto.work.v1 import work_service_pb2 as wire

CHUNK_BYTES_MAX = 64 * 1024
CALL_BYTES_MAX = 1024 * 1024
CALL_CHUNKS_MAX = 1_000
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """Bytes that may wait: of one attempt and of the worker. At twice as many they are dropped.

    At `*_full` a body that can be held back is.
    """

    attempt_bytes_full: int = 1024 * 1024
    worker_bytes_full: int = 16 * 1024 * 1024


@dataclass(slots=True)
class _Piece:
    stream: LogStream.ValueType
    time_ns: int
    dropped_bytes: int
    content: bytearray


@dataclass(slots=True, eq=False)
class LeaseLog:
    """What one attempt wrote. cut: the kernel takes no more of it.

    on_room: called once it is no longer full. on_empty: once nothing of it waits, or nothing can be
    delivered now.
    """

    token: lease_pb2.LeaseToken
    sequence: int = 0
    waiting_bytes: int = 0
    dropped_bytes: int = 0
    newest_ns: int = 0
    cut: bool = False
    pieces: deque[_Piece] = field(default_factory=deque)
    in_flight_bytes: int = 0
    in_flight: bool = False
    on_room: list[Callable[[], None]] = field(default_factory=list)
    on_empty: Callable[[], None] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the kernel has all of it."""
        return not (self.pieces or self.in_flight or self.dropped_bytes)


class LogBuffer:
    """The unsent logs of one worker."""

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self._dirty: dict[int, LeaseLog] = {}
        self.waiting_bytes = 0
        self.dropped_bytes = 0
        """In all, since the start."""

    def is_full(self, log: LeaseLog) -> bool:
        """Whether whoever writes is to be held back, if it can be."""
        limits = self._limits
        return not log.cut and (
            log.waiting_bytes >= limits.attempt_bytes_full
            or self.waiting_bytes >= limits.worker_bytes_full
        )

    def has_room(self, log: LeaseLog) -> bool:
        """Whether whoever was held back may go on: half of the limits is free."""
        limits = self._limits
        return log.cut or (
            log.waiting_bytes <= limits.attempt_bytes_full // 2
            and self.waiting_bytes <= limits.worker_bytes_full // 2
        )

    def write(
        self, log: LeaseLog, stream: LogStream.ValueType, content: bytes, time_ns: int
    ) -> None:
        """Add what fits; the rest is dropped and counted."""
        if log.cut:
            return
        log.newest_ns = time_ns
        room = min(
            2 * self._limits.attempt_bytes_full - log.waiting_bytes,
            2 * self._limits.worker_bytes_full - self.waiting_bytes,
        )
        # What follows a gap begins a piece, and all of it comes after the gap.
        kept = content if len(content) <= room else b""
        if kept:
            self._keep(log, stream, kept, time_ns)
        else:
            self.drop(log, len(content))
        self._dirty[id(log)] = log

    def drop(self, log: LeaseLog, bytes_count: int) -> None:
        """So many bytes of it are lost before what is written next."""
        if not log.cut:
            log.dropped_bytes += bytes_count
            self.dropped_bytes += bytes_count
            self._dirty[id(log)] = log

    def take(self) -> Call | None:
        """Take the next call, of as many logs as fit; None when nothing waits."""
        call = Call()
        bytes_left, chunks_left = CALL_BYTES_MAX, CALL_CHUNKS_MAX
        for log in list(self._dirty.values()):
            if bytes_left <= 0 or not chunks_left:
                break
            if not log.pieces and log.dropped_bytes:
                self._keep(log, LogStream.LOG_STREAM_LOG, b"", log.newest_ns)
            logs = call.request.leases.add(token=log.token)
            while log.pieces and chunks_left and len(log.pieces[0].content) <= bytes_left:
                piece = log.pieces.popleft()
                bytes_left -= len(piece.content)
                chunks_left -= 1
                log.sequence += 1
                log.in_flight_bytes += len(piece.content)
                chunk = logs.chunks.add(
                    sequence=log.sequence,
                    stream=piece.stream,
                    content=bytes(piece.content),
                    dropped_bytes=piece.dropped_bytes,
                )
                seconds, nanos = divmod(piece.time_ns, NS_PER_S)
                chunk.time.seconds, chunk.time.nanos = seconds, nanos
            if not logs.chunks:
                del call.request.leases[-1]
                break
            log.in_flight = True
            call.logs.append(log)
            if not log.pieces and not log.dropped_bytes:
                del self._dirty[id(log)]
        return call if call.logs else None

    def settle(self, call: Call) -> None:
        """The call is answered, or given up: what it held waits no more."""
        for log in call.logs:
            log.waiting_bytes -= log.in_flight_bytes
            self.waiting_bytes -= log.in_flight_bytes
            log.in_flight_bytes, log.in_flight = 0, False

    def cut(self, log: LeaseLog) -> None:
        """The kernel takes no more of it."""
        gone = sum(len(piece.content) for piece in log.pieces)
        log.waiting_bytes -= gone
        self.waiting_bytes -= gone
        log.pieces.clear()
        log.cut, log.dropped_bytes = True, 0
        self._dirty.pop(id(log), None)

    def _keep(
        self, log: LeaseLog, stream: LogStream.ValueType, content: bytes, time_ns: int
    ) -> None:
        log.waiting_bytes += len(content)
        self.waiting_bytes += len(content)
        for start in range(0, max(1, len(content)), CHUNK_BYTES_MAX):
            part = content[start : start + CHUNK_BYTES_MAX]
            last = log.pieces[-1] if log.pieces else None
            fits = last is not None and len(last.content) + len(part) <= CHUNK_BYTES_MAX
            if last is not None and fits and last.stream == stream and not log.dropped_bytes:
                last.content += part
            else:
                log.pieces.append(_Piece(stream, time_ns, log.dropped_bytes, bytearray(part)))
                log.dropped_bytes = 0


@dataclass(slots=True, eq=False)
class Call:
    """One AppendLogs on its way. logs: whose, in the order of the request."""

    request: wire.AppendLogsRequest = field(default_factory=wire.AppendLogsRequest)
    logs: list[LeaseLog] = field(default_factory=list)
