"""Where a stream stood at a moment: by version, by position, by time; and what is refused."""

from __future__ import annotations

import pytest
from stretto.common.v1.as_of_pb2 import AsOf
from stretto.common.v1.lease_pb2 import Position
from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import events_pb2 as ev
from stretto_core.errors import InvalidArgument, NotFound, OutOfRange
from stretto_core.eventlog.chain import EMPTY_HEAD
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import EventId, Namespace, Partition, RunId, StreamId
from stretto_kernel.app.moments import (
    AtPosition,
    AtTime,
    AtVersion,
    BeyondTheLog,
    Moment,
    find_moment,
    newest_position,
)
from stretto_kernel.domain.run.refusals import RunNotFound
from stretto_kernel.servicers.as_of import parse_as_of
from stretto_kernel.servicers.fields import Fields

PARTITION = Partition("p0")
MINE, OTHER = StreamId("p0-" + "0" * 32), StreamId("p0-" + "1" * 32)
TIMES = (10, 20, 20, 20, 35, 50)
NOW_NS = 60
NAMESPACE = Namespace("default")
MY_RUN = RunId(MINE)


@pytest.fixture
async def log() -> MemoryLog:
    """Six events of one stream, each followed by one of another."""
    log = MemoryLog(MemoryStore(PARTITION))
    owned = await log.acquire()
    codec, heads = Codec([ev.HoldPlaced]), {MINE: EMPTY_HEAD, OTHER: EMPTY_HEAD}
    for time_ns in TIMES:
        group: list[NewEvent] = []
        for stream in (MINE, OTHER):
            event_id = EventId(f"{stream}-{heads[stream].version + 1}")
            cause = Cause(NAMESPACE, Principal(name="me"))
            new = codec.encode(
                ev.HoldPlaced(),
                stream=stream,
                head=heads[stream],
                event_id=event_id,
                time_ns=time_ns,
                cause=cause,
            )
            heads[stream] = next_head(new, time_ns)
            group.append(new)
        await owned.append(group)
    return log


async def versions(log: MemoryLog, *moments: Moment) -> list[int]:
    return [
        (await find_moment(log, NAMESPACE, MY_RUN, moment, NOW_NS)).version for moment in moments
    ]


async def test_a_position_that_is_still_to_come_is_refused(log: MemoryLog) -> None:
    """What it shows is not known yet: the next read would show something else."""
    last = await log.position()
    assert await versions(log, AtPosition(last)) == [6]
    with pytest.raises(BeyondTheLog):
        await versions(log, AtPosition(last + 1))


async def test_a_moment_is_the_last_event_at_or_before_it(log: MemoryLog) -> None:
    assert await versions(log, *map(AtVersion, range(1, 7))) == [1, 2, 3, 4, 5, 6]
    assert await versions(log, *map(AtTime, (10, 19, 20, 34, 35, 50, 99))) == [1, 1, 4, 4, 5, 6, 6]
    places = [event.position for event in (await log.read_stream(MINE)).events]
    assert await versions(log, *map(AtPosition, places)) == [1, 2, 3, 4, 5, 6]
    assert await versions(log, *(AtPosition(place + 1) for place in places)) == [1, 2, 3, 4, 5, 6]


async def test_what_only_the_clock_decides_is_judged_at_the_moment(log: MemoryLog) -> None:
    assert (await find_moment(log, NAMESPACE, MY_RUN, AtVersion(5), NOW_NS)).judged_ns == 35
    assert (await find_moment(log, NAMESPACE, MY_RUN, AtTime(40), NOW_NS)).judged_ns == 40
    assert (await find_moment(log, NAMESPACE, MY_RUN, AtTime(1_000), NOW_NS)).judged_ns == NOW_NS, (
        "still to come"
    )


async def test_what_never_was_is_refused(log: MemoryLog) -> None:
    with pytest.raises(OutOfRange) as refused:
        await find_moment(log, NAMESPACE, MY_RUN, AtVersion(7), NOW_NS)
    assert refused.value.metadata["newest"] == "6"
    for before in (AtTime(9), AtPosition(0)):
        with pytest.raises(OutOfRange, match="version 1 is of 1970-01-01T00:00:00"):
            await find_moment(log, NAMESPACE, MY_RUN, before, NOW_NS)
    for moment in (AtVersion(1), AtTime(20), AtPosition(3)):
        with pytest.raises(NotFound):
            await find_moment(log, NAMESPACE, RunId("p0-" + "2" * 32), moment, NOW_NS)


async def test_of_another_tenants_run_nothing_is_told(log: MemoryLog) -> None:
    for moment in (AtVersion(1), AtVersion(7), AtTime(9), AtTime(20), AtPosition(3)):
        with pytest.raises(RunNotFound):
            await find_moment(log, Namespace("other"), MY_RUN, moment, NOW_NS)
    with pytest.raises(RunNotFound):
        await newest_position(log, Namespace("other"), MY_RUN)


def test_a_request_names_one_moment() -> None:
    def parsed(as_of: AsOf) -> Moment | None:
        fields = Fields()
        moment = parse_as_of(fields, as_of, PARTITION)
        fields.refuse("the request")
        return moment

    later = AsOf()
    later.time.FromNanoseconds(5)
    assert parsed(AsOf()) is None
    assert parsed(AsOf(version=3)) == AtVersion(3)
    assert parsed(AsOf(position=Position(number=4))) == AtPosition(4)
    assert parsed(later) == AtTime(5)
    later.time.nanos = -1
    for wrong in (
        AsOf(version=-1),
        AsOf(version=0),
        AsOf(position=Position(partition="p9", number=4)),
        AsOf(position=Position(partition="p0")),
        later,
    ):
        with pytest.raises(InvalidArgument) as refused:
            parsed(wrong)
        assert refused.value.violations[0].field.startswith("as_of.")
