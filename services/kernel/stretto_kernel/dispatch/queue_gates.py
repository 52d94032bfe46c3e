"""Whether queues may grant: their limits, and what counts against them. Pure.

A kind of items that is looked at while its queue is shut is parked there, and shown again when that
may have changed: a change costs the kinds of one queue, whatever waits in them. Instants are
monotonic nanoseconds.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from stretto_core.ids import RunId

from stretto_kernel.dispatch.rate_limiter import RateLimiter
from stretto_kernel.dispatch.ready_bucket import BucketKey
from stretto_kernel.domain.queue import QueueSettings, RateLimit
from stretto_kernel.timers.heap import TimerHeap

RATES_PER_STRETCH_MAX = 100


class Shut(enum.Enum):
    """Why a queue grants nothing now."""

    PAUSED = "paused"
    LIMIT = "limit"
    RATE = "rate"


@dataclass(slots=True)
class _Gate:
    """One queue.

    blocking: runs whose open leases in it are not counted, since they are not folded.
    parked: the kinds of its items that were looked at while it was shut.
    """

    limit: int | None = None
    paused: bool = False
    rate: RateLimiter | None = None
    leased_count: int = 0
    ready_count: int = 0
    blocking: set[RunId] = field(default_factory=set)
    parked: dict[BucketKey, None] = field(default_factory=dict)
    _rate_limit: RateLimit | None = None

    def set(self, settings: QueueSettings, now_ns: int) -> None:
        """Heed these settings from now on."""
        self.limit = settings.concurrency_limit
        self.paused = settings.pause is not None
        if settings.rate_limit != self._rate_limit:
            self._rate_limit = settings.rate_limit
            limit = settings.rate_limit
            self.rate = None if limit is None else RateLimiter(limit, now_ns, self.rate)

    def shut(self, now_ns: int, *, uncounted: bool) -> Shut | None:
        """Why nothing may be granted, None when it may.

        uncounted: runs are not folded that may have open leases in any queue.
        """
        if self.paused:
            return Shut.PAUSED
        if self.is_full or (self.limit is not None and (uncounted or self.blocking)):
            return Shut.LIMIT
        if self.rate is not None and self.rate.next_ns() > now_ns:
            return Shut.RATE
        return None

    @property
    def is_full(self) -> bool:
        """Whether as many leases are open as may be."""
        return self.limit is not None and self.leased_count >= self.limit

    @property
    def is_plain(self) -> bool:
        """Whether nothing is lost by forgetting it."""
        return not (
            self.leased_count
            or self.ready_count
            or self.blocking
            or self.parked
            or self.paused
            or self.limit is not None
            or self.rate is not None
        )


class QueueGates:
    """The gates of all queues; all are shut until `heed` was called.

    show: told of the kinds that are to be looked at again.
    """

    def __init__(self, show: Callable[[Iterable[BucketKey]], None]) -> None:
        self._show = show
        self._gates: dict[str, _Gate] = {}
        self._rate_waits: TimerHeap[str, None] = TimerHeap()
        self._uncounted: dict[RunId, tuple[str, ...]] = {}
        self._uncounted_anywhere: set[RunId] = set()
        self.are_known = False
        """Whether it is known which settings hold."""

    def heed(self, settings: Mapping[str, QueueSettings], now_ns: int) -> None:
        """Grant as these settings say from now on; queues that are not named keep theirs."""
        for name, each in settings.items():
            gate = self._gate(name)
            gate.set(each, now_ns)
            self._reopen(name, gate)
            self._forget_when_plain(name, gate)
        self.are_known = True

    def block(self, queues: Iterable[str], run_id: RunId) -> None:
        """Until `unblock(run_id)`, those of `queues` that have a limit grant nothing."""
        self.unblock(run_id)
        self._uncounted[run_id] = names = tuple(queues)
        for name in names:
            self._gate(name).blocking.add(run_id)

    def block_limited(self, run_id: RunId) -> None:
        """Let no queue with a limit grant, for a run of which nothing is known yet."""
        self._uncounted_anywhere.add(run_id)

    def unblock(self, run_id: RunId) -> None:
        """The run's open leases are counted now, or it is over."""
        for name in self._uncounted.pop(run_id, ()):
            gate = self._gate(name)
            gate.blocking.discard(run_id)
            self._reopen(name, gate)
            self._forget_when_plain(name, gate)
        if run_id in self._uncounted_anywhere:
            self._uncounted_anywhere.discard(run_id)
            if not self._uncounted_anywhere:
                for name, gate in self._gates.items():
                    self._reopen(name, gate)

    def pass_one(self, key: BucketKey, now_ns: int) -> bool:
        """Whether an item of this kind is granted now, taking its token; else park the kind."""
        gate = self._gate(key[0])
        why = gate.shut(now_ns, uncounted=bool(self._uncounted_anywhere))
        if why is None:
            if gate.rate is not None:
                gate.rate.take(now_ns)
            return True
        gate.parked[key] = None
        if why is Shut.RATE and gate.rate is not None:
            self._rate_waits.arm(key[0], gate.rate.next_ns(), None)
        return False

    def ring(self, now_ns: int) -> None:
        """Look again at queues whose next token is there."""
        for name, _ in self._rate_waits.take_due(now_ns, RATES_PER_STRETCH_MAX):
            self._reopen(name, self._gate(name))

    def next_due_ns(self) -> int | None:
        """When the next token comes to a queue that waits for it."""
        return self._rate_waits.next_due()

    def give_back_token(self, queue: str) -> None:
        """What was granted from the queue was not stored."""
        gate = self._gates.get(queue)
        if gate is not None and gate.rate is not None:
            gate.rate.give_back()

    def count_leased(self, queue: str) -> None:
        """One more lease is open in the queue."""
        self._gate(queue).leased_count += 1

    def release(self, queue: str) -> None:
        """A lease of the queue has ended."""
        gate = self._gate(queue)
        gate.leased_count -= 1
        if gate.parked and not gate.is_full:
            self._reopen(queue, gate)
        self._forget_when_plain(queue, gate)

    def count_ready(self, queue: str, change: int) -> None:
        """So many more items of the queue are offered."""
        gate = self._gate(queue)
        gate.ready_count += change
        self._forget_when_plain(queue, gate)

    def shut(self, queue: str, now_ns: int) -> Shut | None:
        """Why the queue grants nothing; None when it would."""
        gate = self._gates.get(queue)
        return None if gate is None else gate.shut(now_ns, uncounted=bool(self._uncounted_anywhere))

    def leased_count(self, queue: str) -> int:
        """How many leases are open in the queue."""
        gate = self._gates.get(queue)
        return 0 if gate is None else gate.leased_count

    def ready_count(self, queue: str) -> int:
        """How many items of the queue are offered."""
        gate = self._gates.get(queue)
        return 0 if gate is None else gate.ready_count

    def names(self) -> list[str]:
        """The queues that an item, a lease or a setting names."""
        return list(self._gates)

    def _reopen(self, name: str, gate: _Gate) -> None:
        parked, gate.parked = gate.parked, {}
        self._rate_waits.disarm(name)
        self._show(parked)

    def _gate(self, name: str) -> _Gate:
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = _Gate()
        return gate

    def _forget_when_plain(self, name: str, gate: _Gate) -> None:
        if gate.is_plain:
            del self._gates[name]
