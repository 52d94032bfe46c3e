"""What can go wrong with a call on the log: the vocabulary of the memory log's planned faults.

Pure data and a port; the simulator's seed decides. Waits are seconds of the running loop.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stretto_core.eventlog.recorded import NewEvent


class Fault(enum.Enum):
    """What goes wrong with one append."""

    NONE = "none"
    REFUSED = "refused"
    """Fails cleanly: StoreDown, nothing stored."""
    LOST_BEFORE = "lost before"
    """AppendUnknown, and nothing was stored."""
    LOST_AFTER = "lost after"
    """AppendUnknown, and everything was stored."""
    LATE = "late"
    """AppendUnknown now; the append reaches the store `late_s` later, if it still may."""


@dataclass(frozen=True, slots=True)
class AppendFault:
    """How one append goes: waits before and after the store acts, in seconds, and what fails."""

    kind: Fault = Fault.NONE
    before_s: float = 0.0
    after_s: float = 0.0
    late_s: float = 0.0


class AppendFaults(Protocol):
    """Plans the fault of each call on the store; seeded by the simulator."""

    def plan_append(self, owner_epoch: int, events: Sequence[NewEvent]) -> AppendFault:
        """Return how this append goes."""
        ...

    def plan_settle(self) -> AppendFault:
        """Return how this settlement or probe goes: REFUSED means StoreDown, others only wait."""
        ...

    def plan_read(self) -> AppendFault:
        """Return how this read goes: REFUSED means StoreDown, others only wait."""
        ...


class NoFaults:
    """Everything works, at once."""

    def plan_append(self, owner_epoch: int, events: Sequence[NewEvent]) -> AppendFault:
        """Return no fault."""
        return AppendFault()

    def plan_settle(self) -> AppendFault:
        """Return no fault."""
        return AppendFault()

    def plan_read(self) -> AppendFault:
        """Return no fault."""
        return AppendFault()
