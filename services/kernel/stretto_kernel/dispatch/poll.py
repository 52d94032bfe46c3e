"""One LeaseWork call of a worker process: credits in, one answer out.

Owns how many assignments the call may still be granted, which are being made for it, and who waits
for its answer: the call itself, and repeats of it that came while it waited. It decides nothing;
`work_polls` carries out what it comes to. Instants are monotonic nanoseconds.

The answer leaves once nothing is being made any more, so that every lease granted to the call is in
its answer or provably was never sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from stretto.work.v1 import work_pb2
from stretto_core.errors import AlreadyExists, Exhausted
from stretto_core.ids import RequestId

from stretto_kernel.dispatch.hello import WorkerHello
from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.dispatch.ready_queues import SessionKey

ANSWER_BYTES_MAX = 3 * 1024 * 1024


class RequestIdReused(AlreadyExists):
    """The request id belongs to another LeaseWork call of this session."""

    reason = "REQUEST_ID_REUSED"


class TooManyPolls(Exhausted):
    """The worker, or the kernel, has its most waiting LeaseWork calls."""

    reason = "OVERLOADED"


@dataclass(frozen=True, slots=True)
class LeaseCall:
    """A checked LeaseWork request.

    wait_ns: how long to wait for the first assignment, the caller's deadline considered.
    """

    hello: WorkerHello
    request_id: RequestId
    count_max: int
    wait_ns: int

    def is_repeat_of(self, other: LeaseCall) -> bool:
        """Whether both ask for the same; how long they wait is each one's own."""
        return (self.hello, self.count_max) == (other.hello, other.count_max)


@dataclass(slots=True, eq=False)
class Poll:
    """A LeaseWork call that waits, or whose answer is on its way.

    due_mono_ns: it is granted nothing after this.
    settled: told when something that was being made for it is committed, or will not come.
    answer: done when `granted` is what every caller is told.
    waiting_count: callers that have not come back for the answer.
    granted: leases committed for it, with what the caller is told.
    """

    key: SessionKey
    call: LeaseCall
    due_mono_ns: int
    settled: Callable[[Poll], None]
    answer: asyncio.Future[None]
    waiting_count: int = 1
    making_count: int = 0
    granted: list[tuple[Lease, work_pb2.Assignment]] = field(default_factory=list)
    closed: bool = False
    delivered: bool = False

    @property
    def hello(self) -> WorkerHello:
        """See `Taker`."""
        return self.call.hello

    @property
    def request_id(self) -> RequestId:
        """See `Taker`."""
        return self.call.request_id

    @property
    def free_credits(self) -> int:
        """How many more assignments it takes."""
        if self.closed:
            return 0
        return self.call.count_max - self.making_count - len(self.granted)

    @property
    def answered(self) -> bool:
        """Whether `granted` is final."""
        return self.answer.done()

    def reserve_credit(self) -> None:
        """See `Taker`."""
        self.making_count += 1

    def return_credit(self) -> None:
        """See `Taker`."""
        self.making_count -= 1
        self.settled(self)

    def assign(self, lease: Lease, assignment: work_pb2.Assignment, now_mono_ns: int) -> None:
        """See `Taker`. The lease remembers what its holder is told until it is acknowledged."""
        self.making_count -= 1
        lease.assignment = assignment
        self.granted.append((lease, assignment))
        self.settled(self)

    def take_surplus(self) -> list[Lease]:
        """Take out the leases that do not fit into one answer."""
        bytes_count = 0
        for index, (_, assignment) in enumerate(self.granted):
            bytes_count += assignment.ByteSize()
            if index and bytes_count > ANSWER_BYTES_MAX:
                surplus = [lease for lease, _ in self.granted[index:]]
                del self.granted[index:]
                return surplus
        return []
