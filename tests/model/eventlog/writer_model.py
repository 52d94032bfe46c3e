"""The group writer's rules against a model: every action that may happen next, and what must hold.

The model plays owner and log. It knows what is truly stored, so it can say whether the machine ever
acknowledges what is not, drops what is, splits a batch or changes the order.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable

from stretto_core.errors import Refusal
from stretto_core.eventlog.port import (
    PartitionMoved,
    SettledAs,
    Settlement,
    VersionConflict,
)
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.eventlog.writer import (
    Append,
    BarriersPassed,
    Closed,
    Committed,
    Dropped,
    News,
    Phase,
    Probe,
    Settle,
    Step,
    Wait,
    WriterLimits,
    WriterMachine,
)
from stretto_core.ids import EventId, StreamId

LIMITS = WriterLimits(group_events_max=3, linger_ns=10, linger_events_max=3)


def event(batch: int, index: int) -> NewEvent:
    return NewEvent(StreamId("s"), batch * 10 + index, EventId(f"{batch}.{index}"), "t", b"x", b"")


class WriterModel:
    """One machine and the truth about it; `actions` names what may happen now."""

    def __init__(self) -> None:
        self.machine = WriterMachine(LIMITS)
        self.now_ns = 0
        self.steps_begun = 0
        self.in_flight: Step | None = None
        self.stored: list[NewEvent] = []
        self.open: list[tuple[int, tuple[NewEvent, ...]]] = []
        self.committed: list[int] = []
        self.dropped: list[int] = []
        self.submitted = 0
        # Barrier number -> how many steps had begun when it was asked first.
        self.barriers: dict[int, int] = {}
        self.steps_succeeded: list[int] = []
        self.closed = False

    def clone(self) -> WriterModel:
        """Return an independent copy; everything below the containers is immutable."""
        clone = copy.copy(self)
        clone.machine = copy.copy(self.machine)
        for owner in (clone, clone.machine):
            for name, value in vars(owner).items():
                if isinstance(value, (list, dict, deque)):
                    setattr(owner, name, value.copy())
        return clone

    def actions(self) -> dict[str, Callable[[], None]]:
        actions: dict[str, Callable[[], None]] = {}
        if not self.closed:
            actions |= {"submit one": lambda: self.submit(1), "submit two": lambda: self.submit(2)}
            actions |= {"submit five": lambda: self.submit(5), "barrier": self.ask_barrier}
        if self.in_flight is None and not self.closed:
            actions["tick"] = self.tick
            actions["pass time"] = self.pass_time
        match self.in_flight:
            case Append(events=events):
                actions["append: stored"] = lambda: self.stored_and_told(events)
                actions["append: conflict"] = lambda: self.refused(VersionConflict("taken"))
                actions["append: moved"] = lambda: self.refused(PartitionMoved("moved"))
                actions["append: lost, stored"] = lambda: self.lost(events)
                actions["append: lost, not stored"] = lambda: self.lost(())
            case Probe():
                actions["probe: held"] = self.probed
                actions["probe: moved"] = lambda: self.refused(PartitionMoved("moved"))
                actions["probe: lost"] = lambda: self.lost(())
            case Settle(events=events):
                actions["settled"] = lambda: self.settled(events)
        return actions

    def submit(self, count: int) -> None:
        self.submitted += 1
        events = tuple(event(self.submitted, index) for index in range(count))
        number = self.machine.submit(events, self.now_ns)
        assert number == self.submitted
        self.open.append((number, events))

    def ask_barrier(self) -> None:
        self.barriers.setdefault(self.machine.want_barrier(), self.steps_begun)

    def pass_time(self) -> None:
        self.now_ns += LIMITS.linger_ns

    def tick(self) -> None:
        step = self.machine.tick(self.now_ns)
        if isinstance(step, Wait):
            self.check_wait(step)
            return
        self.steps_begun += 1
        self.in_flight = step
        if isinstance(step, Append):
            self.check_group(step.events)

    def check_wait(self, step: Wait) -> None:
        """It may only wait when nothing is left to do, or a moment for company."""
        if self.open:
            assert step.until_ns is not None and self.now_ns < step.until_ns
            assert len(self.open) > 1, "one batch alone waits for nobody"
            assert step.until_ns <= self.now_ns + LIMITS.linger_ns
        else:
            assert step.until_ns is None
        waited_for = [number for number in self.barriers if not self.open]
        assert not waited_for, "a barrier with nothing pending needs a probe now"

    def check_group(self, events: tuple[NewEvent, ...]) -> None:
        """A group is whole batches, the oldest first, up to the cap."""
        taken: list[NewEvent] = []
        for count, (_, batch) in enumerate(self.open, start=1):
            taken += batch
            if len(taken) >= len(events):
                assert tuple(taken) == events, "a batch was split or passed over"
                assert len(events) <= LIMITS.group_events_max or count == 1
                return
        raise AssertionError("the group has events nobody submitted")

    def stored_and_told(self, events: tuple[NewEvent, ...]) -> None:
        positions = self.store(events)
        self.succeeded()
        self.hear(self.machine.appended(positions))

    def store(self, events: tuple[NewEvent, ...]) -> tuple[int, ...]:
        self.stored += events
        return tuple(range(len(self.stored) - len(events) + 1, len(self.stored) + 1))

    def refused(self, cause: Refusal) -> None:
        self.in_flight = None
        self.hear(self.machine.refused(cause))
        assert isinstance(cause, PartitionMoved) == self.closed

    def lost(self, stored: tuple[NewEvent, ...]) -> None:
        self.store(stored)
        self.in_flight = None
        self.machine.lost()
        assert self.machine.phase is Phase.SETTLING
        step = self.machine.tick(self.now_ns)
        assert isinstance(step, Settle), "nothing comes before the settlement"
        self.in_flight = step

    def settled(self, events: tuple[NewEvent, ...]) -> None:
        found = [self.stored.index(one) + 1 for one in events if one in self.stored]
        assert len(found) in {0, len(events)}
        outcome = SettledAs.COMMITTED if len(found) == len(events) else SettledAs.NOT_COMMITTED
        if found:
            self.succeeded()
        self.in_flight = None
        self.hear(self.machine.settled(Settlement(outcome, tuple(found))))

    def probed(self) -> None:
        self.succeeded()
        self.hear(self.machine.probed())

    def succeeded(self) -> None:
        self.steps_succeeded.append(self.steps_begun)
        self.in_flight = None

    def hear(self, news: list[News]) -> None:
        for one in news:
            match one:
                case Committed(batch=batch, position=position):
                    number, events = self.open.pop(0)
                    assert number == batch, "commits are told in arrival order"
                    assert self.stored[position - 1] == events[-1], "told committed, not stored"
                    self.committed.append(batch)
                case Dropped(batches=batches):
                    assert list(batches) == [number for number, _ in self.open]
                    for _, events in self.open:
                        assert not set(events) & set(self.stored), "told dropped, but stored"
                    self.dropped += batches
                    self.open.clear()
                case BarriersPassed(number=number):
                    self.check_barriers(number)
                case Closed():
                    self.closed = True

    def check_barriers(self, number: int) -> None:
        for asked in [asked for asked in self.barriers if asked <= number]:
            begun_before = self.barriers.pop(asked)
            assert self.steps_succeeded[-1] > begun_before, "nothing began after the barrier"

    def check_end(self) -> None:
        """Each batch has at most one fate; what is open is still the machine's."""
        fates = self.committed + self.dropped
        assert sorted(fates + [number for number, _ in self.open]) == list(
            range(1, self.submitted + 1)
        )
