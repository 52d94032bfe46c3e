"""Finds seals among all of a partition: a few reads, however many there are.

Seals are ordered by position as they are by version, so halving finds any. One that was changed or
taken away is passed over on the way: the seal after it says where it ended.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.errors import FailedPrecondition
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.eventlog.seals import seals_stream

BROKEN_MAX = 8
"""So many in a row are passed over, then the search is given up: it stays a few reads."""


class SealBroken(FailedPrecondition):
    """A seal, or the events under one, are not what was recorded: the record was changed."""

    reason = "SEAL_BROKEN"


async def newest_seal_at(log: EventLog, position: int) -> LogSealed | None:
    """Return the newest seal that covers nothing after `position`; None before the first."""
    seals = _Seals(log)
    version = await seals.count_up_to(position)
    return await seals.at(version) if version else None


async def seal_over(log: EventLog, position: int) -> LogSealed | None:
    """Return the seal that covers `position`; None while none does."""
    seals = _Seals(log)
    version = 1 + await seals.count_up_to(position - 1)
    return await seals.at(version) if version <= await seals.count() else None


async def seals_beyond(log: EventLog, start: LogSealed | None, end: LogSealed) -> list[LogSealed]:
    """Return the seals after `start` and before `end` whose own events lie beyond `end`'s position.

    Of a log that was never long without a seal there are none.
    """
    seals = _Seals(log)
    least = await seals.count_up_to(0 if start is None else start.position)
    last = most = await seals.count_up_to(end.position) - 1
    while least < most:
        middle = (least + most + 1) // 2
        if await seals.lies_at(middle) <= end.position:
            least = middle
        else:
            most = middle - 1
    return [await seals.at(version) for version in range(least + 1, last + 1)]


class _Seals:
    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._stream = seals_stream(log.partition)
        self._count: int | None = None

    async def count(self) -> int:
        if self._count is None:
            head = (await self._log.stream_heads([self._stream])).get(self._stream)
            self._count = 0 if head is None else head.version
        return self._count

    async def count_up_to(self, position: int) -> int:
        """How many seals cover nothing after `position`."""
        least, most = 0, await self.count()
        while least < most:
            middle = (least + most + 1) // 2
            if await self.covers_to(middle) <= position:
                least = middle
            else:
                most = middle - 1
        return least

    async def covers_to(self, version: int) -> int:
        """The last position that a seal covers, of a broken one by the seal after it."""
        for later in range(version, version + BROKEN_MAX):
            try:
                seal = await self.at(later)
            except SealBroken:
                if later == await self.count():
                    break
                continue
            return seal.position if later == version else seal.after_position
        raise self._broken(version)

    async def lies_at(self, version: int) -> int:
        """The position of a seal's own event, of one that is gone by the one before."""
        first = max(1, version - BROKEN_MAX)
        page = await self._log.read_stream(
            self._stream, after_version=first - 1, limit=version - first + 1
        )
        there = [event.position for event in page.events if event.version <= version]
        if not there:
            raise self._broken(version)
        return there[-1]

    async def at(self, version: int) -> LogSealed:
        stored_bytes = (await self.stored_at(version)).stored_bytes
        try:
            return LogSealed.FromString(RecordedEvent.FromString(stored_bytes).body)
        except DecodeError:
            raise self._broken(version) from None

    async def stored_at(self, version: int) -> StoredEvent:
        page = await self._log.read_stream(self._stream, after_version=version - 1, limit=1)
        if not page.events or page.events[0].version != version:
            raise self._broken(version)
        return page.events[0]

    def _broken(self, version: int) -> SealBroken:
        return SealBroken(
            f"seal {version} is not there as it was recorded: the record was changed; "
            "`stretto verify` names the event; files that do not begin with that seal can be "
            "exported, and `stretto-verify` finds the change in them",
            stream=self._stream,
            version=str(version),
        )
