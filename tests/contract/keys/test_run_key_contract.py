"""What every store of data keys holds to: memory and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping

import psycopg
import pytest
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.ids import Partition, RunId
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.adapters.run_key_table import RunKeyTable
from stretto_kernel.app.run_key_store import RunKeyStore
from stretto_kernel.app.run_key_sweep import SWEEPS_A_PASS, RunKeySweep
from stretto_kernel.app.run_keys import RunKeys

from tests.unit.kernel.harness import start, start_kernel
from tests.waiting import until

A, B = RunId("p0-a"), RunId("p0-b")
ONE, TWO = b"1" * 32, b"2" * 32


@pytest.fixture
async def table(fresh_database: str) -> AsyncIterator[RunKeyTable]:
    table = RunKeyTable(fresh_database)
    yield table
    await table.close()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> RunKeyStore:
    if request.param == "memory":
        return MemoryRunKeys()
    found: RunKeyStore = request.getfixturevalue("table")
    return found


async def test_nothing_is_there_before_the_first(store: RunKeyStore) -> None:
    assert await store.find([1, 2]) == {}
    assert list(await store.marked()) == []
    await store.mark(1)
    await store.unmark(1)
    await store.destroy(1)


async def test_a_run_has_one_key_however_often_it_is_asked_for(store: RunKeyStore) -> None:
    first = (await store.make({A: ONE}))[A]
    again = await store.make({A: TWO, B: TWO})
    assert again[A] == first and first.secret == ONE
    assert again[B].key_id not in (0, first.key_id)
    assert await store.find([first.key_id, 99]) == {first.key_id: ONE}


async def test_a_destroyed_key_is_gone_with_its_mark_and_its_id_never_comes_again(
    store: RunKeyStore,
) -> None:
    made = await store.make({A: ONE, B: TWO})
    await store.mark(made[A].key_id)
    assert list(await store.marked()) == [(made[A].key_id, A)]
    await store.destroy(made[A].key_id)
    assert list(await store.marked()) == []
    assert await store.find([made[A].key_id, made[B].key_id]) == {made[B].key_id: TWO}
    await store.destroy(made[A].key_id)
    fresh = (await store.make({A: TWO}))[A]
    assert fresh.key_id not in (made[A].key_id, made[B].key_id)


async def test_a_mark_is_taken_off(store: RunKeyStore) -> None:
    made = (await store.make({A: ONE}))[A]
    await store.mark(made.key_id)
    await store.mark(made.key_id)
    await store.unmark(made.key_id)
    assert list(await store.marked()) == []
    assert await store.find([made.key_id]) == {made.key_id: ONE}


async def test_many_who_ask_at_once_are_served_together(store: RunKeyStore) -> None:
    keys = RunKeys(store)
    names = [RunId(f"p0-{number}") for number in range(600)]
    made = await asyncio.gather(*map(keys.make, names))
    assert len({key.key_id for key in made}) == 600
    assert await keys.make(names[3]) is made[3]


async def test_old_keys_are_swept_unless_a_start_asks_for_them_or_they_are_marked(
    store: RunKeyStore, fresh_database: str
) -> None:
    assert isinstance(store, MemoryRunKeys | RunKeyTable)
    assert list(await store.old(after_key_id=0, count_max=9)) == []
    runs = [RunId(f"p0-{number}") for number in range(5)]
    made = {run: (await store.make({run: ONE}))[run].key_id for run in runs}
    first, *others = made.values()
    assert list(await store.old(after_key_id=0, count_max=9)) == [], "a day is not over"
    await age(store, fresh_database, made.values())
    old = list(await store.old(after_key_id=0, count_max=9))
    assert old == [(key_id, run) for run, key_id in made.items()]
    assert list(await store.old(after_key_id=first, count_max=2)) == old[1:3]
    await store.make({runs[1]: TWO})
    await store.mark(others[1])
    assert await store.sweep([first, *others[:2]]) == 1
    assert set(await store.find(list(made.values()))) == set(others)


async def age(store: RunKeyStore, dsn: str, key_ids: Iterable[int]) -> None:
    """Let more than a day pass."""
    if isinstance(store, MemoryRunKeys):
        store.old_key_ids.update(key_ids)
        return
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(
            "UPDATE stretto.run_keys SET made_time = made_time - interval '25 hours'"
        )


async def test_only_keys_of_runs_that_were_never_started_are_swept(fresh_database: str) -> None:
    memory = MemoryStore(Partition("p0"))
    kernel = await start_kernel(memory)
    started = RunId((await start(kernel)).answer.run_id)
    keys, never, foreign = MemoryRunKeys(), RunId(f"p0-{7:032x}"), RunId(f"p1-{7:032x}")
    made = await keys.make({started: ONE, never: ONE, foreign: ONE})
    sweep = RunKeySweep(keys, MemoryLog(memory))
    assert await sweep.sweep() == 0
    keys.old_key_ids.update(key.key_id for key in made.values())
    assert await sweep.sweep() == 1
    left = await keys.find([key.key_id for key in made.values()])
    assert set(left) == {made[started].key_id, made[foreign].key_id}
    await kernel.stop()


async def test_a_key_that_was_asked_for_again_has_its_turn_within_a_day() -> None:
    keys = MemoryRunKeys()
    again, never = RunId(f"p0-{6:032x}"), RunId(f"p0-{7:032x}")
    made = await keys.make({again: ONE, never: ONE})
    sweep = RunKeySweep(keys, MemoryLog(MemoryStore(Partition("p0"))))
    keys.old_key_ids.add(made[never].key_id)
    assert await sweep.sweep() == 1
    keys.old_key_ids.add(made[again].key_id)  # It was too young when its turn came.
    assert [await sweep.sweep() for _ in range(SWEEPS_A_PASS)].count(1) == 1
    assert not await keys.find([made[again].key_id])


async def test_what_was_destroyed_is_not_remembered_for_ever() -> None:
    store = SlowKeys()
    keys = RunKeys(store)
    one, two = [await keys.make(run) for run in (A, B)]
    for number in range(50):
        await keys.destroy((await keys.make(RunId(f"p0-{number}"))).key_id)
    assert not keys._destroyed
    fresh = RunKeys(store)
    store.reading.clear()
    finding = asyncio.create_task(fresh.find(one.key_id))
    await until(lambda: store.read_count == 1)
    await fresh.destroy(one.key_id)  # While it is read.
    other = asyncio.create_task(fresh.find(two.key_id))
    await until(lambda: store.read_count == 2)
    store.reading.set()
    assert await finding is None
    assert (await other) is not None
    assert not fresh._destroyed


class SlowKeys(MemoryRunKeys):
    """Answers reads when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = asyncio.Event()
        self.reading.set()
        self.read_count = 0

    async def find(self, key_ids: Collection[int]) -> Mapping[int, bytes]:
        found = await super().find(key_ids)
        self.read_count += 1
        await self.reading.wait()
        return found


async def test_a_destroyed_key_is_found_by_nobody(store: RunKeyStore) -> None:
    keys, other = RunKeys(store), RunKeys(store)
    key = await keys.make(A)
    assert await keys.find(key.key_id) is key
    await keys.destroy(key.key_id)
    assert await keys.find(key.key_id) is None
    assert await other.find(key.key_id) is None


async def test_more_keys_than_are_kept_are_found_all_the_same(store: RunKeyStore) -> None:
    keys = RunKeys(store, keys_max=2)
    made = [await keys.make(RunId(f"p0-{number}")) for number in range(5)]
    ciphertext = made[0].encrypt(b"yes", b"c")
    found = await keys.find(made[0].key_id)
    assert found is not None and found.decrypt(ciphertext, b"c") == b"yes"
