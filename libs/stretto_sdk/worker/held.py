"""The leases a worker holds: bodies running, outcomes waiting for their receipt, renewals due.

Pure state of the session machine (session.py), which alone changes it. Instants are monotonic
nanoseconds. Cost per operation is O(log leases); nothing scans all leases but a reconnect.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from stretto.common.v1 import lease_pb2, payload_pb2
from stretto.work.v1 import work_pb2

from stretto_sdk.worker.effects import LeaseKey, StopKind

EPOCH_SEEN_COUNT_MAX = 20_000
"""Work items whose highest epoch is remembered, newest first: duplicates come soon or never."""

OUTCOME = ""
"""Stands for a request id where the outcome is meant: a lease has one, but many spawns."""

RESEND_NS = 5_000_000_000
"""What has no receipt after so long is sent again: the receipt may have been lost."""
Kept = work_pb2.Outcome | work_pb2.Spawn


@dataclass(slots=True)
class Held:
    """One lease. `outcome` is None while its body runs."""

    token: lease_pb2.LeaseToken
    renew_interval_ns: int
    renew_due_ns: int = 0
    stop: StopKind | None = None
    details: payload_pb2.Payload | None = None
    details_sent_ns: int | None = None
    outcome: work_pb2.Outcome | None = None
    refused_count: int = 0
    replaced: bool = False
    spawns: dict[str, work_pb2.Spawn] = field(default_factory=dict)


class HeldLeases:
    """Every lease of this process by key, with what is due for each."""

    def __init__(self) -> None:
        self._held: dict[LeaseKey, Held] = {}
        self._epoch_held: dict[str, int] = {}
        self._epoch_seen: dict[str, int] = {}
        self._renewals: list[tuple[int, LeaseKey]] = []
        self._now: deque[tuple[LeaseKey, str]] = deque()
        self._later: list[tuple[int, tuple[LeaseKey, str]]] = []
        self.pending_count = 0
        """Outcomes without their receipt."""

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[tuple[LeaseKey, Held]]:
        return iter(list(self._held.items()))

    def get(self, key: LeaseKey) -> Held | None:
        """Return the lease, or None when it is not (or no longer) held."""
        return self._held.get(key)

    def is_known(self, key: LeaseKey) -> bool:
        """Whether this lease, or a later one of its work item, was ever seen here."""
        return self._epoch_seen.get(key.work_item, 0) >= key.epoch

    def held_of(self, work_item: str) -> LeaseKey | None:
        """Return the one lease held of a work item, or None."""
        epoch = self._epoch_held.get(work_item)
        return None if epoch is None else LeaseKey(work_item, epoch)

    def mark_seen(self, key: LeaseKey) -> None:
        """Remember the epoch, so that a late or repeated assignment of it never starts a body."""
        epoch = max(key.epoch, self._epoch_seen.pop(key.work_item, 0))
        self._epoch_seen[key.work_item] = epoch
        if len(self._epoch_seen) > EPOCH_SEEN_COUNT_MAX:
            del self._epoch_seen[next(iter(self._epoch_seen))]

    def add(self, token: lease_pb2.LeaseToken, interval_ns: int, now_ns: int) -> Held:
        """Hold a lease of a work item of which none is held; renew it first after `interval_ns`."""
        key = LeaseKey(token.work_item, token.epoch)
        held = Held(token=token, renew_interval_ns=interval_ns)
        self._held[key] = held
        self._epoch_held[key.work_item] = key.epoch
        self.mark_seen(key)
        self.renew_at(key, held, now_ns + interval_ns)
        return held

    def remove(self, key: LeaseKey) -> Held | None:
        """Forget a lease: settled or lost. Its epoch stays seen."""
        held = self._held.pop(key, None)
        if held is None:
            return None
        del self._epoch_held[key.work_item]
        if held.outcome is not None:
            self.pending_count -= 1
        return held

    def renew_at(self, key: LeaseKey, held: Held, due_ns: int) -> None:
        """Set when the lease is renewed next; the former instant is void."""
        held.renew_due_ns = due_ns
        heapq.heappush(self._renewals, (due_ns, key))

    def age_ns(self, key: LeaseKey, now_ns: int) -> int:
        """Return how long ago a held lease was accepted, or renewed last."""
        held = self._held[key]
        return now_ns - (held.renew_due_ns - held.renew_interval_ns)

    def next_renewal_ns(self) -> int | None:
        """Return when the earliest renewal is due, or None."""
        while self._renewals:
            due_ns, key = self._renewals[0]
            held = self._held.get(key)
            if held is not None and held.renew_due_ns == due_ns:
                return due_ns
            heapq.heappop(self._renewals)
        return None

    def take_renewals(self, now_ns: int) -> Iterator[tuple[LeaseKey, Held]]:
        """Yield the leases to renew now; each is due again after its interval.

        Once one is due, those past half of their interval go with it: leases granted one by one
        come to be renewed together, in one frame per interval.
        """
        due_ns = self.next_renewal_ns()
        if due_ns is None or due_ns > now_ns:
            return
        while (due_ns := self.next_renewal_ns()) is not None:
            key = self._renewals[0][1]
            held = self._held[key]
            if due_ns - held.renew_interval_ns // 2 > now_ns:
                return
            heapq.heappop(self._renewals)
            self.renew_at(key, held, now_ns + held.renew_interval_ns)
            yield key, held

    def set_outcome(self, key: LeaseKey, held: Held, outcome: work_pb2.Outcome) -> None:
        """Keep the outcome until its receipt, and send it with the next frame."""
        if held.outcome is None:
            self.pending_count += 1
        held.outcome = outcome
        self._now.append((key, OUTCOME))

    def add_spawn(self, key: LeaseKey, held: Held, spawn: work_pb2.Spawn) -> None:
        """Keep the spawn until its receipt, and send it with the next frame."""
        held.spawns[spawn.request_id] = spawn
        self._now.append((key, spawn.request_id))

    def send_again(self, key: LeaseKey, request_id: str, due_ns: int) -> None:
        """Send a kept spawn, or the outcome (request id empty), again at `due_ns`."""
        heapq.heappush(self._later, (due_ns, (key, request_id)))

    def next_send_ns(self, now_ns: int) -> int | None:
        """Return when something kept is to be sent: now, later, or None."""
        if self._now:
            return now_ns
        while self._later and self._kept(*self._later[0][1]) is None:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def take_sendable(self, now_ns: int) -> tuple[LeaseKey, str, Kept] | None:
        """Return the next outcome or spawn to send now, in order; or None.

        It is due again after RESEND_NS unless its receipt comes before.
        """
        while self._later and self._later[0][0] <= now_ns:
            self._now.append(heapq.heappop(self._later)[1])
        while self._now:
            key, request_id = self._now.popleft()
            kept = self._kept(key, request_id)
            if kept is not None:
                self.send_again(key, request_id, now_ns + RESEND_NS)
                return key, request_id, kept
        return None

    def _kept(self, key: LeaseKey, request_id: str) -> Kept | None:
        held = self._held.get(key)
        if held is None:
            return None
        return held.outcome if request_id == OUTCOME else held.spawns.get(request_id)

    def put_back(self, key: LeaseKey, request_id: str) -> None:
        """Return what did not fit into a frame: it goes first in the next."""
        self._now.appendleft((key, request_id))

    def restart_sending(self, now_ns: int) -> None:
        """A new stream is welcome: send all that is kept on it, renew every lease after it.

        The hello named them all, which renewed them.
        """
        self._renewals.clear()
        self._later.clear()
        self._now.clear()
        for key, held in self._held.items():
            self.renew_at(key, held, now_ns + held.renew_interval_ns)
            self._now.extend((key, request_id) for request_id in held.spawns)
            if held.outcome is not None:
                self._now.append((key, OUTCOME))
