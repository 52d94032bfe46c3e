"""How far the logs of runs and leases are, and what that makes of chunks that come. Pure.

A chunk whose sequence is not above the newest of its lease is a repeat. A lease that reaches its
limit gets one last entry that says so. What is not known here is asked of the store first; the
oldest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stretto_core.ids import RunId

from stretto_kernel.tasklog.entries import Entry, Heads, LeaseHead, LeaseId, Written

RUNS_MAX = 10_000
LEASES_MAX = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLimits:
    """How much of one lease's log is kept."""

    bytes_max: int = 16 * 1024 * 1024
    entries_max: int = 100_000


class Book:
    """Where the next entries of runs and leases go."""

    def __init__(self, limits: LeaseLimits) -> None:
        self._limits = limits
        self._positions: OrderedDict[RunId, int] = OrderedDict()
        self._leases: OrderedDict[LeaseId, LeaseHead] = OrderedDict()

    def unknown(self, leases: Iterable[LeaseId]) -> list[LeaseId]:
        """Those of which the store must be asked before they are entered."""
        return [
            lease
            for lease in dict.fromkeys(leases)
            if lease not in self._leases or lease.run_id not in self._positions
        ]

    def learn(self, asked: Sequence[LeaseId], heads: Heads) -> None:
        """Take over what the store said of what was asked."""
        for lease in asked:
            self._positions.setdefault(lease.run_id, heads.positions.get(lease.run_id, 0))
            self._leases[lease] = heads.leases.get(lease, LeaseHead())

    def forget(self, leases: Iterable[LeaseId]) -> None:
        """Nothing is sure of these leases and their runs any more."""
        for lease in leases:
            self._positions.pop(lease.run_id, None)
            self._leases.pop(lease, None)

    def enter(self, written: Written) -> list[Entry]:
        """Return the entries that the chunks make, in order; the lease and its run are known."""
        lease, entries = written.lease, []
        head = self._leases[lease]
        position = self._positions[lease.run_id]
        for chunk in written.chunks:
            if head.truncated:
                break
            if chunk.sequence <= head.sequence:
                continue
            room = self._limits.bytes_max - head.bytes_count
            content = chunk.content[:room]
            head = LeaseHead(
                chunk.sequence,
                head.entry_count + 1,
                head.bytes_count + len(content),
                len(chunk.content) > room or head.entry_count + 1 >= self._limits.entries_max,
            )
            position += 1
            entries.append(
                Entry(
                    position,
                    lease,
                    written.activation,
                    written.attempt,
                    chunk.stream,
                    chunk.time_ns,
                    content,
                    chunk.dropped_bytes,
                    head,
                    written.key,
                )
            )
        self._leases[lease] = head
        self._positions[lease.run_id] = position
        self._leases.move_to_end(lease)
        self._positions.move_to_end(lease.run_id)
        return entries

    def is_truncated(self, lease: LeaseId) -> bool:
        """Whether nothing more of the lease is kept."""
        head = self._leases.get(lease)
        return head is not None and head.truncated

    def shrink(self) -> None:
        """Forget the oldest beyond the limits; between batches only."""
        while len(self._leases) > LEASES_MAX:
            self._leases.popitem(last=False)
        while len(self._positions) > RUNS_MAX:
            self._positions.popitem(last=False)
