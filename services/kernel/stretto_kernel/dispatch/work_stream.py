"""One open work stream, and how streams are refused.

Values for `work_streams`, which alone changes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from stretto.common.v1 import lease_pb2
from stretto.common.v1.principal_pb2 import Principal
from stretto.work.v1 import work_pb2, work_service_pb2
from stretto_core.errors import Exhausted, Refusal
from stretto_core.ids import RequestId, WorkerId

from stretto_kernel.dispatch.hello import WorkerHello
from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.dispatch.ready_queues import SessionKey
from stretto_kernel.dispatch.session import Heard, WorkSession
from stretto_kernel.domain.run.task import NO_CALL

SendFrame = Callable[[work_service_pb2.WorkResponse], None]
EndStream = Callable[[Refusal | None], None]


class TooManyStreams(Exhausted):
    """The kernel serves its most work streams."""

    reason = "OVERLOADED"


class WorkerTooSlow(Exhausted):
    """The worker does not read what it is sent: reconnect."""

    reason = "SUBSCRIBER_TOO_SLOW"


class StreamKeeper(Protocol):
    """Keeps the streams: what one of them has to say leaves through it."""

    def mark(self, stream: WorkStream) -> None:
        """The stream has something to say at the next flush."""
        ...

    def flush_one(self, stream: WorkStream) -> None:
        """Send what this stream has to say."""
        ...

    def credits_changed(self, stream: WorkStream) -> None:
        """The stream's worker accepts another number of assignments now."""
        ...


@dataclass(slots=True, eq=False)
class WorkStream:
    """One open work stream.

    heard: what was said and not acted on yet; while `busy` the loop will come back to it.
    keeper: whose stream it is.
    send, end: hand over a frame, end the stream (None: in order); both return at once.
    """

    key: SessionKey
    session: WorkSession
    keeper: StreamKeeper
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

    # As a taker of work.

    @property
    def request_id(self) -> RequestId:
        """A stream is no call."""
        return NO_CALL

    def reserve_credit(self) -> None:
        """See `Taker`."""
        self.session.reserve_credit()

    def return_credit(self) -> None:
        """See `Taker`."""
        self.session.return_credit()
        self.keeper.credits_changed(self)

    def assign(self, lease: Lease, assignment: work_pb2.Assignment, now_mono_ns: int) -> None:
        """See `Taker`."""
        self.session.assign(assignment, now_mono_ns)
        self.keeper.mark(self)

    # As a writer under leases.

    @property
    def worker_id(self) -> WorkerId:
        """See `Holder`."""
        return self.hello.worker_id

    def answer(self, receipt: work_pb2.Receipt) -> None:
        """See `Holder`."""
        self.session.answer(receipt)
        self.keeper.mark(self)

    def renewed(self, lease: Lease) -> None:
        """See `Holder`. Says nothing unless the holder was asked to stop."""
        if lease.stop is not None:
            self.session.signal(lease.stop)
            self.keeper.mark(self)

    def renewal_unknown(self, token: lease_pb2.LeaseToken, cause: Refusal) -> None:
        """See `Holder`. Says nothing: the worker renews again soon."""

    def flush(self) -> None:
        """See `Holder`."""
        self.keeper.flush_one(self)
