"""What attempts wrote, as a client reads it, and the call that reads it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from stretto.tasklog.v1 import task_log_pb2
from stretto.tasklog.v1 import task_log_service_pb2 as pb

from stretto_sdk.client_calls import Calls
from stretto_sdk.words import member_of


class LogStream(StrEnum):
    """Which of an attempt's outputs something was written to."""

    STDOUT = "stdout"
    STDERR = "stderr"
    LOG = "log"
    UNKNOWN = "unknown"
    """One that only a newer kernel knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """Some bytes that an attempt wrote, cut anywhere: lines and characters may go on in the next.

    time: when they were read, by the worker's clock. dropped_bytes: so many before them are lost.
    truncated: the attempt reached its limit, and the rest of what it wrote is not kept.
    missing_count: entries before this one that were swept. cursor: where to go on after it.
    """

    task: str
    activation: int
    attempt: int
    stream: LogStream
    time: datetime
    content: bytes
    dropped_bytes: int
    truncated: bool
    missing_count: int
    cursor: str

    @property
    def text(self) -> str:
        """The bytes as UTF-8; what is none is replaced."""
        return self.content.decode("utf-8", "replace")


async def read_task_log(
    calls: Calls, request: pb.ReadTaskLogsRequest
) -> AsyncGenerator[LogEntry, None]:
    """Yield entries until the end; goes on after a broken connection where it was.

    The cursor of an entry leads behind it only when it closes its message; before, it leads to the
    message's first entry: who stops in the middle reads some again and misses none.
    """
    async with aclosing(calls.stream(calls.task_log.ReadTaskLogs, request)) as answers:
        async for answer in answers:
            missing_count = answer.missing_count
            for number, entry in enumerate(answer.entries, start=1):
                last = number == len(answer.entries)
                cursor = answer.cursor if last else request.cursor
                yield _entry(entry, missing_count=missing_count, cursor=cursor)
                missing_count = 0
            request.cursor, request.tail_line_count = answer.cursor, 0
            if answer.ended:
                return


def _entry(message: task_log_pb2.LogEntry, *, missing_count: int, cursor: str) -> LogEntry:
    return LogEntry(
        task=message.task,
        activation=message.activation,
        attempt=message.attempt,
        stream=member_of(LogStream, task_log_pb2.LogStream, message.stream),
        time=message.time.ToDatetime(tzinfo=UTC),
        content=message.content,
        dropped_bytes=message.dropped_bytes,
        truncated=message.truncated,
        missing_count=missing_count,
        cursor=cursor,
    )
