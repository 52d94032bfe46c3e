"""The mirror of blackboards in a real NATS, fed from the log: repeated, wiped, rebuilt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import nats
import pytest
from stretto.blackboard.v1.blackboard_pb2 import Entry
from stretto_core.bus.buckets import BucketValue
from stretto_core.bus.jetstream import JetStreamBus
from stretto_core.bus.jetstream_buckets import JetStreamBuckets
from stretto_core.ids import Namespace
from stretto_kernel.adapters.fresh_fold_table import FreshFoldTable
from stretto_kernel.adapters.newest_boards import NewestBoards
from stretto_kernel.adapters.relay_board import RelayBoardTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.relay.board_mirror import FILLED, BoardMirror, bucket_of
from stretto_kernel.relay.relay import Relay
from stretto_sdk import Client

from tests.integration.kernel.serving import PARTITION, Served, served
from tests.integration.kernel.test_blackboard import Board, a_board, write
from tests.waiting import until

BUCKET = bucket_of(Namespace("default"))


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database) as kernel:
        yield kernel


class Mirrored:
    """A projector and a relay with a mirror, as one process has them."""

    def __init__(self, kernel: Served, dsn: str, url: str) -> None:
        self._log = kernel.log
        self._url = url
        tracking = kernel.log.tracking
        self.bus = JetStreamBus(url)
        view = NewestBoards(PARTITION, tracking)
        self.buckets = JetStreamBuckets(self.bus)
        self.mirror = BoardMirror(kernel.log, view, self.buckets)
        tables = ViewTables(PARTITION, tracking)
        self.relay = Relay(kernel.log, self.bus, RelayBoardTable(tables), self.mirror)
        self.projector = Projector(
            kernel.log,
            tables,
            VIEWS,
            RUN_CODEC,
            fresh=FreshFoldTable(dsn, PARTITION, tracking),
            rebuilt=self.mirror.views_rebuilt,
        )

    async def entries(self) -> dict[str, Entry]:
        """Every entry that the bucket holds, as a client in any language reads it."""
        client = await nats.connect(self._url)
        try:
            stream = client.jetstream()
            bucket = await stream.key_value(BUCKET)
            # `bucket.keys()` makes a consumer each time, and a stream has a thousand at most.
            named = await stream.stream_info(f"KV_{BUCKET}", subjects_filter=">")
            found = {}
            for subject in named.state.subjects or {}:
                key = subject.removeprefix(f"$KV.{BUCKET}.")
                held = await bucket.get(key)
                if key.endswith("=filled"):
                    continue
                entry = Entry.FromString(held.value or b"")
                found[entry.key] = entry
            return found
        except Exception:  # No bucket, or none yet: there is nothing in it.
            return {}
        finally:
            await client.close()

    async def until_mirrored(self, board: Board) -> None:
        """Return once the mirror holds exactly what the kernel says."""
        expected = {entry.key: entry for entry in await board.list_all()}
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + 20
        while True:
            found = {key: each for key, each in (await self.entries()).items() if not each.deleted}
            if found == expected:
                return
            assert loop.time() < give_up_s, f"{found} is not {expected}"

    async def wipe(self) -> None:
        client = await nats.connect(self._url)
        await client.jetstream().delete_key_value(BUCKET)
        await client.close()

    async def make_again(self) -> None:
        """Replace the bucket by an empty one, as the mirror of another partition may."""
        await self.wipe()
        await JetStreamBuckets(self.bus).make(BUCKET)


@asynccontextmanager
async def mirrored(kernel: Served, dsn: str, url: str) -> AsyncIterator[Mirrored]:
    made = Mirrored(kernel, dsn, url)
    followers = (made.projector.run(), made.relay.run(), made.mirror.keep())
    running = [asyncio.create_task(each) for each in followers]
    try:
        yield made
    finally:
        for each in running:
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*running, return_exceptions=True)
        await made.bus.close()


async def test_the_mirror_follows_writes_and_deletions(
    kernel: Served, fresh_database: str, fresh_nats: str
) -> None:
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        board = await a_board(kernel)
        await board.put(write("a:progress/x.y", "1"), a="1", b="2")
        await made.until_mirrored(board)
        await board.put(a="3")
        revision = await board.delete("context/b")
        await made.until_mirrored(board)
        gone = (await made.entries())["context/b"]
        assert gone.deleted and gone.revision == revision
        await board.put(b="4")
        await made.until_mirrored(board)


async def test_events_that_come_again_put_nothing_older(
    kernel: Served, fresh_database: str, fresh_nats: str
) -> None:
    board = await a_board(kernel)
    for number in range(5):
        await board.put(a=str(number))
    await board.delete("context/a")
    await board.put(a="5")
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        await made.until_mirrored(board)
        events = (await kernel.log.read_all()).events
        for event in events:
            await made.mirror.take([event])
        for event in reversed(events):
            await made.mirror.take([event])
        await made.until_mirrored(board)


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_wiped_bucket_is_made_again_and_whole(
    kernel: Served, fresh_database: str, fresh_nats: str, goes_on: bool
) -> None:
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        board = await a_board(kernel)
        other = await a_board(kernel)
        await board.put(a="1", b="2")
        await board.delete("context/b")
        await made.until_mirrored(board)
        before = await made.entries()
        await made.wipe()
        if goes_on:
            await board.put(c="3")
        await made.until_mirrored(board)
        again = await made.entries()
        assert {key: again[key] for key in before} == before, "revisions and writers included"
        assert await other.list_all() == []


async def test_a_rebuild_of_the_view_makes_the_mirror_anew(
    kernel: Served, fresh_database: str, fresh_nats: str
) -> None:
    async with (
        mirrored(kernel, fresh_database, fresh_nats) as made,
        Client(kernel.address) as client,
    ):
        board = await a_board(kernel)
        await board.put(a="1", b="2")
        await board.delete("context/b")
        await made.until_mirrored(board)
        before = await made.entries()
        stray = Entry(key="context/stray", revision=1).SerializeToString()
        bus = await nats.connect(fresh_nats)
        bucket = await bus.jetstream().key_value(BUCKET)
        await bucket.put(f"{PARTITION}.stray", stray)
        assert "context/stray" in await made.entries()
        async for _ in client.rebuild_views("blackboard"):
            pass
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + 20
        while await made.entries() != before:
            assert loop.time() < give_up_s, f"{await made.entries()} is not {before}"
        await bus.close()


async def test_a_death_between_a_rebuild_and_the_mirrors_turn_leaves_nothing_of_the_old(
    kernel: Served, fresh_database: str, fresh_nats: str
) -> None:
    board = await a_board(kernel)
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        await board.put(a="1", b="2")
        await made.until_mirrored(board)
        before = await made.entries()
    bus = await nats.connect(fresh_nats)
    stray = Entry(key="context/stray", revision=1).SerializeToString()
    await (await bus.jetstream().key_value(BUCKET)).put(f"{PARTITION}.stray", stray)
    await bus.close()
    dead = Mirrored(kernel, fresh_database, fresh_nats)  # Of it only the projector ever ran.
    projecting = asyncio.create_task(dead.projector.run())
    async with Client(kernel.address) as client:
        async for _ in client.rebuild_views("blackboard"):
            pass
    projecting.cancel()
    await asyncio.wait([projecting])
    assert "context/stray" in await dead.entries()
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + 20
        while await made.entries() != before:
            assert loop.time() < give_up_s, f"{await made.entries()} is not {before}"
    await dead.bus.close()


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_bucket_that_another_made_again_is_filled(
    kernel: Served, fresh_database: str, fresh_nats: str, goes_on: bool
) -> None:
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        board = await a_board(kernel)
        await board.put(a="1", b="2")
        await made.until_mirrored(board)
        await made.make_again()
        if goes_on:
            await board.put(a="3")
        await made.until_mirrored(board)


async def test_a_bucket_that_was_not_filled_to_the_end_is_filled(
    kernel: Served, fresh_database: str, fresh_nats: str
) -> None:
    board = await a_board(kernel)
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        await board.put(a="1")
        await made.until_mirrored(board)
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        await until(lambda: made.relay.position > 0)
        await made.make_again()
        await made.until_mirrored(board)


async def test_a_bucket_that_is_made_again_while_it_is_filled_is_not_called_whole(
    kernel: Served, fresh_database: str, fresh_nats: str
) -> None:
    board = await a_board(kernel)
    async with mirrored(kernel, fresh_database, fresh_nats) as made:
        await board.put(a="1")
        await made.until_mirrored(board)
        await made.wipe()
        put_newer, made_again = made.buckets.put_newer, asyncio.Event()

        async def put_and_lose(bucket: str, values: Sequence[BucketValue]) -> None:
            await put_newer(bucket, values)
            if not made_again.is_set() and any(not each.key.endswith(FILLED) for each in values):
                made_again.set()
                await made.make_again()

        made.buckets.put_newer = put_and_lose  # type: ignore[method-assign]
        async with asyncio.timeout(60):
            await made_again.wait()
        await made.until_mirrored(board)
