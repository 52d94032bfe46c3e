"""Carries a worker's session out: keeps one work stream to the kernel, hands bodies to executors.

One coroutine reads, one writes, one timer wakes the writer; the session machine decides everything
they do. While a frame is being written whatever happens meanwhile gathers for the next, so frames
grow with load by themselves. No body runs here: python bodies have a thread and loop of their own
(bodies.py), so a body that blocks never delays a renewal, an acknowledgement or the control answer.
What can still delay them is C code that holds the interpreter lock.

Waits go through the running loop and instants through the Clock port: the simulator brings both.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

import structlog
from stretto.common.v1 import failure_pb2, payload_pb2
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.errors import (
    InvalidArgument,
    PermissionDenied,
    Refusal,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

from stretto_sdk.blobs import Source
from stretto_sdk.board_link import BoardLink
from stretto_sdk.worker.effects import (
    CloseStream,
    Effect,
    Ending,
    Exit,
    Failed,
    LeaseKey,
    Leave,
    OutcomeSettled,
    SessionSettings,
    SpawnAnswered,
    Start,
    Stop,
    key_of,
)
from stretto_sdk.worker.log_forwarder import LogForwarder, LogSink, TaskLogWriter
from stretto_sdk.worker.ports import Dialer, Executor, Link
from stretto_sdk.worker.session import WorkSession

RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 1.0
GOODBYE_S_MAX = 1.0
REPLACED = "SESSION_REPLACED"


class Ended(Enum):
    """Why a worker ended, with the process's exit status."""

    DRAINED = 0
    REPLACED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainLimits:
    """finish_s: how long bodies may finish; hand_back_s: how long they may then take to stop."""

    finish_s: float = 30.0
    hand_back_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A body that runs: its executor, since when (UTC ns since the Unix epoch), and its log."""

    executor: Executor
    accept_ns: int
    log: TaskLogWriter


class WorkerRuntime:
    """One worker process's work, from its first hello to its goodbye.

    executors: by the name that assignments give. Its methods are called on its loop only.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        dialer: Dialer,
        executors: Mapping[str, Executor],
        clock: Clock,
        drain_limits: DrainLimits | None = None,
        log_sink: LogSink | None = None,
    ) -> None:
        self.settings = settings
        self.session = WorkSession(settings)
        self.running: dict[LeaseKey, Running] = {}
        self._dialer = dialer
        self._executors = executors
        self._clock = clock
        self._limits = drain_limits or DrainLimits()
        # Seeded by the process's id: workers spread their reconnects, a simulation repeats its own.
        self._random = random.Random(settings.session_id)
        self._logs = LogForwarder(log_sink, clock)
        self._wake = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._log = structlog.get_logger("stretto.worker").bind(worker_id=settings.worker_id)
        for executor in executors.values():
            executor.attach(self)

    async def run(self) -> Ended:
        """Work until drained or replaced; every body has ended then.

        Raises Unauthenticated, PermissionDenied or InvalidArgument when the kernel will never take
        this worker as it is. Everything else is a reason to connect again.
        """
        try:
            return await self._run()
        finally:
            for timer in self._timers:
                timer.cancel()
            for executor in self._executors.values():
                await executor.close()
            await self._logs.close()

    def drain(self, reason: str) -> None:
        """Take nothing more, let bodies finish within the limits, hand the rest back, and end.

        Safe to repeat.
        """
        if self.session.is_draining:
            return
        self._log.info("worker.draining", reason=reason, lease_count=len(self.running))
        self.session.drain()
        loop = asyncio.get_running_loop()
        hand_back_s = self._limits.finish_s
        leave_s = hand_back_s + self._limits.hand_back_s
        self._timers.append(loop.call_later(hand_back_s, self._hand_back))
        self._timers.append(loop.call_later(leave_s, self._leave))
        self._wake.set()

    # Reports of executors.

    def ended(self, key: LeaseKey, ending: Ending) -> None:
        """Keep the outcome until the kernel has it; it leaves after the last of the body's log."""
        running = self.running.get(key)
        if running is not None:
            self._logs.ended(running.log.log, partial(self._ended, key, ending))

    async def put_blob(self, key: LeaseKey, source: Source) -> payload_pb2.BlobRef:
        """See `Reports`: this worker has no carrier around its executors."""
        raise Unimplemented("this worker stores no blobs", feature="put_blob")

    @property
    def boards(self) -> BoardLink:
        """See `Reports`: this worker has no carrier around its executors."""
        raise Unimplemented("this worker reaches no blackboards", feature="blackboard")

    def task_log(self, key: LeaseKey) -> TaskLogWriter:
        """See `Reports`."""
        return self.running[key].log

    def heartbeat(self, key: LeaseKey, details: payload_pb2.Payload) -> None:
        """Pass newest details on with the next renewal."""
        self.session.heartbeat(key, details, self._clock.mono_ns())
        self._wake.set()

    def spawn(self, key: LeaseKey, request_id: str, tasks: tuple[plan_pb2.TaskSpec, ...]) -> None:
        """Ask the kernel for tasks."""
        self._carry_out(self.session.spawn(key, request_id, tasks))
        self._wake.set()

    def _ended(self, key: LeaseKey, ending: Ending) -> None:
        self.running.pop(key, None)
        self.session.end(key, ending)
        self._wake.set()

    # The stream.

    async def _run(self) -> Ended:
        refused_count = 0
        while not self.session.is_done:
            try:
                await self._serve_stream()
            except (Unauthenticated, PermissionDenied, InvalidArgument):
                raise
            except Refusal as refusal:
                if refusal.reason_word == REPLACED:
                    self._log.warning("worker.replaced")
                    self._carry_out(self.session.replaced())
                    return Ended.REPLACED
                refused_count = 0 if self.session.is_connected else refused_count + 1
                self._log.info("stream.lost", reason=refusal.reason_word, detail=refusal.message)
            finally:
                self.session.disconnected()
            if not self.session.is_done:
                await self._back_off(refused_count)
        return Ended.DRAINED

    async def _serve_stream(self) -> None:
        """Work over one stream until it ends. Raises the Refusal that ended it."""
        link = await self._dialer.dial()
        self.session.connected(self._clock.mono_ns())
        reading = asyncio.create_task(self._read(link), name="work-stream-read")
        writing = asyncio.create_task(self._write(link), name="work-stream-write")
        both = (reading, writing)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if writing.done() and not reading.done():
                # A refused stream fails both ways, and the reader knows the status; after a
                # goodbye the kernel ends the stream, and cancelling it before could lose that.
                patience_s = GOODBYE_S_MAX if self.session.is_done else RECONNECT_S_MIN
                await asyncio.wait((reading,), timeout=patience_s)
            for task in both:
                task.cancel()
            results = await asyncio.gather(*both, return_exceptions=True)
            await link.close()
        for result in results:
            if isinstance(result, Exception) and not self.session.is_done:
                raise result

    async def _read(self, link: Link) -> None:
        while True:
            frame = await link.receive()
            self._carry_out(self.session.receive(frame, self._clock.mono_ns()))
            self._wake.set()

    async def _write(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Cleared before the session is asked: what happens from here on sets it again.
            self._wake.clear()
            now_ns = self._clock.mono_ns()
            self._carry_out(self.session.tick(now_ns))
            while (frame := self.session.take_frame(now_ns)) is not None:
                await link.send(frame)
                now_ns = self._clock.mono_ns()
            if self.session.is_done:
                return
            due_ns = self.session.next_wake_ns(now_ns)
            delay_s = None if due_ns is None else (due_ns - now_ns) / NS_PER_S
            timer = None if delay_s is None else loop.call_later(delay_s, self._wake.set)
            await self._wake.wait()
            if timer is not None:
                timer.cancel()

    async def _back_off(self, refused_count: int) -> None:
        """Wait 50 ms at first and at most 1 s, a random part of it; a finished drain ends it."""
        longest_s = min(RECONNECT_S_MAX, RECONNECT_S_MIN * 2 ** min(refused_count, 10))
        delay_s = RECONNECT_S_MIN + self._random.random() * (longest_s - RECONNECT_S_MIN)
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + delay_s
        while (left_s := give_up_s - loop.time()) > 0 and not self.session.is_done:
            self._wake.clear()
            timer = loop.call_later(left_s, self._wake.set)
            await self._wake.wait()
            timer.cancel()

    # Effects.

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Start(assignment=assignment):
                    self._start(assignment)
                case Stop(key=key, kind=kind, reason=reason):
                    self._log.info("attempt.stopping", **_named(key), kind=kind.name, reason=reason)
                    if key in self.running:
                        self.running[key].executor.stop(effect)
                case SpawnAnswered(key=key):
                    if key in self.running:
                        self.running[key].executor.spawn_answered(effect)
                case OutcomeSettled(key=key, reason=reason):
                    if reason:
                        self._log.info("outcome.refused", **_named(key), reason=reason)
                case CloseStream(reason=reason):
                    raise Unavailable(reason)
                case Leave(reason=reason):
                    self.drain(reason)
                case Exit():
                    pass  # `_run`, which asked for it, ends the process.

    def _start(self, assignment: work_pb2.Assignment) -> None:
        key = key_of(assignment.token)
        executor = self._executors.get(assignment.executor)
        if executor is None:
            offered = ", ".join(self._executors)
            failure = failure_pb2.Failure(
                reason="UNKNOWN_EXECUTOR",
                message=f"This worker has no executor {assignment.executor!r}, only {offered}.",
            )
            self.session.end(key, Failed(failure))
            return
        log = self._logs.open(assignment.token)
        self.running[key] = Running(executor, self._clock.now_ns(), log)
        executor.begin(assignment)

    def _hand_back(self) -> None:
        self._carry_out(self.session.hand_back("the worker's drain limit"))
        self._wake.set()

    def _leave(self) -> None:
        self.session.leave()
        self._wake.set()


def _named(key: LeaseKey) -> dict[str, str | int]:
    return {"work_item": key.work_item, "fencing_token": key.epoch}
