"""Decider of a partition's seals: each follows the one before without a gap or an overlap.

Pure. The newest seal says all that the next one must know. What a seal covers is committed before
it is decided, by whoever owned the partition then.
"""

from __future__ import annotations

from dataclasses import dataclass

from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.eventlog.recorded import Recorded
from stretto_core.eventlog.seals import Covered, SealKey, new_seal
from stretto_core.ids import Partition


@dataclass(slots=True)
class SealsState:
    """The seals of a partition so far."""

    partition: Partition
    newest: LogSealed | None = None

    @property
    def position(self) -> int:
        """The last position that is under a seal; 0 while none is."""
        return 0 if self.newest is None else self.newest.position


@dataclass(frozen=True, slots=True, kw_only=True)
class SealLog:
    """Seal what is covered, all of it committed."""

    covered: Covered
    key: SealKey


def decide(state: SealsState, command: SealLog) -> tuple[LogSealed, ...]:
    """Return the next seal; () for what is sealed already. Never refuses."""
    if command.covered.position <= state.position:
        return ()
    return (new_seal(command.key, state.partition, state.newest, command.covered),)


def evolve(state: SealsState, recorded: Recorded[LogSealed]) -> None:
    """Take the newest seal."""
    state.newest = recorded.event
