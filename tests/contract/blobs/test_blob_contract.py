"""What every blob store does, and what the calls on top of it promise."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from stretto_core.errors import DeadlineExceeded, NotFound, OutOfRange
from stretto_core.ids import Namespace
from stretto_kernel.app.blob_calls import BlobCalls, DigestMismatch, TooManyUploads
from stretto_kernel.app.blob_store import CHUNK_BYTES, BlobMissing, Untouched
from stretto_kernel.domain.run.blob_names import BlobName

from tests.contract.blobs.conftest import Case
from tests.waiting import until

OURS, THEIRS = Namespace("ours"), Namespace("theirs")
LARGE = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"the last, shorter chunk"


def name_of(data: bytes) -> BlobName:
    return BlobName(hashlib.sha256(data).digest(), len(data))


async def parts(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def read(calls: BlobCalls, data: bytes, offset: int = 0, length: int = 0) -> bytes:
    found = await calls.get(OURS, name_of(data).digest, offset_bytes=offset, length_bytes=length)
    assert found.size_bytes == len(data)
    return b"".join([chunk async for chunk in found.chunks])


@pytest.fixture
def calls(case: Case) -> BlobCalls:
    return BlobCalls(case.store, case.clock, silence_s_max=0.05, uploads_max=2)


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "chunks"])
async def test_what_was_put_is_got(calls: BlobCalls, data: bytes) -> None:
    third = len(data) // 3
    await calls.put(OURS, name_of(data), parts(data[:third], b"", data[third:]))
    assert await read(calls, data) == data


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (5, 10), (CHUNK_BYTES - 1, 2), (CHUNK_BYTES, CHUNK_BYTES), (len(LARGE), 0)],
)
async def test_a_range_is_got(calls: BlobCalls, offset: int, length: int) -> None:
    await calls.put(OURS, name_of(LARGE), parts(LARGE))
    expected = LARGE[offset : offset + length] if length else LARGE[offset:]
    assert await read(calls, LARGE, offset, length) == expected


async def test_a_range_beyond_the_end_ends_with_the_blob(calls: BlobCalls) -> None:
    await calls.put(OURS, name_of(b"short"), parts(b"short"))
    assert await read(calls, b"short", 3, 100) == b"rt"
    with pytest.raises(OutOfRange):
        await read(calls, b"short", 6)


async def test_a_blob_is_visible_in_its_namespace_only(calls: BlobCalls) -> None:
    name = name_of(b"secret")
    await calls.put(OURS, name, parts(b"secret"))
    with pytest.raises(NotFound):
        await calls.get(THEIRS, name.digest, offset_bytes=0, length_bytes=0)
    assert await calls.find_missing(THEIRS, [name]) == {name}
    with pytest.raises(BlobMissing):
        await calls.require(THEIRS, [name])
    # Put there as well, it needs its bytes: a digest alone proves nothing.
    with pytest.raises(DigestMismatch):
        await calls.put(THEIRS, name, parts())
    await calls.put(THEIRS, name, parts(b"secret"))
    assert await calls.find_missing(THEIRS, [name]) == frozenset()


async def test_a_name_with_another_size_is_missing(calls: BlobCalls) -> None:
    name = name_of(b"four")
    await calls.put(OURS, name, parts(b"four"))
    other = name._replace(size_bytes=5)
    assert await calls.find_missing(OURS, [name, other]) == {other}


@pytest.mark.parametrize("data", [LARGE[:-1], LARGE + b"x", b"Y" + LARGE[1:]])
async def test_other_bytes_than_named_leave_nothing(
    calls: BlobCalls, case: Case, data: bytes
) -> None:
    with pytest.raises(DigestMismatch):
        await calls.put(OURS, name_of(LARGE), parts(data))
    assert await calls.find_missing(OURS, [name_of(LARGE)])
    assert case.chunk_count() == 0
    assert calls.upload_count == 0


async def test_a_cut_upload_leaves_nothing(calls: BlobCalls, case: Case) -> None:
    sent = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield LARGE[:CHUNK_BYTES]
        sent.set()
        await asyncio.Event().wait()

    patient = BlobCalls(case.store, case.clock)
    upload = asyncio.create_task(patient.put(OURS, name_of(LARGE), endless()))
    await sent.wait()
    assert case.chunk_count() == 1
    assert await calls.find_missing(OURS, [name_of(LARGE)]), "half an upload is not visible"
    upload.cancel()
    await asyncio.wait([upload])
    await until(lambda: case.chunk_count() == 0)
    assert patient.upload_count == 0


async def test_a_silent_upload_is_cut(calls: BlobCalls, case: Case) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded):
        await calls.put(OURS, name_of(LARGE), silent())
    assert case.chunk_count() == 0


async def test_uploads_are_bounded(case: Case) -> None:
    calls = BlobCalls(case.store, case.clock, uploads_max=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield b"slow"

    first = asyncio.create_task(calls.put(OURS, name_of(b"slow"), slow()))
    await begun.wait()
    with pytest.raises(TooManyUploads):
        await calls.put(OURS, name_of(b"other"), parts(b"other"))
    go_on.set()
    await first
    await calls.put(OURS, name_of(b"other"), parts(b"other"))


async def test_a_known_blob_is_renewed_without_its_bytes(calls: BlobCalls, case: Case) -> None:
    name = name_of(b"known")
    await calls.put(OURS, name, parts(b"known"))
    before = case.clock.now_ns()
    case.clock.advance(1_000)

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("nobody asks for the bytes")
        yield b""

    await calls.put(OURS, name, never())
    assert not await case.store.untouched(before_ns=before + 1, count_max=10)


async def test_two_uploads_of_one_blob_make_one(calls: BlobCalls, case: Case) -> None:
    both_begun = asyncio.Barrier(2)

    async def together() -> AsyncIterator[bytes]:
        await both_begun.wait()
        yield LARGE

    await asyncio.gather(*(calls.put(OURS, name_of(LARGE), together()) for _ in range(2)))
    assert await read(calls, LARGE) == LARGE
    assert case.chunk_count() == 3


async def test_a_touch_is_never_set_back(case: Case) -> None:
    calls = BlobCalls(case.store, case.clock)
    name = name_of(b"x")
    await calls.put(OURS, name, parts(b"x"))
    now_ns = case.clock.now_ns()
    assert not await case.store.touch(OURS, [name], now_ns=now_ns - 500)
    assert not await case.store.untouched(before_ns=now_ns, count_max=10)


async def test_the_deletion_of_a_touched_blob_does_nothing(calls: BlobCalls, case: Case) -> None:
    name = name_of(b"wanted")
    await calls.put(OURS, name, parts(b"wanted"))
    (found,) = await case.store.untouched(before_ns=case.clock.now_ns() + 1, count_max=10)
    assert found == Untouched(OURS, name.digest, case.clock.now_ns())
    case.clock.advance(1)
    await calls.require(OURS, [name])
    assert not await case.store.delete(found)
    assert await read(calls, b"wanted") == b"wanted"


async def test_an_untouched_blob_is_deleted_with_its_chunks(calls: BlobCalls, case: Case) -> None:
    await calls.put(OURS, name_of(LARGE), parts(LARGE))
    (found,) = await case.store.untouched(before_ns=case.clock.now_ns() + 1, count_max=10)
    assert await case.store.delete(found)
    assert not await case.store.delete(found)
    assert case.chunk_count() == 0
    with pytest.raises(BlobMissing):
        await calls.require(OURS, [name_of(LARGE)])


async def test_what_dead_uploads_left_is_deleted(calls: BlobCalls, case: Case) -> None:
    await calls.put(OURS, name_of(b"kept"), parts(b"kept"))
    upload = await case.store.begin(OURS, now_ns=case.clock.now_ns())
    await upload.add(b"x" * CHUNK_BYTES)  # And then its kernel was killed.
    begun_ns = case.clock.now_ns()
    assert len(await case.store.untouched(before_ns=begun_ns + 1, count_max=10)) == 1
    assert await case.store.delete_uploads(before_ns=begun_ns) == 0
    assert await case.store.delete_uploads(before_ns=begun_ns + 1) == 1
    assert case.chunk_count() == 1
    assert await read(calls, b"kept") == b"kept"
