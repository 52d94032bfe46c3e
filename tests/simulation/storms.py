"""What goes wrong with the memory log's calls, drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.testing.trace import Trace

_KINDS = (Fault.REFUSED, Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.LATE)


@dataclass(slots=True)
class LogStorm:
    """Implements AppendFaults.

    share: how many of the calls go wrong, 0.0-1.0; the world lowers it to 0 when faults end.
    """

    draws: random.Random
    trace: Trace
    share: float

    def plan_append(self, owner_epoch: int, events: Sequence[NewEvent]) -> AppendFault:
        """See `AppendFaults`."""
        before_s, after_s = self._wait_s(), self._wait_s()
        if self.draws.random() >= self.share:
            return AppendFault(before_s=before_s, after_s=after_s)
        kind = self.draws.choice(_KINDS)
        late_s = self.draws.choice((0.001, 0.05, 1.0))
        self.trace.note("log", f"append of {len(events)} under epoch {owner_epoch}: {kind.value}")
        return AppendFault(kind, before_s=before_s, after_s=after_s, late_s=late_s)

    def plan_settle(self) -> AppendFault:
        """See `AppendFaults`."""
        if self.draws.random() >= self.share:
            return AppendFault(before_s=self._wait_s(), after_s=self._wait_s())
        return AppendFault(Fault.REFUSED, before_s=self._wait_s())

    def plan_read(self) -> AppendFault:
        """See `AppendFaults`."""
        return self.plan_settle()

    def _wait_s(self) -> float:
        if self.draws.random() < self.share / 2:
            return self.draws.uniform(0.0, 0.5)
        return self.draws.uniform(0.000_2, 0.002)
