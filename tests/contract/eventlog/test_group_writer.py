"""The group writer on both logs, and on a log that fails in every way it may."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from stretto_core.errors import Internal, Refusal, Unavailable
from stretto_core.eventlog.chain import ChainVerifier
from stretto_core.eventlog.faults import AppendFault, Fault, NoFaults
from stretto_core.eventlog.group_writer import GroupWriter
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.port import EventLog, PartitionMoved
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.eventlog.writer import WriterLimits
from stretto_core.ids import Partition
from stretto_core.testing.virtual_loop import VirtualLoop

from tests.contract.eventlog.conftest import OpenLog, OpenPostgresLog
from tests.contract.eventlog.events import CODEC, StreamWriter
from tests.contract.eventlog.ledger import Ledger
from tests.contract.eventlog.test_postgres_log import backend_pid, end_backend
from tests.waiting import until


async def texts_by_stream(log: EventLog) -> dict[str, list[str]]:
    """Return the texts of every stream, after checking every link of its chain."""
    verifier = ChainVerifier()
    texts: dict[str, list[str]] = {}
    for event in (await log.read_all()).events:
        assert verifier.check(event) is None
        body = CODEC.decode(event.stored_bytes).recorded.event
        texts.setdefault(event.stream, []).append(body.value)  # type: ignore[attr-defined]
    return texts


async def test_commands_decided_ahead_are_acknowledged_in_order(open_log: OpenLog) -> None:
    log = await open_log()
    ledger = Ledger(await log.acquire())
    expected = [f"command {number}" for number in range(1_000)]
    for number, text in enumerate(expected):
        streams = ("one", "two") if number % 10 == 0 else (f"stream {number % 7}",)
        ledger.command(text, *streams)
    await ledger.writer.barrier()
    assert ledger.acknowledged[:100] == expected[:100], "the barrier's commit is told before it"
    await ledger.writer.close()
    assert ledger.acknowledged == expected
    texts = await texts_by_stream(log)
    assert texts["one"] == texts["two"] == expected[::10]
    assert sum(len(one) for one in texts.values()) == 1_100
    assert ledger.drops == []


async def test_commands_of_one_turn_share_one_append(open_log: OpenLog) -> None:
    log = await open_log()
    appender = CountingLog(await log.acquire())
    ledger = Ledger(appender)  # type: ignore[arg-type]
    for number in range(50):
        ledger.command(f"command {number}", f"stream {number}")
    await ledger.writer.close()
    assert appender.groups == [50]


class CountingLog:
    """Notes the size of each group on its way to the log."""

    def __init__(self, owned_log: object) -> None:
        self._owned = owned_log
        self.groups: list[int] = []

    async def append(self, events: Sequence[NewEvent]) -> tuple[int, ...]:
        self.groups.append(len(events))
        return await self._owned.append(events)  # type: ignore[attr-defined,no-any-return]


async def test_a_barrier_alone_is_one_probe_for_all_who_wait(open_log: OpenLog) -> None:
    log = await open_log()
    ledger = Ledger(await log.acquire())
    async with asyncio.timeout(60):
        await asyncio.gather(*(ledger.writer.barrier() for _ in range(100)))
        waiting = asyncio.create_task(ledger.writer.barrier())
        cancelled = asyncio.create_task(ledger.writer.barrier())
        await asyncio.sleep(0)
        cancelled.cancel()  # One caller's deadline is not the others'.
        await waiting
    await ledger.writer.close()


async def test_a_fenced_writer_closes_and_fails_every_waiter(open_log: OpenLog) -> None:
    log = await open_log()
    first = await log.acquire()
    ledger = Ledger(first)
    await ledger.writer.barrier()
    await first.release()
    await (await (await open_log()).acquire()).append([StreamWriter("theirs").next()])
    ledger.command("too late", "ours")
    with pytest.raises(PartitionMoved):
        await ledger.writer.barrier()
    assert isinstance(ledger.closed_by, PartitionMoved)
    assert ledger.acknowledged == []
    with pytest.raises(PartitionMoved):
        ledger.command("refused", "ours")
    assert await texts_by_stream(log) == {"theirs": ["x"]}


async def test_a_closing_writer_finishes_what_it_took(open_log: OpenLog) -> None:
    log = await open_log()
    ledger = Ledger(await log.acquire())
    ledger.command("taken", "one")
    closing = asyncio.create_task(ledger.writer.close())
    await closing
    assert ledger.acknowledged == ["taken"]
    with pytest.raises(Unavailable):
        ledger.command("refused", "one")


class FirstAppendRefused(NoFaults):
    def __init__(self) -> None:
        self.planned = [AppendFault(Fault.REFUSED)]

    def plan_append(self, owner_epoch: int, events: Sequence[NewEvent]) -> AppendFault:
        return self.planned.pop() if self.planned else AppendFault()


async def test_a_closing_writer_takes_again_what_it_dropped() -> None:
    log = MemoryLog(MemoryStore(Partition("p0")), faults=FirstAppendRefused())
    ledger = Ledger(await log.acquire())
    ledger.command("taken", "one")
    await ledger.writer.close()
    assert [cause.reason_word for cause in ledger.drops] == ["STORE_DOWN"]
    assert ledger.acknowledged == ["taken"]


async def test_an_owner_that_submits_to_a_fenced_writer_is_still_told(open_log: OpenLog) -> None:
    log = await open_log()
    appender = await log.acquire()
    told: list[str] = []

    class Owner:
        def batches_committed(self, commits: object) -> None:
            raise AssertionError("nothing was to be committed")

        def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
            told.append(cause.reason_word)
            writer.submit([StreamWriter("one").next()])

        def writer_closed(self, cause: Refusal) -> None:
            told.append(cause.reason_word)

    writer = GroupWriter(appender, Owner())
    await appender.release()
    writer.submit([StreamWriter("one").next()])
    await writer.close()
    assert told == ["PARTITION_MOVED", "PARTITION_MOVED"]


async def test_an_intruding_event_makes_the_writer_decide_again(open_log: OpenLog) -> None:
    """The version was taken by somebody: everything uncommitted is dropped and decided again."""
    log = await open_log()
    appender = await log.acquire()
    (await appender.append([StreamWriter("one").next("intruder")]))
    dropped: list[tuple[Sequence[int], Refusal]] = []

    class Owner:
        def batches_committed(self, commits: object) -> None:
            raise AssertionError("nothing was to be committed")

        def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
            dropped.append((batches, cause))

        def writer_closed(self, cause: Refusal) -> None:
            pass

    writer = GroupWriter(appender, Owner())
    writer.submit([StreamWriter("one", seed=2).next()])
    writer.submit([StreamWriter("two").next()])
    await writer.close()
    assert [(list(batches), cause.reason_word) for batches, cause in dropped] == [
        ([1, 2], "VERSION_CONFLICT")
    ]


async def test_an_owner_that_breaks_down_stops_the_writer(open_log: OpenLog) -> None:
    log = await open_log()
    closed_by: list[Refusal] = []

    class Owner:
        def batches_committed(self, commits: object) -> None:
            raise ZeroDivisionError("a bug of the owner")

        def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
            raise AssertionError("nothing was to be dropped")

        def writer_closed(self, cause: Refusal) -> None:
            closed_by.append(cause)

    writer = GroupWriter(await log.acquire(), Owner())
    stream = StreamWriter("one")
    writer.submit([stream.next()])
    with pytest.raises(Internal):
        await writer.barrier()
    assert [cause.reason_word for cause in closed_by] == ["INTERNAL"]
    with pytest.raises(Internal):
        writer.submit([stream.next()])
    await writer.close()


class SeededFaults(NoFaults):
    """Any fault at any append, from a seed; gives up failing after a while so that work ends."""

    def __init__(self, seed: int, faulty_calls: int) -> None:
        self._random = random.Random(seed)
        self._left = faulty_calls
        self.kinds: set[Fault] = set()

    def plan_append(self, owner_epoch: int, events: Sequence[NewEvent]) -> AppendFault:
        return self._plan(list(Fault))

    def plan_settle(self) -> AppendFault:
        return self._plan([Fault.NONE, Fault.NONE, Fault.REFUSED])

    def _plan(self, kinds: list[Fault]) -> AppendFault:
        if self._left == 0:
            return AppendFault()
        self._left -= 1
        kind = self._random.choice(kinds)
        self.kinds.add(kind)
        wait_s = self._random.choice([0.0, 0.0, 0.001])
        return AppendFault(
            kind, before_s=wait_s, after_s=wait_s, late_s=self._random.choice([0.0, 0.0005, 0.005])
        )


@pytest.mark.parametrize("seed", range(100))
def test_no_fault_loses_repeats_or_reorders_anything(seed: int) -> None:
    """On virtual time, with the order of what is ready drawn from the seed too."""
    VirtualLoop(random.Random(seed)).run(_work_on_a_faulty_log(seed))


async def _work_on_a_faulty_log(seed: int) -> None:
    store = MemoryStore(Partition("p0"))
    faults = SeededFaults(seed, faulty_calls=30)
    log = MemoryLog(store, faults=faults)
    ledger = Ledger(await log.acquire(), limits=WriterLimits(group_events_max=8))
    choices = random.Random(seed)
    expected = [f"command {number}" for number in range(120)]
    for text in expected:
        ledger.command(text, *choices.sample(["a", "b", "c", "d"], k=choices.choice([1, 1, 2])))
        if choices.random() < 0.2:
            await ledger.writer.barrier()
            stored = {text for texts in (await texts_by_stream(log)).values() for text in texts}
            assert set(ledger.acknowledged) <= stored
    await until(lambda: len(ledger.acknowledged) >= len(expected))
    await ledger.writer.close()
    assert faults.kinds & {Fault.LATE, Fault.LOST_AFTER, Fault.LOST_BEFORE}
    assert ledger.acknowledged == expected
    for texts in (await texts_by_stream(log)).values():
        assert texts == sorted(texts, key=expected.index)
        assert len(set(texts)) == len(texts)


async def test_of_two_who_believe_they_own_the_log_one_writes() -> None:
    store = MemoryStore(Partition("p0"))
    first = Ledger(await MemoryLog(store).acquire())
    first.command("before", "one")
    await first.writer.barrier()
    second_log = MemoryLog(store, exclusive=False)
    second = Ledger(await second_log.acquire())
    first.command("from the old owner", "one")
    second.command("from the new owner", "two")
    await asyncio.gather(first.writer.barrier(), second.writer.barrier(), return_exceptions=True)
    assert isinstance(first.closed_by, PartitionMoved)
    assert await texts_by_stream(second_log) == {"one": ["before"], "two": ["from the new owner"]}
    await second.writer.close()


async def test_cut_connections_lose_repeat_and_reorder_nothing(
    open_postgres_log: OpenPostgresLog, log_database: str
) -> None:
    """PostgreSQL ends the writer's server process again and again under load."""
    log = await open_postgres_log()
    writer = await log.acquire()
    ledger = Ledger(writer, limits=WriterLimits(group_events_max=20))
    expected = [f"command {number}" for number in range(600)]
    epoch = writer.owner_epoch
    for number, text in enumerate(expected):
        ledger.command(text, f"stream {number % 5}")
        if number % 100 == 50:
            await asyncio.to_thread(end_backend, log_database, backend_pid(writer))
    await until(lambda: len(ledger.acknowledged) >= len(expected))
    await ledger.writer.close()
    assert ledger.acknowledged == expected
    texts = await texts_by_stream(log)
    assert writer.owner_epoch > epoch, "no append was lost: the test shows nothing"
    assert texts == {f"stream {rest}": expected[rest::5] for rest in range(5)}
    await writer.release()
