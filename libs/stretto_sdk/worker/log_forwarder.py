"""Sends what bodies write to the kernel, beside the work stream and never in its way.

Live: what is written leaves within LINGER_S, or at once when much waits or a body has ended. An
attempt's outcome waits for the last of its log, but never longer than FLUSH_S, and not at all while
the kernel does not take logs: telemetry is lost before work is late. What is lost is counted, said
in the log itself once it is taken again, and said in the worker's own log.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog
from stretto.common.v1 import lease_pb2
from stretto.tasklog.v1.task_log_pb2 import LogStream
from stretto.work.v1 import work_service_pb2 as wire
from stretto_core.clock import Clock
from stretto_core.errors import DeadlineExceeded, Refusal
from stretto_core.rpc.retry import RetryPolicy

from stretto_sdk.worker import verdicts
from stretto_sdk.worker.log_buffer import Call, LeaseLog, LogBuffer, LogLimits

LINGER_S = 0.1
FLUSH_S = 2.0
SOON_BYTES = 256 * 1024


class LogSink(Protocol):
    """Where logs go: WorkService.AppendLogs."""

    async def append_logs(self, request: wire.AppendLogsRequest) -> wire.AppendLogsResponse:
        """Return the kernel's answer within seconds. Raises Refusal."""
        ...


class TaskLogWriter:
    """What one attempt writes to. Never blocks, never raises."""

    def __init__(self, log: LeaseLog, forwarder: LogForwarder) -> None:
        self.log = log
        self._forwarder = forwarder

    def write(self, stream: LogStream.ValueType, content: bytes) -> None:
        """Add bytes to the task log."""
        self._forwarder.write(self.log, stream, content)

    def drop(self, bytes_count: int) -> None:
        """So many bytes could not be kept before they came here."""
        self._forwarder.drop(self.log, bytes_count)

    @property
    def is_full(self) -> bool:
        """Whether the body is to be held back, if it can be: what follows may be dropped."""
        return self._forwarder.is_full(self.log)

    def when_room(self, call: Callable[[], None]) -> None:
        """Make the call once it is no longer full."""
        self.log.on_room.append(call)


class LogForwarder:
    """The logs of one worker process on their way; `start` on its loop, `close` at its end.

    sink: None = nowhere, for a worker without a kernel's address (the simulator's).
    """

    def __init__(self, sink: LogSink | None, clock: Clock, limits: LogLimits | None = None) -> None:
        self._sink = sink
        self._clock = clock
        self._buffer = LogBuffer(limits or LogLimits())
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._quiet = asyncio.Event()
        """Nothing waits, or nothing can be delivered now."""
        self._failing = False
        self._pump: asyncio.Task[None] | None = None
        self._ending: dict[int, tuple[LeaseLog, asyncio.TimerHandle]] = {}
        self._policy = RetryPolicy()
        self._log = structlog.get_logger("stretto.worker")

    def open(self, token: lease_pb2.LeaseToken) -> TaskLogWriter:
        """Return what the attempt under this lease writes to."""
        return TaskLogWriter(LeaseLog(token), self)

    def write(self, log: LeaseLog, stream: LogStream.ValueType, content: bytes) -> None:
        """See `TaskLogWriter`."""
        if self._sink is None or not content:
            return
        self._buffer.write(log, stream, content, self._clock.now_ns())
        self._wake(urgent=self._buffer.waiting_bytes >= SOON_BYTES)

    def drop(self, log: LeaseLog, bytes_count: int) -> None:
        """See `TaskLogWriter`."""
        if self._sink is not None:
            self._buffer.drop(log, bytes_count)
            self._wake(urgent=False)

    def is_full(self, log: LeaseLog) -> bool:
        """See `TaskLogWriter`."""
        return self._buffer.is_full(log)

    def ended(self, log: LeaseLog, done: Callable[[], None]) -> None:
        """The body has ended: call `done` when the kernel has its log, or will not have it soon."""
        if log.is_empty or self._failing:
            done()
            return
        log.on_empty = done
        timer = asyncio.get_running_loop().call_later(FLUSH_S, self._give_up, log)
        self._ending[id(log)] = (log, timer)
        self._wake(urgent=True)

    async def close(self) -> None:
        """Send what waits if that is quick, then stop."""
        if self._pump is None:
            return
        self._urgent.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._quiet.wait()
        self._pump.cancel()
        for log, timer in list(self._ending.values()):
            timer.cancel()
            self._give_up(log)

    def _wake(self, *, urgent: bool) -> None:
        self._some.set()
        if not self._failing:
            self._quiet.clear()
        if urgent:
            self._urgent.set()
        if self._pump is None:
            self._pump = asyncio.create_task(self._send_all(), name="task-logs")

    async def _send_all(self) -> None:
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._urgent.wait()
            self._urgent.clear()
            while (call := self._buffer.take()) is not None:
                await self._send(call)
            self._some.clear()
            self._quiet.set()

    async def _send(self, call: Call) -> None:
        assert self._sink is not None, "nothing is taken for nowhere"
        for retries in itertools.count():
            try:
                response = await self._sink.append_logs(call.request)
            except Refusal as refusal:
                self._failed(refusal)
                delay_ms = self._policy.delay_ms(refusal, retries, 1.0)
                if isinstance(refusal, DeadlineExceeded):
                    delay_ms = 0.0
                if delay_ms is None:
                    for log in call.logs:
                        self._buffer.cut(log)
                    break
                await asyncio.sleep(delay_ms / 1_000)
                continue
            for log, result in zip(call.logs, response.results, strict=False):
                # Beyond its limit, or not ours any more: nothing of it is wanted.
                if result.truncated or verdicts.reason_of(result.status):
                    self._buffer.cut(log)
            if self._failing:
                self._failing = False
                self._log.info("task_log.taken_again", dropped_bytes=self._buffer.dropped_bytes)
            break
        self._buffer.settle(call)
        for log in call.logs:
            self._told(log)

    def _told(self, log: LeaseLog) -> None:
        if log.on_room and self._buffer.has_room(log):
            waiting, log.on_room = log.on_room, []
            for call in waiting:
                call()
        if log.is_empty:
            self._give_up(log)

    def _failed(self, refusal: Refusal) -> None:
        """Nobody waits for a kernel that does not take logs."""
        self._quiet.set()
        if not self._failing:
            self._failing = True
            self._log.warning(
                "task_log.not_taken", reason=refusal.reason_word, detail=refusal.message
            )
        for log, _ in list(self._ending.values()):
            self._give_up(log)

    def _give_up(self, log: LeaseLog) -> None:
        _, timer = self._ending.pop(id(log), (log, None))
        if timer is not None:
            timer.cancel()
        done, log.on_empty = log.on_empty, None
        if done is not None:
            done()
