"""Ready queues: which ready work item goes to which worker session next.

Owns the ready items of the runs in memory, the free credits of the sessions and the open-lease
counts of the queues; all of it is derived from folded states and can be thrown away and rebuilt.
Knows no I/O, no clock, and no stream; instants only order items.

Items stand in *buckets*: one per (queue, executor, required labels), by priority, fair share, age.
Sessions that offer the same stand in one *offer*. An offer keeps a heap over the heads of the
buckets it can serve, so that one grant costs O(log n) whatever the number of items, queues and
sessions. What is taken away (a held run, an ended task) is skipped when it surfaces, a bounded part
a look: a fact about a whole run costs the same for any number of its tasks.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from stretto_core.ids import RunId, TaskName

from stretto_kernel.dispatch.fair_share import FairShare
from stretto_kernel.dispatch.queue_gates import QueueGates
from stretto_kernel.dispatch.ready_bucket import Bucket, BucketKey, Labels, Order, ReadyItem
from stretto_kernel.domain.queue import QueueSettings

SessionKey = int
"""Names a work stream inside this process."""


@dataclass(frozen=True, slots=True)
class OfferKey:
    """What a session can serve."""

    queues: frozenset[str]
    executors: frozenset[str]
    labels: Labels


class Grant(NamedTuple):
    """This item goes to this session: one credit and one slot of the queue are taken."""

    item: ReadyItem
    session: SessionKey


@dataclass(slots=True, eq=False)
class _Kind:
    """A bucket, and the offers that can serve it."""

    key: BucketKey
    items: Bucket
    offers: list[_Offer]


@dataclass(slots=True, eq=False)
class _Offer:
    key: OfferKey
    idle: OrderedDict[SessionKey, None] = field(default_factory=OrderedDict)
    heads: list[tuple[Order, int, BucketKey]] = field(default_factory=list)
    shown: dict[BucketKey, Order] = field(default_factory=dict)
    session_count: int = 0

    def serves(self, key: BucketKey) -> bool:
        queue, executor, required = key
        return (
            queue in self.key.queues
            and executor in self.key.executors
            and required <= self.key.labels
        )


@dataclass(slots=True)
class _Session:
    offer: _Offer
    free: int = 0


@dataclass(slots=True)
class _Run:
    items: dict[TaskName, ReadyItem] = field(default_factory=dict)
    leased: dict[TaskName, str] = field(default_factory=dict)
    ready_counts: dict[str, int] = field(default_factory=dict)
    held: bool = False
    set_aside: deque[ReadyItem] = field(default_factory=deque)


class ReadyQueues:
    """Matches ready items with free credits; grants nothing before `heed` was called."""

    def __init__(self) -> None:
        self.gates = QueueGates(self._show_again)
        self._share = FairShare()
        self._buckets: dict[BucketKey, _Kind] = {}
        self._offers: dict[OfferKey, _Offer] = {}
        self._sessions: dict[SessionKey, _Session] = {}
        self._runs: dict[RunId, _Run] = {}
        self._arrivals = 0
        self._dirty: OrderedDict[OfferKey, _Offer] = OrderedDict()
        self.looks_on = False
        """Whether nothing was found only because too much that was taken away lay before it."""

    def offer_item(self, item: ReadyItem) -> None:
        """Make `item` available, in place of one of the same task. Idempotent."""
        run = self._run(item.run_id)
        if run.items.get(item.task) == item:
            return
        self._release_slot(run, item.task)
        self._take_out(run, item.task)
        self._put_in(run, item)
        self._push(item)

    def withdraw_item(self, run_id: RunId, task: TaskName) -> None:
        """Make the task unavailable and give back the queue slot of its lease; idempotent."""
        run = self._runs.get(run_id)
        if run is None:
            return
        self._take_out(run, task)
        self._release_slot(run, task)
        self._forget_when_empty(run_id, run)

    def note_leased(self, run_id: RunId, task: TaskName, queue: str) -> None:
        """Count the task's open lease in `queue`; idempotent."""
        run = self._run(run_id)
        if task not in run.leased:
            run.leased[task] = queue
            self.gates.count_leased(queue)
        self._take_out(run, task)

    def hold_run(self, run_id: RunId, *, held: bool) -> bool:
        """While `held`, nothing of the run is granted.

        Returns whether this lifted a hold: `offer_again` then, until nothing is left.
        """
        if not held and run_id not in self._runs:
            return False
        run = self._run(run_id)
        lifted = run.held and not held
        run.held = held
        return lifted

    def offer_again(self, run_id: RunId, count_max: int) -> bool:
        """Offer up to so many items that a lifted hold had kept back; whether some are left."""
        run = self._runs.get(run_id)
        if run is None or run.held:
            return False
        for _ in range(min(count_max, len(run.set_aside))):
            item = run.set_aside.popleft()
            if run.items.get(item.task) is item:
                self._push(item)
        self._forget_when_empty(run_id, run)
        return bool(run.set_aside)

    def forget_run(self, run_id: RunId) -> None:
        """Take the run's items and leases out."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return
        for task in list(run.leased):
            self._release_slot(run, task)
        for name, count in run.ready_counts.items():
            self.gates.count_ready(name, -count)
        run.items.clear()

    def heed(self, settings: Mapping[str, QueueSettings], now_ns: int) -> None:
        """Grant as these settings say from now on; queues that are not named keep theirs.

        now_ns: monotonic.
        """
        self.gates.heed(settings, now_ns)
        for offer in self._offers.values():
            self._mark(offer)

    def void_settings(self) -> None:
        """Grant nothing until `heed` is called: which settings hold is not known."""
        self.gates.are_known = False

    def add_session(self, session: SessionKey, key: OfferKey) -> None:
        """A session without credits is connected."""
        offer = self._offers.get(key)
        if offer is None:
            offer = self._offers[key] = _Offer(key)
            for bucket in self._buckets.values():
                if offer.serves(bucket.key):
                    bucket.offers.append(offer)
                    self._show_head(bucket, offer)
        offer.session_count += 1
        self._sessions[session] = _Session(offer)

    def remove_session(self, session: SessionKey) -> None:
        """The session takes nothing any more; idempotent."""
        known = self._sessions.pop(session, None)
        if known is None:
            return
        offer = known.offer
        offer.idle.pop(session, None)
        offer.session_count -= 1
        if offer.session_count == 0:
            del self._offers[offer.key]
            self._dirty.pop(offer.key, None)
            for bucket in self._buckets.values():
                if offer in bucket.offers:
                    bucket.offers.remove(offer)

    def set_credits(self, session: SessionKey, free: int) -> None:
        """The session accepts `free` (>= 0) more assignments from now."""
        known = self._sessions.get(session)
        if known is None:
            return
        known.free = free
        if free > 0:
            known.offer.idle[session] = None
            self._mark(known.offer)
        else:
            known.offer.idle.pop(session, None)

    def next_grant(self, now_ns: int) -> Grant | None:
        """Take the next match, or None when nothing matches; the caller leases the task at once.

        After None with `looks_on` let others run, then ask again. now_ns: monotonic; it never goes
        back from call to call.
        """
        self.looks_on = False
        if not self.gates.are_known:
            return None
        self.gates.ring(now_ns)
        while self._dirty:
            key, offer = next(iter(self._dirty.items()))
            grant = self._match(offer, now_ns)
            if grant is not None:
                return grant
            if self.looks_on:
                break
            del self._dirty[key]
        return None

    def waits_for_worker(self, item: ReadyItem) -> bool:
        """Whether no connected session offers what the item needs."""
        key = (item.queue, item.executor, item.required)
        return not any(offer.serves(key) for offer in self._offers.values())

    def names(self) -> set[str]:
        """Every queue that an item, a lease, a setting or a session names."""
        return {*self.gates.names(), *self.served()}

    def served(self) -> set[str]:
        """Every queue that a connected session serves."""
        return {name for key in self._offers for name in key.queues}

    def oldest_ready_ns(self, queue: str) -> int | None:
        """Since when the queue's longest waiting item is ready, those of held runs apart.

        Costs by the lines of the queue: one per kind, priority and fairness key.
        """
        oldest = (kind.items.oldest_ns() for key, kind in self._buckets.items() if key[0] == queue)
        return min((ready_ns for ready_ns in oldest if ready_ns is not None), default=None)

    @property
    def ready_count(self) -> int:
        """How many items are offered, held runs' included."""
        return sum(len(run.items) for run in self._runs.values())

    def _match(self, offer: _Offer, now_ns: int) -> Grant | None:
        while offer.idle and offer.heads:
            order, _, key = heapq.heappop(offer.heads)
            if offer.shown.get(key) != order:
                continue
            del offer.shown[key]
            # By its key: the bucket shown may have run empty and been made anew since.
            bucket = self._buckets.get(key)
            if bucket is None:
                continue
            head = bucket.items.head()
            if head is None:
                del self._buckets[key]
                continue
            at, item = head
            if item is None:
                self._show_order(bucket, offer, at)
                self.looks_on = True
                return None
            if at != order:
                self._show_order(bucket, offer, at)
                continue
            if not self.gates.pass_one(key, now_ns):
                continue
            bucket.items.take(item)
            chosen = self._preferred_offer(bucket, item, offer)
            session = self._take_credit(chosen)
            self.note_leased(item.run_id, item.task, item.queue)
            self._show_to_all(bucket)
            return Grant(item, session)
        return None

    def _preferred_offer(self, bucket: _Kind, item: ReadyItem, offer: _Offer) -> _Offer:
        if not item.preferred:
            return offer
        best, best_count = offer, len(item.preferred & offer.key.labels)
        for other in bucket.offers:
            count = len(item.preferred & other.key.labels)
            if other.idle and count > best_count:
                best, best_count = other, count
        return best

    def _take_credit(self, offer: _Offer) -> SessionKey:
        session, _ = offer.idle.popitem(last=False)  # In turn, so that load spreads.
        known = self._sessions[session]
        known.free -= 1
        if known.free > 0:
            offer.idle[session] = None
        return session

    def _push(self, item: ReadyItem) -> None:
        key = (item.queue, item.executor, item.required)
        bucket = self._buckets.get(key)
        if bucket is None:
            offers = [offer for offer in self._offers.values() if offer.serves(key)]
            items = Bucket(key, self._share, is_offered=self._is_offered, is_there=self._is_there)
            bucket = self._buckets[key] = _Kind(key, items, offers)
        self._arrivals += 1
        if bucket.items.push(item, self._arrivals):
            self._show_to_all(bucket)

    def _is_offered(self, item: ReadyItem) -> bool:
        """Whether an item that surfaced is still to be granted; a held run's is set aside."""
        run = self._runs.get(item.run_id)
        if run is None or run.items.get(item.task) is not item:
            return False
        if run.held:
            run.set_aside.append(item)
        return not run.held

    def _is_there(self, item: ReadyItem) -> bool:
        run = self._runs.get(item.run_id)
        return run is not None and run.items.get(item.task) is item

    def _show_head(self, bucket: _Kind, offer: _Offer) -> None:
        if (head := bucket.items.head()) is not None:
            self._show_order(bucket, offer, head[0])

    def _show_to_all(self, bucket: _Kind) -> None:
        head = bucket.items.head()
        if head is None:
            self._buckets.pop(bucket.key, None)  # Made anew by the next item of its kind.
            return
        for offer in bucket.offers:
            self._show_order(bucket, offer, head[0])

    def _show_order(self, bucket: _Kind, offer: _Offer, order: Order) -> None:
        shown = offer.shown.get(bucket.key)
        if shown is None or order < shown:  # A later head is found when the shown one surfaces.
            offer.shown[bucket.key] = order
            heapq.heappush(offer.heads, (order, order[3], bucket.key))
        self._mark(offer)

    def _mark(self, offer: _Offer) -> None:
        """Look whether the offer's sessions can take something."""
        if offer.idle:
            self._dirty[offer.key] = offer

    def _show_again(self, parked: Iterable[BucketKey]) -> None:
        for key in parked:
            if (bucket := self._buckets.get(key)) is not None:
                self._show_to_all(bucket)

    def _release_slot(self, run: _Run, task: TaskName) -> None:
        name = run.leased.pop(task, None)
        if name is not None:
            self.gates.release(name)

    def _put_in(self, run: _Run, item: ReadyItem) -> None:
        run.items[item.task] = item
        run.ready_counts[item.queue] = run.ready_counts.get(item.queue, 0) + 1
        self.gates.count_ready(item.queue, 1)

    def _take_out(self, run: _Run, task: TaskName) -> None:
        item = run.items.pop(task, None)
        if item is not None:
            run.ready_counts[item.queue] -= 1
            self.gates.count_ready(item.queue, -1)

    def _run(self, run_id: RunId) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = _Run()
        return run

    def _forget_when_empty(self, run_id: RunId, run: _Run) -> None:
        if not run.items and not run.leased and not run.held:
            self._runs.pop(run_id, None)
