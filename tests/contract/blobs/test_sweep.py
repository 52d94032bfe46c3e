"""The sweep takes what nobody needs, and loses every race against those who do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import psycopg
import pytest
from stretto_core.ids import Namespace, Partition
from stretto_kernel.adapters.blob_table import BlobTable
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.blob_store import BlobMissing, Untouched
from stretto_kernel.app.blob_sweep import (
    KEPT_NS,
    PAGE_BLOBS,
    UPLOAD_SILENT_NS,
    LogEnds,
    References,
    sweep,
)
from stretto_kernel.domain.run.blob_names import BlobName

from tests.contract.blobs.conftest import Case
from tests.contract.blobs.test_blob_contract import OURS, name_of, parts
from tests.waiting import until

P0 = Partition("p0")


class Views:
    """The reference views as a test wants them; `meanwhile` happens when they are asked."""

    def __init__(self, *named: BlobName, complete: bool = True) -> None:
        self.named = frozenset((OURS, name.digest) for name in named)
        self.complete = complete
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.read = self.recorded = 1
        self.is_busy = False

    async def ends(self) -> LogEnds:
        return {P0: self.recorded}

    async def of(self, blobs: Collection[Untouched], ends: LogEnds) -> References:
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.is_busy:  # They read on, and never all there is.
            self.read, self.recorded = self.recorded, self.recorded + 1
        return References(self.complete and self.read >= ends[P0], self.named)


@pytest.fixture
def calls(case: Case) -> BlobCalls:
    return BlobCalls(case.store, case.clock)


async def put(calls: BlobCalls, data: bytes) -> BlobName:
    await calls.put(OURS, name_of(data), parts(data))
    return name_of(data)


async def is_there(case: Case, name: BlobName) -> bool:
    return await case.store.find(OURS, name.digest) is not None


async def test_only_the_old_and_unnamed_go(case: Case, calls: BlobCalls) -> None:
    named, unnamed = await put(calls, b"named"), await put(calls, b"unnamed")
    case.clock.advance(1)
    fresh = await put(calls, b"fresh")
    case.clock.advance(KEPT_NS)
    assert await sweep(case.store, Views(named), now_ns=case.clock.now_ns()) == 1
    found = [await is_there(case, name) for name in (named, unnamed, fresh)]
    assert found == [True, False, True]


async def test_while_a_view_is_behind_nothing_goes(case: Case, calls: BlobCalls) -> None:
    name = await put(calls, b"perhaps named")
    case.clock.advance(KEPT_NS + 1)
    behind = Views(complete=False)
    assert await sweep(case.store, behind, now_ns=case.clock.now_ns(), patience_s=0.0) == 0
    assert await is_there(case, name)


async def test_views_that_are_never_done_keep_nothing_for_ever(
    case: Case, calls: BlobCalls
) -> None:
    unnamed = await put(calls, b"unnamed")
    case.clock.advance(KEPT_NS + 1)
    busy = Views()
    busy.read, busy.recorded, busy.is_busy = 1, 5, True
    assert await sweep(case.store, busy, now_ns=case.clock.now_ns()) == 1
    assert not await is_there(case, unnamed)


@pytest.mark.parametrize("how", ["put", "command", "find_missing"])
async def test_a_touch_after_the_sweep_looked_saves_the_blob(
    case: Case, calls: BlobCalls, how: str
) -> None:
    name = await put(calls, b"wanted again")
    case.clock.advance(KEPT_NS + 1)
    views = Views()
    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "put": lambda: put(calls, b"wanted again"),
        "command": lambda: calls.require(OURS, [name]),
        "find_missing": lambda: calls.find_missing(OURS, [name]),
    }
    views.meanwhile = ways[how]
    assert await sweep(case.store, views, now_ns=case.clock.now_ns()) == 0
    assert await is_there(case, name)


async def test_many_kept_blobs_keep_no_other_from_going(case: Case, calls: BlobCalls) -> None:
    kept = [await put(calls, b"%d" % number) for number in range(PAGE_BLOBS)]
    case.clock.advance(1)
    unnamed = await put(calls, b"unnamed")
    case.clock.advance(KEPT_NS + 1)
    assert await sweep(case.store, Views(*kept), now_ns=case.clock.now_ns()) == 1
    assert not await is_there(case, unnamed)


async def test_what_a_killed_kernel_left_of_an_upload_goes(case: Case) -> None:
    upload = await case.store.begin(OURS, now_ns=case.clock.now_ns())
    await upload.add(b"half")
    case.clock.advance(UPLOAD_SILENT_NS)
    await sweep(case.store, Views(), now_ns=case.clock.now_ns())
    assert case.chunk_count() == 1, "it may go on"
    case.clock.advance(1)
    await sweep(case.store, Views(), now_ns=case.clock.now_ns())
    assert case.chunk_count() == 0


def _waiting_for_a_lock(dsn: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    return row is not None and row[0] > 0


async def test_a_deletion_that_meets_an_uncommitted_touch_waits_and_gives_way(
    postgres_case: Case, fresh_database: str
) -> None:
    case, store = postgres_case, postgres_case.store
    name = await put(BlobCalls(store, case.clock), b"held by a command")
    (found,) = await store.untouched(before_ns=case.clock.now_ns() + 1, count_max=1)
    with psycopg.connect(fresh_database) as command:
        command.execute("UPDATE stretto.blobs SET touched_ns = touched_ns + 1")
        deletion = asyncio.create_task(_delete(store, found))
        await until(lambda: _waiting_for_a_lock(fresh_database))
        assert not deletion.done()
        command.commit()
    assert await deletion is False
    assert await is_there(case, name)


async def test_a_command_that_meets_an_uncommitted_deletion_waits_and_is_refused(
    postgres_case: Case, fresh_database: str
) -> None:
    case, store = postgres_case, postgres_case.store
    calls = BlobCalls(store, case.clock)
    name = await put(calls, b"going")
    with psycopg.connect(fresh_database) as sweeper:
        sweeper.execute("DELETE FROM stretto.blobs")
        command = asyncio.create_task(_require(calls, name))
        await until(lambda: _waiting_for_a_lock(fresh_database))
        assert not command.done()
        sweeper.commit()
    with pytest.raises(BlobMissing):
        await command
    await put(calls, b"going")  # And a put stores it anew.
    assert await is_there(case, name)


async def _delete(store: object, found: Untouched) -> bool:
    assert isinstance(store, BlobTable)
    return await store.delete(found)


async def _require(calls: BlobCalls, name: BlobName) -> None:
    await calls.require(Namespace(OURS), [name])
