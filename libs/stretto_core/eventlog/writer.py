"""The group writer's rules, as a pure state machine: no clock, no I/O, no tasks.

Owns the order of one partition's batches (a batch is the events of one command), what goes into
the next group, and what a failure means. Promises: batches are appended in arrival order, never
split; a batch is reported committed only after the log said so; when a group is not stored,
everything not yet committed is dropped, since it was decided on memory that is now wrong; nothing
is appended while the fate of a group is open. `tick` says what to do next; the other methods take
what happened and return what to tell the owner. Instants are nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stretto_core.errors import Internal, Refusal
from stretto_core.eventlog.port import PartitionMoved, SettledAs, Settlement, StoreDown
from stretto_core.eventlog.recorded import NewEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """Caps and linger of one partition's group writer.

    group_events_max, group_bytes_max: a group takes whole batches up to these (one batch at least).
    linger_ns: how long the oldest of several batches may wait for company. One alone never waits,
    nor do those that came while nothing was under way: an answer and what follows from it.
    linger_events_max: a group of so many events goes at once.
    pending_events_max: beyond this the writer has no room.
    """

    group_events_max: int = 400
    group_bytes_max: int = 8 * 1024 * 1024
    linger_ns: int = 2_000_000
    linger_events_max: int = 100
    pending_events_max: int = 20_000


class Batch(NamedTuple):
    """The events of one command, stored together or not at all; numbers rise in arrival order."""

    number: int
    events: tuple[NewEvent, ...]
    stored_bytes_count: int
    submitted_ns: int


@dataclass(frozen=True, slots=True)
class Append:
    """Do: append the events of this group, in order, in one call."""

    events: tuple[NewEvent, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """Do: prove the ownership."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Do: find out what became of this group; () makes sure of the connection only."""

    events: tuple[NewEvent, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Do: nothing until `until_ns`, or until something happens (None: only then)."""

    until_ns: int | None = None


Step = Append | Probe | Settle | Wait


class Committed(NamedTuple):
    """Tell: this batch is on disk, each of its events at the position given."""

    batch: int
    positions: tuple[int, ...]

    @property
    def position(self) -> int:
        """Where its last event lies."""
        return self.positions[-1]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Tell: these batches, all that was not committed, are not stored and never will be."""

    batches: tuple[int, ...]
    cause: Refusal


@dataclass(frozen=True, slots=True)
class BarriersPassed:
    """Tell: a commit or a probe has succeeded that began after barriers up to this were asked."""

    number: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Tell: nothing can be appended any more."""

    cause: Refusal


News = Committed | Dropped | BarriersPassed | Closed


class Phase(enum.Enum):
    """What the one call in flight is."""

    IDLE = "idle"
    APPENDING = "appending"
    PROBING = "probing"
    SETTLING = "settling"
    CLOSED = "closed"


class WriterMachine:
    """The state of one partition's group writer.

    At most one step other than Wait is in flight: after `tick` returned one, its result must be
    reported (appended, refused, lost, probed, settled) before `tick` gives the next.
    """

    def __init__(self, limits: WriterLimits) -> None:
        self._limits = limits
        self._pending: deque[Batch] = deque()
        self._pending_events_count = 0
        self._in_flight: tuple[Batch, ...] = ()
        self._numbers_given = 0
        self._phase = Phase.IDLE
        self._crowded = False
        self._must_settle = False
        self._draining = False
        # Barriers asked from now on get this number; a call in flight serves all numbers below.
        self._barrier_number = 1
        self._barrier_wanted = False

    @property
    def phase(self) -> Phase:
        """What is going on."""
        return Phase.SETTLING if self._must_settle else self._phase

    @property
    def is_drained(self) -> bool:
        """Whether nothing is queued or in flight."""
        return (
            not self._pending
            and not self._in_flight
            and self.phase
            in (
                Phase.IDLE,
                Phase.CLOSED,
            )
        )

    @property
    def has_room(self) -> bool:
        """Whether another batch should be made now."""
        return self._pending_events_count < self._limits.pending_events_max

    def submit(self, events: Sequence[NewEvent], now_ns: int) -> int:
        """Queue one command's events; return the batch number. Not when closed."""
        assert events, "a batch has events; an answer without events waits for a barrier"
        assert self._phase is not Phase.CLOSED, "a closed writer takes nothing"
        self._numbers_given += 1
        size = sum(len(event.stored_bytes) for event in events)
        self._pending.append(Batch(self._numbers_given, tuple(events), size, now_ns))
        self._pending_events_count += len(events)
        # Commands that come faster than calls end are likely to have more company soon.
        self._crowded = self._crowded or self._phase is not Phase.IDLE
        return self._numbers_given

    def want_barrier(self) -> int:
        """Ask for a commit or a probe that begins after now; return the number it will pass."""
        assert self._phase is not Phase.CLOSED, "a closed writer takes nothing"
        self._barrier_wanted = True
        return self._barrier_number

    def drain(self) -> None:
        """Linger no more: the owner is about to stop."""
        self._draining = True

    def tick(self, now_ns: int) -> Step:
        """Return what to do now."""
        if self._must_settle:
            self._must_settle = False
            self._phase = Phase.SETTLING
            return Settle(self._events_in_flight())
        if self._phase is not Phase.IDLE:
            return Wait()
        if self._pending:
            due_ns = self._due_ns()
            return self._append() if now_ns >= due_ns else Wait(due_ns)
        if self._barrier_wanted:
            self._phase = Phase.PROBING
            self._serve_barriers()
            return Probe()
        return Wait()

    def appended(self, positions: Sequence[int]) -> list[News]:
        """The group is on disk; `positions` has one entry per event."""
        assert self._phase in (Phase.APPENDING, Phase.SETTLING)
        self._phase = Phase.IDLE
        news: list[News] = []
        end = 0
        for batch in self._in_flight:
            begin, end = end, end + len(batch.events)
            news.append(Committed(batch.number, tuple(positions[begin:end])))
        assert end == len(positions), "one position per event"
        self._in_flight = ()
        news.append(BarriersPassed(self._barrier_number - 1))
        return news

    def refused(self, cause: Refusal) -> list[News]:
        """Nothing of the group, or of what a probe waited with, is stored, for sure."""
        assert self._phase in (Phase.APPENDING, Phase.PROBING, Phase.SETTLING)
        self._phase = Phase.IDLE
        self._barrier_wanted = (
            True  # Whoever the failed call was to serve still waits; cheap if none.
        )
        news: list[News] = [*self._drop_all(cause)]
        if isinstance(cause, PartitionMoved):
            news += self.close(cause)
        return news

    def lost(self) -> None:
        """The call in flight ended without a clear answer: settle before anything else."""
        assert self._phase in (Phase.APPENDING, Phase.PROBING, Phase.SETTLING)
        self._barrier_wanted = True
        self._must_settle = True

    def probed(self) -> list[News]:
        """The ownership held while the probe ran."""
        assert self._phase is Phase.PROBING
        self._phase = Phase.IDLE
        return [BarriersPassed(self._barrier_number - 1)]

    def settled(self, settlement: Settlement) -> list[News]:
        """The fate of the group in flight is final; without a group the connection was mended."""
        assert self._phase is Phase.SETTLING
        if not self._in_flight:
            self._phase = Phase.IDLE
            return []
        match settlement.outcome:
            case SettledAs.COMMITTED:
                return self.appended(settlement.positions)
            case SettledAs.NOT_COMMITTED:
                return self.refused(StoreDown("the append was lost on its way; nothing is stored"))
            case SettledAs.MIXED:
                # Neither committed nor dropped would be true of these batches.
                return self.close(Internal("a group of events is stored in part"))

    def close(self, cause: Refusal) -> list[News]:
        """Stop for good; batches not yet reported stay so."""
        if self._phase is Phase.CLOSED:
            return []
        self._phase = Phase.CLOSED
        self._must_settle = False
        self._pending.clear()
        self._pending_events_count = 0
        self._in_flight = ()
        return [Closed(cause)]

    def _due_ns(self) -> int:
        oldest = self._pending[0]
        alone = len(self._pending) == 1 or not self._crowded
        large = self._pending_events_count >= self._limits.linger_events_max
        if alone or large or self._draining or self._barrier_wanted:
            return oldest.submitted_ns
        return oldest.submitted_ns + self._limits.linger_ns

    def _append(self) -> Append:
        group: list[Batch] = []
        events: list[NewEvent] = []
        bytes_count = 0
        for batch in self._pending:
            bytes_count += batch.stored_bytes_count
            over = (
                len(events) + len(batch.events) > self._limits.group_events_max
                or bytes_count > self._limits.group_bytes_max
            )
            if group and over:
                break
            group.append(batch)
            events += batch.events
        for _ in group:
            self._pending.popleft()
        self._pending_events_count -= len(events)
        self._in_flight = tuple(group)
        self._crowded = bool(self._pending)
        self._phase = Phase.APPENDING
        self._serve_barriers()
        return Append(tuple(events))

    def _serve_barriers(self) -> None:
        self._barrier_wanted = False
        self._barrier_number += 1

    def _events_in_flight(self) -> tuple[NewEvent, ...]:
        return tuple(event for batch in self._in_flight for event in batch.events)

    def _drop_all(self, cause: Refusal) -> list[Dropped]:
        numbers = tuple(batch.number for batch in (*self._in_flight, *self._pending))
        self._in_flight = ()
        self._pending.clear()
        self._pending_events_count = 0
        self._crowded = False
        return [Dropped(numbers, cause)] if numbers else []
