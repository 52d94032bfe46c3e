"""The lease table: which leases are open, who holds them, and until when on the monotonic clock.

Owns what is not an event: renewals, acknowledgements and the newest heartbeat details. Which leases
exist follows from the folded runs; a restarted kernel fills the table from them with a short time
to be reclaimed. Pure: instants come in as monotonic nanoseconds, expiries go out as values. Wall
time never enters, so a stepped clock breaks no lease.
"""

from __future__ import annotations

from dataclasses import dataclass

from stretto.common.v1.payload_pb2 import Payload
from stretto.work.v1.work_pb2 import Assignment, Signal
from stretto_core.clock import NS_PER_S
from stretto_core.ids import RequestId, RunId, SessionId, TaskName, WorkerId

from stretto_kernel.domain.run.task import NO_CALL
from stretto_kernel.timers.heap import TimerHeap

RECLAIM_NS_MAX = 15 * NS_PER_S
"""After a start an open lease waits so long at most for its worker to name it."""
PROGRESS_INTERVAL_NS = 10 * NS_PER_S
"""Changed details of a running attempt are recorded at most this often."""

LeaseKey = tuple[RunId, TaskName]


@dataclass(slots=True, eq=False)
class Lease:
    """An open lease.

    expires_mono_ns: it is lost then unless renewed before.
    acknowledged: its holder has said that it has the assignment; renewals and outcomes say so too.
    reclaimed: False from a start of the kernel until its holder named it.
    stop: what its holder was told last; told again when it renews.
    told: its holder was given the assignment, or may have been by an earlier owner.
    reported: its holder has said how it ended; nobody needs to tell it.
    request_id: the LeaseWork call that it was granted to; "" = a work stream.
    assignment: what that call is answered with, until it is acknowledged; None = not known here.
    """

    run_id: RunId
    task: TaskName
    epoch: int
    worker_id: WorkerId
    session_id: SessionId
    ttl_ns: int
    expires_mono_ns: int
    acknowledged: bool = False
    reclaimed: bool = True
    told: bool = False
    reported: bool = False
    request_id: RequestId = NO_CALL
    assignment: Assignment | None = None
    stop: Signal | None = None
    details: Payload | None = None
    details_recorded_mono_ns: int | None = None
    details_changed: bool = False

    @property
    def key(self) -> LeaseKey:
        """Which work item it is of."""
        return (self.run_id, self.task)

    def acknowledge(self) -> None:
        """Its holder has said that it has the assignment."""
        self.acknowledged = True
        self.assignment = None


class LeaseTable:
    """Open leases by work item and by worker process, with their expiries."""

    def __init__(self) -> None:
        self._leases: dict[LeaseKey, Lease] = {}
        self._by_session: dict[SessionId, dict[LeaseKey, Lease]] = {}
        self._by_run: dict[RunId, dict[TaskName, Lease]] = {}
        self._by_worker: dict[WorkerId, set[SessionId]] = {}
        self._by_request: dict[tuple[SessionId, RequestId], dict[LeaseKey, Lease]] = {}
        self._expiries: TimerHeap[LeaseKey, int] = TimerHeap()

    def __len__(self) -> int:
        return len(self._leases)

    def open(self, lease: Lease) -> None:
        """Watch `lease` until it is closed, instead of an older one of the same work item."""
        self.close(lease.key)
        self._leases[lease.key] = lease
        self._by_session.setdefault(lease.session_id, {})[lease.key] = lease
        self._by_run.setdefault(lease.run_id, {})[lease.task] = lease
        self._by_worker.setdefault(lease.worker_id, set()).add(lease.session_id)
        if lease.request_id:
            granted = self._by_request.setdefault((lease.session_id, lease.request_id), {})
            granted[lease.key] = lease
        self._expiries.arm(lease.key, lease.expires_mono_ns, lease.epoch)

    def close(self, key: LeaseKey) -> Lease | None:
        """Forget the work item's lease and return it; None when there is none."""
        lease = self._leases.pop(key, None)
        if lease is None:
            return None
        self._expiries.disarm(key)
        of_run = self._by_run[lease.run_id]
        del of_run[lease.task]
        if not of_run:
            del self._by_run[lease.run_id]
        if lease.request_id:
            granted = self._by_request[lease.session_id, lease.request_id]
            del granted[key]
            if not granted:
                del self._by_request[lease.session_id, lease.request_id]
        held = self._by_session[lease.session_id]
        del held[key]
        if not held:
            del self._by_session[lease.session_id]
            sessions = self._by_worker[lease.worker_id]
            sessions.discard(lease.session_id)
            if not sessions:
                del self._by_worker[lease.worker_id]
        return lease

    def find(self, key: LeaseKey, epoch: int) -> Lease | None:
        """The work item's open lease if it has this epoch."""
        lease = self._leases.get(key)
        return lease if lease is not None and lease.epoch == epoch else None

    def is_open(self, key: LeaseKey) -> bool:
        """Whether the work item has an open lease."""
        return key in self._leases

    def of_run(self, run_id: RunId) -> list[Lease]:
        """The open leases of one run."""
        return list(self._by_run.get(run_id, {}).values())

    def newest_session(self, worker_id: WorkerId) -> SessionId | None:
        """The youngest process of the worker that holds a lease."""
        return max(self._by_worker.get(worker_id, ()), default=None)

    def held_by_session(self, session_id: SessionId) -> list[Lease]:
        """The open leases of one worker process, oldest first."""
        return list(self._by_session.get(session_id, {}).values())

    def granted_to(self, session_id: SessionId, request_id: RequestId) -> list[Lease]:
        """The open leases of one LeaseWork call, oldest first."""
        return list(self._by_request.get((session_id, request_id), {}).values())

    def held_by_other_sessions(self, worker_id: WorkerId, session_id: SessionId) -> list[Lease]:
        """The open leases of the worker's processes other than `session_id`."""
        others = sorted(self._by_worker.get(worker_id, set()) - {session_id})
        return [lease for other in others for lease in self.held_by_session(other)]

    def renew(self, lease: Lease, now_mono_ns: int) -> None:
        """The holder spoke of it: it lives a whole TTL from now."""
        lease.acknowledge()
        lease.reclaimed = True
        lease.expires_mono_ns = now_mono_ns + lease.ttl_ns
        self._expiries.arm(lease.key, lease.expires_mono_ns, lease.epoch)

    def note_details(self, lease: Lease, details: Payload, now_mono_ns: int) -> bool:
        """Keep the newest details; whether they are due to be recorded while the attempt runs."""
        if lease.details is None or lease.details != details:
            lease.details = details
            lease.details_changed = True
        recorded_ns = lease.details_recorded_mono_ns
        due = recorded_ns is None or now_mono_ns - recorded_ns >= PROGRESS_INTERVAL_NS
        if lease.details_changed and due:
            lease.details_changed = False
            lease.details_recorded_mono_ns = now_mono_ns
            return True
        return False

    def postpone(self, lease: Lease, until_mono_ns: int) -> None:
        """Give the lease time until `until_mono_ns` at least, without a word of its holder."""
        lease.expires_mono_ns = max(lease.expires_mono_ns, until_mono_ns)
        self._expiries.arm(lease.key, lease.expires_mono_ns, lease.epoch)

    def give_time(self, until_mono_ns: int) -> None:
        """Let no lease end before `until_mono_ns`: renewals may have come and not been read yet."""
        for lease in self._leases.values():
            if lease.expires_mono_ns < until_mono_ns:
                self.postpone(lease, until_mono_ns)

    def next_expiry_mono_ns(self) -> int | None:
        """When the next lease expires, or None."""
        return self._expiries.next_due()

    def take_expired(self, now_mono_ns: int, limit: int) -> list[Lease]:
        """Return up to `limit` leases whose time is over; each is returned once.

        They stay in the table until the fact is recorded: a holder that comes first is still in
        time.
        """
        expired = self._expiries.take_due(now_mono_ns, limit)
        return [self._leases[key] for key, _ in expired]
