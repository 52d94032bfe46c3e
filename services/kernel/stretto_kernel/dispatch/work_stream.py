"""One open work stream, the worker processes known, and how streams are refused.

Values for `work_streams`, which alone changes them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import events_pb2 as ev
from stretto.work.v1 import work_pb2, work_service_pb2
from stretto_core.errors import Exhausted, FailedPrecondition, Refusal
from stretto_core.ids import SessionId, WorkerId

from stretto_kernel.dispatch.hello import WorkerHello
from stretto_kernel.dispatch.ready_queues import SessionKey
from stretto_kernel.dispatch.session import Heard, WorkSession

PROCESSES_MAX = 10_000

SendFrame = Callable[[work_service_pb2.WorkResponse], None]
EndStream = Callable[[Refusal | None], None]


class SessionReplaced(FailedPrecondition):
    """A newer process of this worker is connected: this one is to exit."""

    reason = "SESSION_REPLACED"


class TooManyStreams(Exhausted):
    """The kernel serves its most work streams."""

    reason = "OVERLOADED"


class WorkerTooSlow(Exhausted):
    """The worker does not read what it is sent: reconnect."""

    reason = "SUBSCRIBER_TOO_SLOW"


class HolderWrites(Protocol):
    """Takes what lease holders write; each is answered with a receipt on the stream."""

    def report(self, stream: WorkStream, outcome: work_pb2.Outcome) -> None:
        """An attempt ended."""
        ...

    def spawn(self, stream: WorkStream, spawn: work_pb2.Spawn) -> None:
        """Tasks to add."""
        ...

    def renew(self, stream: WorkStream, renewal: work_pb2.Renewal) -> None:
        """A lease goes on."""
        ...


@dataclass(slots=True, eq=False)
class WorkStream:
    """One open work stream.

    heard: what was said and not acted on yet; while `busy` the loop will come back to it.
    send, end: hand over a frame, end the stream (None: in order); both return at once.
    """

    key: SessionKey
    session: WorkSession
    principal: Principal
    traceparent: str
    send: SendFrame
    end: EndStream
    open: bool = True
    heard: deque[Heard] = field(default_factory=deque)
    busy: bool = False

    @property
    def hello(self) -> WorkerHello:
        """Who is at the other end; only after its hello."""
        assert self.session.hello is not None, "the stream has not said hello"
        return self.session.hello


@dataclass(slots=True)
class Worker:
    """The newest process known of a worker, and its stream while it is connected."""

    session_id: SessionId
    stream: WorkStream | None = None


class Processes:
    """The newest process of each worker, and those known to be gone; the oldest are forgotten."""

    def __init__(self) -> None:
        self._workers: OrderedDict[WorkerId, Worker] = OrderedDict()
        self._gone: OrderedDict[SessionId, ev.LossCause.ValueType] = OrderedDict()

    def find(self, worker_id: WorkerId) -> Worker | None:
        """The worker's newest process."""
        return self._workers.get(worker_id)

    def connected(self, hello: WorkerHello, stream: WorkStream) -> None:
        """The process said hello: it is its worker's newest from now on."""
        self._workers[hello.worker_id] = Worker(hello.session_id, stream)
        self._workers.move_to_end(hello.worker_id)
        self._gone.pop(hello.session_id, None)  # It lives: the proof was wrong.
        while len(self._workers) > PROCESSES_MAX:
            self._workers.popitem(last=False)

    def disconnected(self, stream: WorkStream) -> bool:
        """The stream ended; whether it was its worker's newest."""
        worker = self._workers.get(stream.hello.worker_id)
        if worker is None or worker.stream is not stream:
            return False
        worker.stream = None
        return True

    def stream_of(self, worker_id: WorkerId, session_id: SessionId) -> WorkStream | None:
        """The open stream of that very process."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.session_id != session_id:
            return None
        return worker.stream

    def note_gone(self, session_id: SessionId, cause: ev.LossCause.ValueType) -> None:
        """Remember why the leases of that process are lost."""
        self._gone[session_id] = cause
        while len(self._gone) > PROCESSES_MAX:
            self._gone.popitem(last=False)

    def loss_cause(
        self, worker_id: WorkerId, session_id: SessionId
    ) -> ev.LossCause.ValueType | None:
        """Why a lease of that process is lost, or None while nothing is known against it."""
        worker = self._workers.get(worker_id)
        cause = self._gone.get(session_id)
        if cause is None and worker is not None and worker.session_id > session_id:
            return ev.LOSS_CAUSE_SESSION_REPLACED
        return cause
