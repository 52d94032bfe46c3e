"""The LeaseWork calls of this process: work streams of one answer, for workers without a stream.

Owns the calls that wait, whether their callers came back for the answer, and which offers are
present between two calls of a worker. To the ready queues a call is a session with `count_max`
credits, so that the dispatcher leases to it as to a stream; one alarm serves all their deadlines.

No lease is left with nobody. What is committed for a call whose caller is gone was never sent: it
is released at once. What was sent and not acknowledged is sent again to the same request id, or
runs out. What a predecessor leased under a request id that is asked for again was never begun,
because a body begins after its first renewal: it is released.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog
from stretto.run.v1 import events_pb2 as ev
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.errors import FailedPrecondition, Refusal, Unavailable
from stretto_core.ids import RequestId, SessionId, WorkerId

from stretto_kernel.dispatch.hello import WorkerHello
from stretto_kernel.dispatch.lease_table import Lease, LeaseKey
from stretto_kernel.dispatch.poll import LeaseCall, Poll, RequestIdReused, TooManyPolls
from stretto_kernel.dispatch.ready_queues import OfferKey, SessionKey
from stretto_kernel.dispatch.shared import Shared
from stretto_kernel.dispatch.worker_processes import SessionReplaced, WorkerProcesses
from stretto_kernel.timers.heap import TimerHeap

POLLS_PER_WORKER_MAX = 16
ANSWERED_MAX = 10_000
PRESENCE_NS = 60 * NS_PER_S
"""A worker counts as there so long after its last call: it is busy, not gone."""
PRESENCES_MAX = 1_000

CallKey = tuple[SessionId, RequestId]


class Draining(Unavailable):
    """The kernel is ending: it leases nothing more."""

    reason = "DRAINING"


class WorkerDrained(FailedPrecondition):
    """Somebody asked for this process to end: it is to finish what it holds, and exit."""

    reason = "WORKER_DRAINED"


class WorkPolls:
    """The LeaseWork calls of one ownership of the partition."""

    def __init__(self, shared: Shared, *, processes: WorkerProcesses, polls_max: int) -> None:
        self._host = shared.host
        self._clock = shared.clock
        self._own = shared.own
        self._queues = shared.queues
        self._leases = shared.leases
        self._session_keys = shared.session_keys
        self._processes = processes
        processes.follow(self._end_older)
        self._polls_max = polls_max
        self._by_call: dict[CallKey, Poll] = {}
        self._by_key: dict[SessionKey, Poll] = {}
        self._by_worker: dict[WorkerId, dict[SessionKey, Poll]] = {}
        self._answered: OrderedDict[CallKey, frozenset[tuple[LeaseKey, int]]] = OrderedDict()
        self._dues: TimerHeap[SessionKey, None] = TimerHeap()
        self._present: dict[OfferKey, SessionKey] = {}
        self._presences: TimerHeap[OfferKey, None] = TimerHeap()
        self._pump: Callable[[], None] = lambda: None
        self._armed: Callable[[], None] = lambda: None
        self._draining = ""
        self.granted_count = 0
        self.empty_count = 0
        self.undelivered_count = 0
        self._log = structlog.get_logger("stretto.kernel.workers")

    def connect(self, pump: Callable[[], None], armed: Callable[[], None]) -> None:
        """`pump` leases what became possible; `armed` is told when something is due earlier."""
        self._pump = pump
        self._armed = armed

    async def lease(self, call: LeaseCall) -> list[work_pb2.Assignment]:
        """Return what is leased to the call, as soon as there is something or its time is over.

        When it is cancelled instead, nothing stays leased to it. Raises SessionReplaced,
        RequestIdReused, TooManyPolls, Draining, Unavailable.
        """
        if self._draining:
            raise Draining(self._draining)
        worker = self._processes.greet(call.hello, unary=True)
        if worker.drain_reason:
            raise WorkerDrained(worker.drain_reason, worker_id=call.hello.worker_id)
        granted = self._granted_before(call)
        if granted is not None:
            # Only an owner that still is one may say what is leased.
            await self._host.facts.writer.barrier()
            return granted
        poll = self._join(call)
        try:
            await asyncio.shield(poll.answer)
        except BaseException as cause:
            self._caller_left(poll, delivered=False)
            if isinstance(cause, asyncio.CancelledError):
                self._processes.watch_death(call.hello)
            raise
        # Nothing is awaited from here until the answer is gRPC's.
        self._caller_left(poll, delivered=True)
        return [assignment for _, assignment in poll.granted]

    def give_up(self, session_id: SessionId, request_id: RequestId) -> None:
        """The process will not ask for the call's answer: release what nobody acknowledged."""
        poll = self._by_call.get((session_id, request_id))
        if poll is not None:
            self._close(poll)
        for lease in self._leases.granted_to(session_id, request_id):
            if not lease.acknowledged and lease.told:
                self._own.release(lease, ev.RELEASE_CAUSE_NOT_HELD)

    def by_key(self, key: SessionKey) -> Poll | None:
        """The call of that key."""
        return self._by_key.get(key)

    @property
    def poll_count(self) -> int:
        """How many calls wait."""
        return len(self._by_key)

    @property
    def draining(self) -> str:
        """Why nothing more is leased, "" while it is."""
        return self._draining

    def drain(self, reason: str) -> None:
        """End every call that waits, and refuse new ones."""
        self._draining = reason
        for poll in list(self._by_key.values()):
            self._close(poll)

    def close_all(self, cause: Refusal) -> None:
        """End every call with `cause`; what was leased to them is the next owner's business."""
        for poll in list(self._by_key.values()):
            self._fail(poll, cause)

    def is_waiting(self, worker_id: WorkerId) -> bool:
        """Whether a call of the worker waits."""
        return worker_id in self._by_worker

    def ask_to_leave(self, worker_id: WorkerId, reason: str) -> None:
        """End the calls of a worker's process that is to end."""
        for poll in list(self._by_worker.get(worker_id, {}).values()):
            self._fail(poll, WorkerDrained(reason, worker_id=worker_id))

    def lease_expired(self, lease: Lease) -> None:
        """The holder let a lease run out: a frozen process must not be offered the task again."""
        for poll in list(self._by_worker.get(lease.worker_id, {}).values()):
            if poll.hello.session_id == lease.session_id:
                self._close(poll)

    def lease_folded(self, lease: Lease) -> None:
        """A lease came out of the log: end it if its call is known to have no answer of it."""
        call = (lease.session_id, lease.request_id)
        if lease.reclaimed or not lease.request_id:
            return
        told = self._answered.get(call)
        # What this kernel answered itself is folded again when later facts were dropped.
        if call in self._by_call or (told is not None and (lease.key, lease.epoch) not in told):
            asyncio.get_running_loop().call_soon(self._release_not_held, lease)

    def next_due_mono_ns(self) -> int | None:
        """When `ring` has something to do."""
        dues = (self._dues.next_due(), self._presences.next_due())
        return min((due for due in dues if due is not None), default=None)

    def ring(self) -> None:
        """End the calls whose time is over, and forget workers that did not come again."""
        now_mono_ns = self._clock.mono_ns()
        for key, _ in self._dues.take_due(now_mono_ns, self._polls_max):
            self._close(self._by_key[key])
        for offer, _ in self._presences.take_due(now_mono_ns, PRESENCES_MAX):
            self._queues.remove_session(self._present.pop(offer))

    # A call comes in.

    def _granted_before(self, call: LeaseCall) -> list[work_pb2.Assignment] | None:
        """What the same call was answered with; None when it is to be served."""
        key = (call.hello.session_id, call.request_id)
        if key in self._by_call:
            return None
        leases = self._leases.granted_to(*key)
        again = []
        for lease in leases:
            if lease.assignment is not None:
                lease.reclaimed = True
                self._leases.postpone(lease, self._clock.mono_ns() + lease.ttl_ns)
                again.append(lease.assignment)
            elif not lease.reclaimed:
                self._release_not_held(lease)
        if not again and any(lease.acknowledged for lease in leases):
            raise RequestIdReused(
                "the answer to this call was acknowledged", request_id=call.request_id
            )
        return again or None

    def _join(self, call: LeaseCall) -> Poll:
        """The poll of the call: a new one, or the one that the same call made before."""
        key = (call.hello.session_id, call.request_id)
        poll = self._by_call.get(key)
        if poll is None:
            return self._open(key, call)
        if not call.is_repeat_of(poll.call):
            raise RequestIdReused("another request with this id waits", request_id=call.request_id)
        poll.waiting_count += 1
        return poll

    def _open(self, call_key: CallKey, call: LeaseCall) -> Poll:
        of_worker = self._by_worker.get(call.hello.worker_id, {})
        for count, limit, whose in (
            (len(of_worker), POLLS_PER_WORKER_MAX, "this worker"),
            (len(self._by_key), self._polls_max, "the kernel"),
        ):
            if count >= limit:
                raise TooManyPolls(f"too many LeaseWork calls of {whose}", polls_max=str(limit))
        due_mono_ns = self._clock.mono_ns() + call.wait_ns
        answer = asyncio.get_running_loop().create_future()
        poll = Poll(next(self._session_keys), call, due_mono_ns, self._settled, answer)
        self._by_call[call_key] = self._by_key[poll.key] = poll
        self._by_worker.setdefault(call.hello.worker_id, {})[poll.key] = poll
        self._be_present(call.hello)
        if call.hello.takes_tasks:
            self._queues.add_session(poll.key, call.hello.offer)
            self._queues.set_credits(poll.key, poll.free_credits)
            self._pump()
        if call.wait_ns > 0:
            self._dues.arm(poll.key, due_mono_ns, None)
            self._armed()
        else:
            self._close(poll)
        return poll

    def _be_present(self, hello: WorkerHello) -> None:
        """Between two calls a worker is busy, not absent: its tasks do not wait for a worker."""
        if hello.offer not in self._present:
            if len(self._present) >= PRESENCES_MAX or not hello.takes_tasks:
                return
            key = self._present[hello.offer] = next(self._session_keys)
            self._queues.add_session(key, hello.offer)
        self._presences.arm(hello.offer, self._clock.mono_ns() + PRESENCE_NS, None)

    # A call goes out.

    def _settled(self, poll: Poll) -> None:
        """A credit was returned, or a lease committed: the first one ends the waiting."""
        if poll.key not in self._by_key:
            self._release_granted(poll)
        elif poll.granted:
            # What is committed together is told within one turn of the loop, before this.
            asyncio.get_running_loop().call_soon(self._close, poll)
        elif poll.closed:
            self._close(poll)
        else:
            self._queues.set_credits(poll.key, poll.free_credits)

    def _close(self, poll: Poll) -> None:
        """Grant it nothing more, and answer once nothing is being made for it. Idempotent."""
        if not poll.closed:
            poll.closed = True
            self._queues.remove_session(poll.key)
            self._dues.disarm(poll.key)
        if poll.making_count or poll.answered or poll.key not in self._by_key:
            return
        self._release_later(poll.take_surplus())
        poll.answer.set_result(None)
        if not poll.waiting_count:
            self._all_left(poll)

    def _caller_left(self, poll: Poll, *, delivered: bool) -> None:
        poll.waiting_count -= 1
        poll.delivered = poll.delivered or delivered
        if poll.waiting_count:
            return
        if poll.answered:
            self._all_left(poll)
        else:
            self._close(poll)

    def _all_left(self, poll: Poll) -> None:
        """Nobody waits for the answer any more: if nobody took it, its leases are nobody's."""
        if poll.key not in self._by_key:
            return  # The ownership is over.
        self._forget(poll)
        leases = [lease for lease, _ in poll.granted]
        if not poll.delivered:
            self.undelivered_count += len(leases)
            self._release_later(leases)
            return
        told = frozenset((lease.key, lease.epoch) for lease in leases)
        self._answered[poll.hello.session_id, poll.request_id] = told
        while len(self._answered) > ANSWERED_MAX:
            self._answered.popitem(last=False)
        if leases:
            self.granted_count += 1
        else:
            self.empty_count += 1

    def _end_older(self, hello: WorkerHello) -> None:
        """A process said hello: calls of an older one of its worker are over."""
        for poll in list(self._by_worker.get(hello.worker_id, {}).values()):
            if poll.hello.session_id != hello.session_id:
                replaced = SessionReplaced("a newer process of this worker is connected")
                self._fail(poll, replaced)

    def _fail(self, poll: Poll, cause: Refusal) -> None:
        self._forget(poll)
        if not poll.answered:
            poll.answer.set_exception(cause)
            poll.answer.exception()  # Its callers may be gone; that is no one's error.
            self._release_granted(poll)

    def _forget(self, poll: Poll) -> None:
        """Take the call out; its leases are not touched."""
        poll.closed = True
        self._queues.remove_session(poll.key)
        self._dues.disarm(poll.key)
        self._by_key.pop(poll.key, None)
        self._by_call.pop((poll.hello.session_id, poll.request_id), None)
        of_worker = self._by_worker.get(poll.hello.worker_id, {})
        of_worker.pop(poll.key, None)
        if not of_worker:
            self._by_worker.pop(poll.hello.worker_id, None)

    def _release_granted(self, poll: Poll) -> None:
        """Nobody was told of what the call was granted, and nobody will be."""
        leases = [lease for lease, _ in poll.granted]
        poll.granted.clear()
        self._release_later(leases)

    def _release_later(self, leases: Sequence[Lease]) -> None:
        """Release what was never sent, outside of whatever tells of commits now."""
        for lease in leases:
            lease.assignment = None  # Asked for again before that, it is not told.
        asyncio.get_running_loop().call_soon(self._release, leases)

    def _release(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._own.release(lease, ev.RELEASE_CAUSE_NOT_ACKNOWLEDGED)

    def _release_not_held(self, lease: Lease) -> None:
        if not lease.reclaimed:
            self._own.release(lease, ev.RELEASE_CAUSE_NOT_HELD)
