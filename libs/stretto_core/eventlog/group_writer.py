"""The group writer's asyncio shell: drives one partition's appends as `writer` decides.

Owns the order of appends of one partition: one call to the `OwnedLog` at a time, as many commands'
events in it as wait. Rules are in `writer.WriterMachine`; here are only the loop's timer, the one
task that awaits the log, and the calls back to the owner. Uses only the running loop's time, so it
runs unchanged on virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stretto_core.errors import Refusal
from stretto_core.eventlog.port import OwnedLog
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.eventlog.writer import WriterLimits


@dataclass(frozen=True, slots=True)
class Commit:
    """A command's events are on disk: its batch number, and the position of its last event."""

    batch: int
    position: int


class WriterOwner(Protocol):
    """Who submitted the batches; called on the loop, in arrival order; must not raise."""

    def batches_committed(self, commits: Sequence[Commit]) -> None:
        """These batches are on disk: what was decided on them may leave the process."""
        ...

    def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
        """None of these batches is stored, nor will be; they are all that was not yet committed.

        Drop the memory of their streams, then decide their commands again, in this order. New
        batches may be submitted from inside this call.
        """
        ...

    def writer_closed(self, cause: Refusal) -> None:
        """Nothing can be appended any more (PartitionMoved, Internal); close and forget.

        Batches neither committed nor dropped before this call have an unknown fate.
        """
        ...


class GroupWriter:
    """Appends batches of one partition in groups.

    limits: caps and linger; see `WriterLimits`.
    """

    def __init__(
        self, owned: OwnedLog, owner: WriterOwner, *, limits: WriterLimits | None = None
    ) -> None:
        raise NotImplementedError

    @property
    def has_room(self) -> bool:
        """Whether another command should be decided now; when not, refuse it with Exhausted."""
        raise NotImplementedError

    @property
    def is_settling(self) -> bool:
        """Whether the fate of a group is being found out: nothing may be answered meanwhile."""
        raise NotImplementedError

    def submit(self, events: Sequence[NewEvent]) -> int:
        """Queue one command's events (at least one) and return its batch number: 1, 2, 3 ...

        Returns at once. The owner is called back when the batch is committed or dropped. Raises
        the closing cause when the writer is closed.
        """
        raise NotImplementedError

    async def barrier(self) -> None:
        """Return once a commit or an ownership probe that began after this call has succeeded.

        Shared: one probe serves all who wait. Raises the closing cause when ownership is lost.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Append what is queued, then stop; batches submitted afterwards are refused."""
        raise NotImplementedError
