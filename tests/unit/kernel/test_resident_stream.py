"""A stream beside the runs: the same guarantees, and the other readers of the log pass it over."""

from __future__ import annotations

import asyncio

import pytest
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.errors import Refusal
from stretto_core.eventlog.codec import Cause, Codec
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.eventlog.memory import MemoryLog
from stretto_core.eventlog.recorded import NewEvent, Recorded
from stretto_core.ids import Namespace, RunId, StreamId
from stretto_kernel.app.fact_writer import KERNEL_PRINCIPAL, Decider
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.app.recovery import NoRunIndex, find_active_runs
from stretto_kernel.app.resident_stream import ResidentStream
from stretto_kernel.kernel import Kernel

from tests.simulation.sim_views import rebuilt
from tests.unit.kernel.harness import PlannedFaults, get, new_store, start, start_kernel
from tests.waiting import until

SEALS = StreamId("p0-others")
AUDIT = Namespace("stretto-audit")


def append_it(state: list[LogSealed], event: LogSealed) -> tuple[LogSealed, ...]:
    return (event,)


def remember(state: list[LogSealed], recorded: Recorded[LogSealed]) -> None:
    state.append(recorded.event)


class Seals:
    """A user of the port: appends, and hears what became of it."""

    def __init__(self, kernel: Kernel) -> None:
        self.news: list[object] = []
        self.voided_count = 0
        self.stream: ResidentStream[list[LogSealed]] = ResidentStream(
            kernel.ports.log,
            kernel.partition.facts,
            Decider(Codec([LogSealed]), append_it, remember),
            stream=SEALS,
            namespace=AUDIT,
            new_state=list,
            voided=self._void,
        )

    async def append(self, position: int) -> None:
        hosted = await self.stream.fold()
        cause = Cause(namespace=AUDIT, principal=KERNEL_PRINCIPAL)
        assert self.stream.take(hosted, LogSealed(position=position), cause)
        self.stream.facts.when_settled(
            hosted, lambda: self.news.append(hosted.committed), self.news.append
        )

    def _void(self) -> None:
        self.voided_count += 1


async def test_an_event_is_appended_at_the_next_version_and_folded_by_the_next_owner() -> None:
    store = new_store()
    kernel = await start_kernel(store)
    seals = Seals(kernel)
    await seals.append(1)
    await seals.append(2)
    await until(lambda: seals.news == [1, 2])
    await kernel.stop()
    with pytest.raises(Refusal):
        await seals.stream.fold()

    newer = await start_kernel(store)
    again = Seals(newer)
    hosted = await again.stream.fold()
    assert [seal.position for seal in hosted.state] == [1, 2]
    await again.append(3)
    await until(lambda: again.news == [3])
    await newer.stop()


async def test_what_was_not_stored_is_told_and_the_stream_is_folded_again_by_itself() -> None:
    faults = PlannedFaults()
    faults.next = [AppendFault(), AppendFault(Fault.REFUSED)]
    kernel = await start_kernel(new_store(), faults=faults)
    seals = Seals(kernel)
    await seals.append(1)
    await until(lambda: seals.news == [1])
    await seals.append(2)
    await until(lambda: len(seals.news) == 2)
    assert isinstance(seals.news[1], DecidedAgain)
    assert seals.voided_count == 1
    await until(lambda: seals.stream.in_memory is not None)
    await seals.append(2)
    await until(lambda: seals.news[2:] == [2])
    await kernel.stop()


async def test_followers_hear_every_committed_event_in_order_with_its_hash() -> None:
    store = new_store()
    kernel = await start_kernel(store)
    seals = Seals(kernel)
    heard: list[tuple[int, NewEvent]] = []
    kernel.partition.facts.follow_commits(
        lambda positions, events: heard.extend(zip(positions, events, strict=True))
    )
    await asyncio.gather(start(kernel), seals.append(1), start(kernel), seals.append(2))
    await until(lambda: len(heard) == len(store.events) == 4)
    assert [position for position, _ in heard] == [event.position for event in store.events]
    heads = await MemoryLog(store).stream_heads([event.stream for event in store.events])
    last_of = {event.stream: event.chain_hash for _, event in heard}
    assert last_of == {stream: head.chain_hash for stream, head in heads.items()}
    await kernel.stop()


async def test_readers_of_runs_pass_over_a_stream_that_is_none() -> None:
    store = new_store()
    kernel = await start_kernel(store)
    seals = Seals(kernel)
    await seals.append(1)
    run = (await start(kernel)).answer
    await until(lambda: len(seals.news) == 1)
    views = await rebuilt(store)
    assert [row.run_id for row in views.runs] == [RunId(run.run_id)]
    assert not views.stops
    active = await find_active_runs(MemoryLog(store), NoRunIndex())
    assert [one.run_id for one in active] == [run.run_id]
    with pytest.raises(Refusal, match="no such run"):
        await get(kernel, SEALS)
    await kernel.stop()
