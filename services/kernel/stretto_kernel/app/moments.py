"""Moments in the life of a run: a version, a position, an instant; and its last event then.

Reads the committed log alone, so that a moment needs no run in memory and no owner. Positions
and times of a stream rise with its versions, which is what lets a moment be found by halving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.errors import OutOfRange
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, RunId, StreamId

from stretto_kernel.domain.run.refusals import RunNotFound


class BeyondTheLog(OutOfRange):
    """The place is of another log, of one that was restored since, or still to come."""


@dataclass(frozen=True, slots=True)
class AtVersion:
    """Right after the event of this version."""

    version: int


@dataclass(frozen=True, slots=True)
class AtPosition:
    """After the last event at or before this position."""

    position: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """After the last event recorded at or before this instant, UTC nanoseconds."""

    time_ns: int


Moment = AtVersion | AtPosition | AtTime


class Then(NamedTuple):
    """A run right after one of its events.

    judged_ns: the instant at which what only the clock decides is judged, UTC nanoseconds.
    """

    version: int
    position: int
    judged_ns: int
    namespace: Namespace
    time_ns: int


async def find_moment(
    log: EventLog, namespace: Namespace, run_id: RunId, moment: Moment, now_ns: int
) -> Then:
    """Return where a run stood at a moment; an instant still to come is `now_ns`.

    Raises RunNotFound, OutOfRange (it has no such version, or had not begun, or the log has no such
    position: what it will show is not known yet), StoreDown.
    """
    try:
        then = await _find(log, run_id, moment, now_ns)
    except OutOfRange:
        await newest_position(log, namespace, run_id)  # Of another tenant's run nothing is told.
        raise
    if then.namespace != namespace:
        raise RunNotFound(run_id)
    return then


async def newest_position(log: EventLog, namespace: Namespace, run_id: RunId) -> int:
    """Return the position of a run's newest event. Raises RunNotFound, StoreDown."""
    newest = await _event(log, run_id, await _newest_version(log, run_id))
    assert newest is not None, "a stream has no gap"
    if newest.namespace != namespace:
        raise RunNotFound(run_id)
    return newest.position


async def require_within(log: EventLog, position: int) -> None:
    """Raise BeyondTheLog for a position that the log does not have yet."""
    refuse_beyond(position, await log.position())


def refuse_beyond(position: int, head: int) -> None:
    """Raise BeyondTheLog for a position beyond the log's newest."""
    if position > head:
        raise BeyondTheLog(
            f"the log ends at {head}: {position} is of another log, or this one was restored from "
            "an older copy",
            position=str(position),
            newest_position=str(head),
        )


async def _find(log: EventLog, run_id: RunId, moment: Moment, now_ns: int) -> Then:
    match moment:
        case AtVersion(version):
            found = await _event(log, run_id, version)
            return found if found is not None else await _refuse_version(log, run_id, version)
        case AtPosition(position):
            await require_within(log, position)
            return await _last(log, run_id, lambda event: event.position <= position)
        case AtTime(time_ns):
            found = await _last(log, run_id, lambda event: event.time_ns <= time_ns)
            return found._replace(judged_ns=max(found.time_ns, min(time_ns, now_ns)))


async def _newest_version(log: EventLog, run_id: RunId) -> int:
    stream = StreamId(run_id)
    head = (await log.stream_heads([stream])).get(stream)
    if head is None:
        raise RunNotFound(run_id)
    return head.version


async def _last(log: EventLog, run_id: RunId, is_past: Callable[[Then], bool]) -> Then:
    low, high = 1, await _newest_version(log, run_id)
    found: Then | None = None
    while low <= high:
        middle = (low + high) // 2
        event = await _event(log, run_id, middle)
        assert event is not None, "a stream has no gap"
        if is_past(event):
            found, low = event, middle + 1
        else:
            high = middle - 1
    if found is None:
        begun = await _event(log, run_id, 1)
        assert begun is not None, "a stream that has a head has a first event"
        raise OutOfRange(
            f"it had not begun then: version 1 is of {_instant_text(begun.time_ns)}, at position "
            f"{begun.position}",
            run_id=run_id,
        )
    return found


async def _event(log: EventLog, run_id: RunId, version: int) -> Then | None:
    page = await log.read_stream(StreamId(run_id), after_version=version - 1, limit=1)
    if not page.events:
        return None
    stored = page.events[0]
    envelope = RecordedEvent.FromString(stored.stored_bytes)
    time_ns = envelope.time.ToNanoseconds()
    return Then(version, stored.position, time_ns, Namespace(envelope.namespace), time_ns)


async def _refuse_version(log: EventLog, run_id: RunId, version: int) -> Then:
    newest = await _newest_version(log, run_id)
    raise OutOfRange(
        f"version {version} is not there yet: the newest is {newest}",
        run_id=run_id,
        version=str(version),
        newest=str(newest),
    )


def _instant_text(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000 / 1_000, tz=UTC).isoformat(
        timespec="milliseconds"
    )
