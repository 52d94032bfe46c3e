"""What every store of data keys holds to: memory and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from stretto_core.ids import RunId
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.adapters.run_key_table import RunKeyTable
from stretto_kernel.app.run_key_store import RunKeyStore
from stretto_kernel.app.run_keys import RunKeys

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
