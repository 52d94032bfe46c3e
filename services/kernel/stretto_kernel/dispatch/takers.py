"""Who takes work and who writes under leases: what work streams and unary calls have in common.

The dispatcher leases to a `Taker` and the holder writer answers a `Holder`, whatever carries the
words. Ports only; nothing here has state.
"""

from __future__ import annotations

from typing import Protocol

from stretto.common.v1 import lease_pb2
from stretto.common.v1.principal_pb2 import Principal
from stretto.work.v1 import work_pb2
from stretto_core.errors import Refusal
from stretto_core.ids import RequestId, WorkerId

from stretto_kernel.dispatch.hello import WorkerHello
from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.dispatch.ready_queues import SessionKey


class Taker(Protocol):
    """Takes assignments: a work stream, or a LeaseWork call."""

    @property
    def key(self) -> SessionKey:
        """Names it in the ready queues."""
        ...

    @property
    def hello(self) -> WorkerHello:
        """Which process it speaks for."""
        ...

    @property
    def request_id(self) -> RequestId:
        """The call, or `NO_CALL` of a stream."""
        ...

    def reserve_credit(self) -> None:
        """An assignment is being made for it."""
        ...

    def return_credit(self) -> None:
        """The assignment that was being made will not come."""
        ...

    def assign(self, lease: Lease, assignment: work_pb2.Assignment, now_mono_ns: int) -> None:
        """The lease is committed, under a credit reserved before; it leaves at the next flush."""
        ...


class Holder(Protocol):
    """Writes under leases, and is answered."""

    @property
    def principal(self) -> Principal:
        """Who, by its credentials."""
        ...

    @property
    def traceparent(self) -> str:
        """Its trace context, "" without one."""
        ...

    @property
    def worker_id(self) -> WorkerId:
        """Who it says it is, for the log; "" when it does not say."""
        ...

    def answer(self, receipt: work_pb2.Receipt) -> None:
        """What became of a write, or why a renewal is refused."""
        ...

    def renewed(self, lease: Lease) -> None:
        """A renewal was accepted."""
        ...

    def renewal_unknown(self, token: lease_pb2.LeaseToken, cause: Refusal) -> None:
        """Whether the lease is open cannot be told now."""
        ...

    def flush(self) -> None:
        """Say what there is to say, outside of a commit."""
        ...


class HolderWrites(Protocol):
    """Takes what lease holders write; each write is answered with a receipt."""

    def report(self, holder: Holder, outcome: work_pb2.Outcome) -> None:
        """An attempt ended."""
        ...

    def spawn(self, holder: Holder, spawn: work_pb2.Spawn) -> None:
        """Tasks to add."""
        ...

    def renew(self, holder: Holder, renewal: work_pb2.Renewal) -> None:
        """A lease goes on."""
        ...
