"""A run's key that is destroyed while a command names blobs for that run: no copy is left.

On PostgreSQL, with the other side's transaction held open on a connection of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from stretto_core.clock.manual import ManualClock
from stretto_core.ids import Namespace, RunId
from stretto_kernel.adapters.blob_table import BlobTable
from stretto_kernel.adapters.named_statements import named_statements
from stretto_kernel.adapters.run_key_table import RunKeyTable
from stretto_kernel.app.blob_store import Holder
from stretto_kernel.domain.run.blob_names import BlobName

ACME = Namespace("acme")
NAME = BlobName(hashlib.sha256(b"ciphertext").digest(), 10)
BLOBS, KEYS = (named_statements(f"{name}.sql", {}) for name in ("blobs", "run_keys"))


@pytest.fixture
async def blobs(fresh_database: str) -> AsyncIterator[BlobTable]:
    table = BlobTable(fresh_database, ManualClock())
    yield table
    await table.close()


@pytest.fixture
async def keys(fresh_database: str) -> AsyncIterator[RunKeyTable]:
    table = RunKeyTable(fresh_database)
    yield table
    await table.close()


@pytest.fixture
async def key_id(blobs: BlobTable, keys: RunKeyTable) -> int:
    """Put an encrypted blob, and return the key of a run that is about to name it."""
    upload = await blobs.begin(ACME, now_ns=1)
    await upload.add(b"ciphertext")
    await upload.commit(NAME, now_ns=1, secret=b"s" * 32)
    return (await keys.make({RunId("p0-a"): b"k" * 32}))[RunId("p0-a")].key_id


def asked(key_id: int) -> dict[str, Any]:
    return {
        "namespace": ACME,
        "digests": [NAME.digest],
        "sizes_bytes": [NAME.size_bytes],
        "now_ns": 2,
        "key_id": key_id,
        "encrypts": True,
    }


async def somebody_waits(dsn: str) -> None:
    """Return once a statement waits for a lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        asyncio.timeout(20),
    ):
        while (await (await connection.execute(waiting)).fetchone()) == (0,):
            pass


async def copies(dsn: str, key_id: int) -> int:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        found = await connection.execute(
            "SELECT count(*) FROM stretto.blob_keys WHERE key_id = %s", [key_id]
        )
        row = await found.fetchone()
    assert row is not None
    return int(row[0])


async def test_who_names_a_blob_while_the_key_is_destroyed_copies_nothing(
    blobs: BlobTable, keys: RunKeyTable, key_id: int, fresh_database: str
) -> None:
    async with await psycopg.AsyncConnection.connect(fresh_database) as destroying:
        await destroying.execute(KEYS["overwrite"], {"key_id": key_id})
        touching = asyncio.create_task(
            blobs.touch(ACME, [NAME], now_ns=2, holder=Holder(key_id, encrypts=True))
        )
        await somebody_waits(fresh_database)
        await destroying.execute(KEYS["destroy"], {"key_id": key_id})
    await touching
    assert await copies(fresh_database, key_id) == 0


async def test_what_is_copied_after_the_blobs_keys_were_forgotten_goes_with_the_key(
    blobs: BlobTable, keys: RunKeyTable, key_id: int, fresh_database: str
) -> None:
    async with await psycopg.AsyncConnection.connect(fresh_database) as touching:
        await touching.execute(BLOBS["hold_key"], asked(key_id))
        await touching.execute(BLOBS["touch"], asked(key_id))
        await blobs.forget_keys(key_id)  # Does not see what is not committed.
        destroying = asyncio.create_task(keys.destroy(key_id))
        await somebody_waits(fresh_database)
    await destroying
    assert await copies(fresh_database, key_id) == 0


async def test_a_run_with_its_key_gets_a_copy(
    blobs: BlobTable, key_id: int, fresh_database: str
) -> None:
    holder = Holder(key_id, encrypts=True)
    assert await blobs.touch(ACME, [NAME], now_ns=2, holder=holder) == frozenset()
    assert await copies(fresh_database, key_id) == 1


async def test_of_two_runs_shredded_at_once_the_later_one_takes_the_key_as_it_was_put(
    blobs: BlobTable, keys: RunKeyTable, key_id: int, fresh_database: str
) -> None:
    other_id = (await keys.make({RunId("p0-b"): b"k" * 32}))[RunId("p0-b")].key_id
    for each in (key_id, other_id):
        await blobs.touch(ACME, [NAME], now_ns=2, holder=Holder(each, encrypts=True))
    async with await psycopg.AsyncConnection.connect(fresh_database) as forgetting:
        for name in ("hold_copied", "forget_keys"):
            await forgetting.execute(BLOBS[name], {"key_ids": [other_id]})
        later = asyncio.create_task(blobs.forget_keys(key_id))
        await somebody_waits(fresh_database)
    await later
    assert await copies(fresh_database, 0) == 0
    found = await blobs.find(ACME, NAME.digest)
    assert found is not None and found.encrypted and found.secret is None


async def test_a_key_that_is_swept_takes_its_copies_with_it(
    blobs: BlobTable, keys: RunKeyTable, key_id: int, fresh_database: str
) -> None:
    """A start that gave it copies, and then was not appended, has no run that could be shredded."""
    run_key_id = (await keys.make({RunId("p0-b"): b"k" * 32}))[RunId("p0-b")].key_id
    for each in (key_id, run_key_id):
        await blobs.touch(ACME, [NAME], now_ns=2, holder=Holder(each, encrypts=True))
    await blobs.forget_keys(run_key_id)
    assert await copies(fresh_database, 0) == 1, "as long as there may be a run"
    async with await psycopg.AsyncConnection.connect(fresh_database) as aging:
        await aging.execute("UPDATE stretto.run_keys SET made_time = now() - interval '25 hours'")
    assert await keys.sweep([key_id]) == 1
    found = await blobs.find(ACME, NAME.digest)
    assert found is not None and found.encrypted and found.secret is None
