"""The blob stores under the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import psycopg
import pytest
from stretto_core.clock.manual import ManualClock
from stretto_kernel.adapters.blob_table import BlobTable
from stretto_kernel.adapters.memory_blobs import MemoryBlobs
from stretto_kernel.app.blob_store import BlobStore, SweptBlobs


class BlobsUnderTest(BlobStore, SweptBlobs, Protocol):
    """What both adapters are."""


class Case:
    """A store, its clock, and how many chunks it keeps in all."""

    def __init__(self, store: BlobsUnderTest, clock: ManualClock, dsn: str = "") -> None:
        self.store = store
        self.clock = clock
        self._dsn = dsn

    def chunk_count(self) -> int:
        if isinstance(self.store, MemoryBlobs):
            return self.store.chunk_count
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute("SELECT count(*) FROM stretto.blob_chunks").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
async def postgres_case(fresh_database: str) -> AsyncIterator[Case]:
    clock = ManualClock()
    table = BlobTable(fresh_database, clock)
    yield Case(table, clock, fresh_database)
    await table.close()


@pytest.fixture(params=["memory", "postgres"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "memory":
        return Case(MemoryBlobs(), ManualClock())
    found: Case = request.getfixturevalue("postgres_case")
    return found
