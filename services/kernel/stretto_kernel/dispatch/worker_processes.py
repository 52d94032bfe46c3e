"""Which process is the newest of each worker, which are gone, and what that means for leases.

Owns the rules of sessions that streams and polls share: a newer process fences the older and takes
its leases; an older one is refused; a process whose death is proven loses its leases at once. Knows
no frame and no call; whoever has an open exchange with a process follows and is told of its end.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from stretto.run.v1 import events_pb2 as ev
from stretto_core.errors import FailedPrecondition
from stretto_core.ids import SessionId, WorkerId

from stretto_kernel.dispatch.death_watch import WorkerDialer, is_proven_dead
from stretto_kernel.dispatch.hello import WorkerHello
from stretto_kernel.dispatch.lease_table import Lease

if TYPE_CHECKING:
    from stretto_kernel.dispatch.shared import Shared
    from stretto_kernel.dispatch.work_stream import WorkStream

PROCESSES_MAX = 10_000

Replaced = Callable[[WorkerHello], None]
"""Told of a process that says hello, before older ones of its worker lose their leases."""


class SessionReplaced(FailedPrecondition):
    """A newer process of this worker is connected: this one is to exit."""

    reason = "SESSION_REPLACED"


@dataclass(slots=True)
class Worker:
    """The newest process known of a worker, and its stream while it has one.

    hello: the newest it said. since_ns: when the first of the process came, on the wall clock.
    heard_mono_ns: when it said hello, or was last heard on a stream that is lost.
    unary: it leases by calls. end: why it is gone for sure; "" = it is not.
    drain_reason: why it was asked to end; "" = it was not.
    hello_count: how often it said hello: tells a proof of death from one that raced with a hello.
    """

    session_id: SessionId
    hello: WorkerHello
    since_ns: int
    heard_mono_ns: int
    unary: bool = False
    end: str = ""
    drain_reason: str = ""
    stream: WorkStream | None = None
    hello_count: int = 0


class WorkerProcesses:
    """The newest process of each worker, and those known to be gone; the oldest are forgotten."""

    def __init__(self, shared: Shared, dialer: WorkerDialer) -> None:
        self._leases = shared.leases
        self._clock = shared.clock
        self._own = shared.own
        self._dialer = dialer
        self._workers: OrderedDict[WorkerId, Worker] = OrderedDict()
        self._gone: OrderedDict[SessionId, ev.LossCause.ValueType] = OrderedDict()
        self._followers: list[Replaced] = []
        self._watched: dict[SessionId, asyncio.Task[None]] = {}
        self._log = structlog.get_logger("stretto.kernel.workers")

    def follow(self, replaced: Replaced) -> None:
        """Tell `replaced` of every hello from now on."""
        self._followers.append(replaced)

    @property
    def workers(self) -> Mapping[WorkerId, Worker]:
        """The newest process of each worker that is known."""
        return self._workers

    def greet(self, hello: WorkerHello, *, unary: bool) -> Worker:
        """The process said hello: it is its worker's newest from now on. Raises SessionReplaced.

        Leases of the worker's other processes are lost at once.
        """
        worker = self._workers.get(hello.worker_id)
        known = worker.session_id if worker else self._leases.newest_session(hello.worker_id)
        if known is not None and known > hello.session_id:
            raise SessionReplaced(
                "a newer process of this worker is connected", worker_id=hello.worker_id
            )
        for replaced in self._followers:
            replaced(hello)
        now_mono_ns = self._clock.mono_ns()
        if worker is None or worker.session_id != hello.session_id:
            worker = self._workers[hello.worker_id] = Worker(
                hello.session_id, hello, self._clock.now_ns(), now_mono_ns
            )
        worker.hello, worker.heard_mono_ns = hello, now_mono_ns
        worker.unary, worker.end = unary, ""
        self._workers.move_to_end(hello.worker_id)
        worker.hello_count += 1
        self._gone.pop(hello.session_id, None)  # It lives: the proof was wrong.
        while len(self._workers) > PROCESSES_MAX:
            self._workers.popitem(last=False)
        for lease in self._leases.held_by_other_sessions(hello.worker_id, hello.session_id):
            self._note_gone(lease.session_id, ev.LOSS_CAUSE_SESSION_REPLACED)
            self._own.lose(lease, ev.LOSS_CAUSE_SESSION_REPLACED)
        return worker

    def newest_stream(self, worker_id: WorkerId) -> WorkStream | None:
        """The open stream of the worker's newest process."""
        worker = self._workers.get(worker_id)
        return None if worker is None else worker.stream

    def disconnected(self, stream: WorkStream) -> bool:
        """The stream ended; whether it was that of its worker's newest process."""
        worker = self._workers.get(stream.hello.worker_id)
        if worker is None or worker.stream is not stream:
            return False
        worker.stream = None
        worker.heard_mono_ns = stream.session.heard_mono_ns
        return True

    def left(self, hello: WorkerHello) -> None:
        """The process said goodbye."""
        self._note_end(hello.worker_id, hello.session_id, "it said goodbye")

    def _note_end(self, worker_id: WorkerId, session_id: SessionId, end: str) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None and worker.session_id == session_id:
            worker.end = end

    def stream_of(self, worker_id: WorkerId, session_id: SessionId) -> WorkStream | None:
        """The open stream of that very process."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.session_id != session_id:
            return None
        return worker.stream

    def loss_cause(self, lease: Lease) -> ev.LossCause.ValueType | None:
        """Why the lease is lost, or None while nothing is known against its process."""
        worker = self._workers.get(lease.worker_id)
        cause = self._gone.get(lease.session_id)
        if cause is None and worker is not None and worker.session_id > lease.session_id:
            return ev.LOSS_CAUSE_SESSION_REPLACED
        return cause

    def watch_death(self, hello: WorkerHello) -> None:
        """An exchange with the process broke off: if it holds leases, see whether it is gone."""
        if not hello.control_address or not self._leases.held_by_session(hello.session_id):
            return
        if (before := self._watched.get(hello.session_id)) is not None:
            before.cancel()
        task = asyncio.create_task(self._watch_death(hello), name="death-watch")
        self._watched[hello.session_id] = task
        task.add_done_callback(partial(self._watch_ended, hello.session_id))

    def close(self) -> None:
        """Forget what waits."""
        for task in self._watched.values():
            task.cancel()

    def _watch_ended(self, session_id: SessionId, task: asyncio.Task[None]) -> None:
        if self._watched.get(session_id) is task:
            del self._watched[session_id]

    async def _watch_death(self, hello: WorkerHello) -> None:
        hellos_before = self._hello_count(hello)
        if not await is_proven_dead(self._dialer, hello.control_address, hello.session_id):
            return
        if self._hello_count(hello) != hellos_before:
            return  # It was heard meanwhile; a dial that raced with that proves nothing.
        self._log.info("worker.dead", worker_id=hello.worker_id, session_id=hello.session_id)
        self._note_gone(hello.session_id, ev.LOSS_CAUSE_PROCESS_GONE)
        self._note_end(hello.worker_id, hello.session_id, "its process is gone")
        for lease in self._leases.held_by_session(hello.session_id):
            self._own.lose(lease, ev.LOSS_CAUSE_PROCESS_GONE)

    def _hello_count(self, hello: WorkerHello) -> int:
        worker = self._workers.get(hello.worker_id)
        return 0 if worker is None else worker.hello_count

    def _note_gone(self, session_id: SessionId, cause: ev.LossCause.ValueType) -> None:
        """Remember why the leases of that process are lost."""
        self._gone[session_id] = cause
        while len(self._gone) > PROCESSES_MAX:
            self._gone.popitem(last=False)
