"""Seals follow one another without a gap, whatever becomes of the kernel or of its appends."""

from __future__ import annotations

import asyncio

import pytest
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.clock import NS_PER_S
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.eventlog.port import PartitionMoved
from stretto_core.eventlog.recorded import Page
from stretto_core.eventlog.seals import SEALED_TYPE, seals_stream
from stretto_core.testing.log_watch import LogWatch
from stretto_kernel.app import resident_stream
from stretto_kernel.app import sealer as sealer_module
from stretto_kernel.app.sealer import NotSealedYet, SealingStopped, SealLimits
from stretto_kernel.kernel import Kernel

from tests.simulation.seal_laws import SealLaws
from tests.unit.kernel.harness import PlannedFaults, new_store, start, start_kernel
from tests.waiting import until

BY_COUNT = SealLimits(events_max=5, interval_ns=3_600 * NS_PER_S)
AT_ONCE = SealLimits(events_max=10_000, interval_ns=0)
NEVER = SealLimits(events_max=10_000, interval_ns=3_600 * NS_PER_S)
CODEC = Codec([LogSealed])


def seals_of(store: MemoryStore) -> list[LogSealed]:
    """Return the seals of a log, which keep their laws."""
    LogWatch(store, checks=[SealLaws().check]).catch_up()
    found = []
    for event in store.events:
        if event.type == SEALED_TYPE:
            seal = CODEC.decode(event.stored_bytes).recorded.event
            assert isinstance(seal, LogSealed)
            found.append(seal)
    return found


async def start_runs(kernel: Kernel, count: int) -> None:
    for _ in range(count):
        await start(kernel)


async def test_a_seal_follows_so_many_events() -> None:
    store = new_store()
    kernel = await start_kernel(store, seals=BY_COUNT)
    await start_runs(kernel, 12)
    await until(lambda: len(seals_of(store)) == 2)
    sealer = kernel.partition.sealer
    await until(lambda: sealer.newest == seals_of(store)[-1])
    assert all(seal.event_count >= 5 for seal in seals_of(store))
    assert sealer.unsealed_count == sum(
        event.position > seals_of(store)[-1].position for event in store.events
    )
    await kernel.stop()


async def test_a_seal_follows_some_time_after_the_first_event_and_seals_alone_cause_none() -> None:
    store = new_store()
    kernel = await start_kernel(store, seals=AT_ONCE)
    for _ in range(3):
        await start(kernel)
        await until(lambda: store.events[-1].type == SEALED_TYPE)
    # Three runs and their three seals, of which the last is covered by none: there it ends.
    sealer = kernel.partition.sealer
    await until(lambda: sealer.unsealed_count == 1)
    assert sealer.next_due_mono_ns() is None
    assert len(store.events) == 6
    await kernel.stop()


async def test_the_next_owner_seals_what_the_one_before_left() -> None:
    store = new_store()
    first = await start_kernel(store, seals=BY_COUNT)
    await start_runs(first, 13)
    first.abandon()
    assert store.held_by is not None
    store.held_by = None  # The process is gone.
    newer = await start_kernel(store, seals=AT_ONCE)
    await until(lambda: newer.partition.sealer.unsealed_count == 1)
    assert sum(seal.event_count for seal in seals_of(store)) == len(store.events) - 1
    await newer.stop()


async def test_a_usurper_goes_on_where_the_owner_was() -> None:
    store = new_store()
    old = await start_kernel(store, seals=BY_COUNT)
    await start_runs(old, 7)
    usurper = await start_kernel(store, seals=BY_COUNT, exclusive=False)
    await start_runs(usurper, 9)
    with pytest.raises(PartitionMoved):
        await old.partition.sealer.seal_now()
    await usurper.partition.sealer.seal_now()
    assert seals_of(store)[-1].position == store.events[-2].position
    await usurper.stop()
    await old.stop()


@pytest.mark.parametrize(
    ("fault", "stored"),
    [(Fault.REFUSED, False), (Fault.LOST_BEFORE, False), (Fault.LOST_AFTER, True)],
)
async def test_a_seal_whose_append_fails_is_made_again_unless_it_was_stored(
    fault: Fault, stored: bool
) -> None:
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults, seals=NEVER)
    await start_runs(kernel, 3)
    faults.next = [AppendFault(fault)]
    seal = await kernel.partition.sealer.seal_now()
    assert seals_of(store) == [seal]
    assert seal.event_count == 3
    assert faults.append_count == (4 if stored else 5)
    await start_runs(kernel, 2)
    assert (await kernel.partition.sealer.seal_now()).event_count == 3
    await kernel.stop()


async def test_everything_committed_is_under_a_seal_asked_for_and_asking_again_makes_none() -> None:
    store = new_store()
    kernel = await start_kernel(store, seals=NEVER)
    sealer = kernel.partition.sealer
    with pytest.raises(NotSealedYet):
        await sealer.seal_now()
    await start_runs(kernel, 3)
    first = await sealer.seal_now()
    assert (first.position, first.event_count) == (store.events[2].position, 3)
    assert await sealer.seal_now() == first
    one, other, _ = await asyncio.gather(sealer.seal_now(), sealer.seal_now(), start(kernel))
    assert one.position <= other.position
    assert (await sealer.seal_now()).position == max(
        event.position for event in store.events if event.type != SEALED_TYPE
    )
    await kernel.stop()


async def test_an_event_that_cannot_be_read_stops_sealing_with_its_place() -> None:
    store = new_store()
    first = await start_kernel(store, seals=NEVER)
    await start_runs(first, 3)
    await first.stop()
    store.events[1] = store.events[1]._replace(stored_bytes=b"\xff damaged")
    kernel = await start_kernel(store, seals=AT_ONCE)
    with pytest.raises(SealingStopped) as stopped:
        await kernel.partition.sealer.seal_now()
    assert stopped.value.metadata["position"] == str(store.events[1].position)
    await start_runs(kernel, 2)
    assert not any(event.type == SEALED_TYPE for event in store.events)
    assert kernel.partition.sealer.stop is stopped.value
    await kernel.stop()


@pytest.mark.parametrize("damage", ["newest", "one before"])
async def test_nothing_is_sealed_after_a_seal_that_was_changed_or_taken_away(damage: str) -> None:
    """Or the kernel's own key would sign what somebody else made of the record."""
    store = new_store()
    first = await start_kernel(store, seals=BY_COUNT)
    await start_runs(first, 13)
    await first.partition.sealer.seal_now()
    await first.stop()
    seals = store.stream_events(seals_stream(store.partition))
    assert len(seals) > 2
    if damage == "newest":
        envelope = RecordedEvent.FromString(seals[-1].stored_bytes)
        seal = LogSealed.FromString(envelope.body)
        seal.position = 10**9
        envelope.body = seal.SerializeToString()
        seals[-1] = seals[-1]._replace(stored_bytes=envelope.SerializeToString())
    else:
        del seals[-2]
    event_count = len(store.events)
    kernel = await start_kernel(store, seals=AT_ONCE)
    with pytest.raises(SealingStopped) as stopped:
        await kernel.partition.sealer.seal_now()
    assert stopped.value.metadata["stream"] == "p0-seals"
    await start_runs(kernel, 2)
    assert not any(event.type == SEALED_TYPE for event in store.events[event_count:])
    await kernel.stop()


async def test_who_waits_for_a_seal_when_the_ownership_ends_is_told() -> None:
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults, seals=NEVER)
    await start_runs(kernel, 1)
    faults.settles_fail = True  # The store does not answer: nobody knows who owns the partition.
    asking = asyncio.create_task(kernel.partition.sealer.seal_now())
    await until(lambda: kernel.partition.facts.writer.is_settling)
    kernel.abandon()
    with pytest.raises(Exception, match="stopped"):
        await asking


async def test_what_was_read_before_the_writer_told_of_it_is_covered_once() -> None:
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults, seals=NEVER)
    faults.next = [AppendFault(after_s=0.05)]  # Stored, and only then told.
    starting = asyncio.create_task(start(kernel))
    await until(lambda: len(store.events) == 1)
    kernel.partition.sealer.start()  # Reads again, and the event with it.
    await starting
    assert (await kernel.partition.sealer.seal_now()).event_count == 1
    await start_runs(kernel, 1)
    assert (await kernel.partition.sealer.seal_now()).event_count == 2
    assert len(seals_of(store)) == 2
    await kernel.stop()


async def test_an_error_nobody_foresaw_is_told_to_who_waits_and_sealing_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sealer_module, "FAILED_AGAIN_S", 0.01)
    store = new_store()
    kernel = await start_kernel(store, seals=NEVER)
    await start_runs(kernel, 3)
    sealer, log = kernel.partition.sealer, kernel.ports.log
    read_all = log.read_all
    monkeypatch.setattr(log, "read_all", failing)
    sealer.start()
    await until(lambda: sealer.stop is not None)
    for _ in range(2):
        with pytest.raises(SealingStopped, match="error of its own"):
            await sealer.seal_now()
    monkeypatch.setattr(log, "read_all", read_all)
    await until(lambda: sealer.stop is None)
    assert (await sealer.seal_now()).event_count == 3
    await kernel.stop()


async def failing(**_: object) -> Page:
    raise ZeroDivisionError


async def test_a_log_whose_seals_are_all_gone_is_sealed_anew_but_not_without_a_word() -> None:
    store = new_store()
    first = await start_kernel(store, seals=BY_COUNT)
    assert first.partition.sealer.warning == ""
    await start_runs(first, 13)
    await first.partition.sealer.seal_now()
    await first.stop()
    store.events = [event for event in store.events if event.type != SEALED_TYPE]
    seals = store.stream_events(seals_stream(store.partition))
    for seal in seals:
        del store._by_place[seal.stream, seal.version]
    seals.clear()
    limits = SealLimits(events_max=5, interval_ns=0)
    kernel = await start_kernel(store, seals=limits)
    await kernel.partition.sealer.seal_now()
    assert "no seal was there" in kernel.partition.sealer.warning
    await kernel.stop()
    again = await start_kernel(store, seals=limits)
    await again.partition.sealer.seal_now()
    assert again.partition.sealer.warning == ""
    await again.stop()


async def test_settings_that_cannot_be_folded_again_are_read_once_the_cause_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resident_stream, "FOLD_FAILED_AGAIN_S", 0.01)
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults, seals=NEVER)
    await start_runs(kernel, 1)
    log = kernel.ports.log
    read_stream = log.read_stream
    failures = []

    async def fail(*_: object, **__: object) -> Page:
        failures.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(log, "read_stream", fail)
    faults.next = [AppendFault(Fault.REFUSED)]
    with pytest.raises(SealingStopped):
        await kernel.partition.sealer.seal_now()
    await until(lambda: len(failures) > 3)
    monkeypatch.setattr(log, "read_stream", read_stream)
    stream = kernel.partition.sealer._stream
    await until(lambda: stream.in_memory is not None)
    await kernel.stop()
