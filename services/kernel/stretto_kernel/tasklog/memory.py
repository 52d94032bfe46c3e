"""Task logs in memory: for the simulator and for tests without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stretto_core.ids import RunId

from stretto_kernel.tasklog.entries import (
    Entry,
    Heads,
    LeaseHead,
    LeaseId,
    Page,
    PositionTaken,
    Selection,
    TailStart,
)

PAGE_ENTRIES_MAX = 500


class MemoryTaskLogs:
    """See `TaskLogStore`. Any number of kernels may share one."""

    def __init__(self) -> None:
        self.entries: dict[RunId, list[Entry]] = {}

    async def heads(self, leases: Sequence[LeaseId]) -> Heads:
        """See `TaskLogStore`."""
        found: dict[LeaseId, LeaseHead] = {}
        for lease in leases:
            for entry in self.entries.get(lease.run_id, ()):
                if entry.lease == lease:
                    found[lease] = entry.head
        return Heads({run_id: len(entries) for run_id, entries in self.entries.items()}, found)

    async def append(self, entries: Sequence[Entry], now_ns: int) -> None:
        """See `TaskLogStore`."""
        lengths = {entry.lease.run_id: 0 for entry in entries}
        for entry in entries:
            run_id = entry.lease.run_id
            lengths[run_id] += 1
            if entry.position != len(self.entries.get(run_id, ())) + lengths[run_id]:
                raise PositionTaken("another process stored entries of the run")
        for entry in entries:
            self.entries.setdefault(entry.lease.run_id, []).append(entry)

    async def read(self, selection: Selection, *, after_position: int) -> Page:
        """See `TaskLogStore`."""
        every = self.entries.get(selection.run_id, [])
        found = [entry for entry in every[after_position:] if selection.holds(entry)]
        page = [
            replace(entry, content=entry.stored_content, key=None)
            for entry in found[:PAGE_ENTRIES_MAX]
        ]
        return Page(page, page[-1].position if page else max(after_position, len(every)))

    async def tail(self, selection: Selection, *, line_count: int) -> TailStart:
        """See `TaskLogStore`."""
        found = [one for one in self.entries.get(selection.run_id, []) if selection.holds(one)]
        left = line_count
        if found and found[-1].content.endswith(b"\n"):
            left += 1
        for entry in reversed(found):
            count = entry.content.count(b"\n")
            if count >= left:
                return TailStart(entry.position - 1, count - left + 1)
            left -= count
        return TailStart(0, 0)
