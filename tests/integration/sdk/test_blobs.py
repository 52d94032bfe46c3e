"""Blobs over connections that break: every byte once, in order, and none of another blob."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from stretto.blob.v1 import blob_service_pb2 as pb
from stretto.blob.v1.blob_service_pb2_grpc import (
    BlobServiceServicer,
    add_BlobServiceServicer_to_server,
)
from stretto_core.errors import InvalidArgument, Unavailable
from stretto_core.rpc.channel import open_channel
from stretto_core.rpc.retry import RetryPolicy
from stretto_core.rpc.server import RpcServer, ServerSettings
from stretto_sdk.blobs import BlobClient, ref_of

from tests.waiting import until

WHOLE = bytes(range(256)) * 10
BUDGET_MS = 200


class Blobs(BlobServiceServicer):
    """Holds one blob. breaks: so many calls break, reads after 1,000 bytes of what is left."""

    def __init__(self, content: bytes = WHOLE, breaks: int = 0) -> None:
        self.content = content
        self.breaks = breaks
        self.slow = False
        self.offsets: list[int] = []
        self.put: list[bytes] = []

    async def FindMissingBlobs(self, request: Any, context: Any) -> Any:
        return pb.FindMissingBlobsResponse(missing=request.blobs)

    async def PutBlob(self, request_iterator: Any, context: Any) -> Any:
        self.put.append(b"".join([each.data async for each in request_iterator]))
        if self.slow:
            loop = asyncio.get_running_loop()
            done_s = loop.time() + 2 * BUDGET_MS / 1_000
            await until(lambda: loop.time() > done_s)
        self._break()
        return pb.PutBlobResponse(blob=ref_of(self.put[-1]))

    async def GetBlob(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.offsets.append(request.offset_bytes)
        end = request.offset_bytes + request.length_bytes if request.length_bytes else None
        rest = self.content[request.offset_bytes : end]
        yield pb.GetBlobResponse(data=rest[:1_000])
        self._break()
        yield pb.GetBlobResponse(data=rest[1_000:])

    def _break(self) -> None:
        if self.breaks:
            self.breaks -= 1
            raise Unavailable("moved", retry_delay_ms=1)


@asynccontextmanager
async def serving(blobs: Blobs) -> AsyncIterator[BlobClient]:
    server = RpcServer(ServerSettings())
    server.add(add_BlobServiceServicer_to_server, blobs)
    port = await server.start()
    await server.set_serving()
    channel = open_channel(f"127.0.0.1:{port}")
    try:
        yield BlobClient(channel, policy=RetryPolicy(budget_ms=BUDGET_MS))
    finally:
        await channel.close()
        await server.drain(0)


def holding(content: bytes = WHOLE, breaks: int = 0) -> Blobs:
    return Blobs(content, breaks)


async def test_a_read_goes_on_where_it_broke() -> None:
    blobs = holding(breaks=2)
    async with serving(blobs) as client:
        assert await client.get("default", hashlib.sha256(WHOLE).digest()) == WHOLE
    assert blobs.offsets == [0, 1_000, 2_000]


async def test_a_range_that_broke_has_its_own_end() -> None:
    blobs = holding(breaks=1)
    async with serving(blobs) as client:
        digest = hashlib.sha256(WHOLE).digest()
        parts = client.stream("default", digest, offset_bytes=100, length_bytes=1_500)
        async with aclosing(parts):
            assert b"".join([part async for part in parts]) == WHOLE[100:1_600]
    assert blobs.offsets == [100, 1_100]


async def test_bytes_that_are_not_of_the_digest_are_refused() -> None:
    async with serving(holding(b"other bytes")) as client:
        with pytest.raises(InvalidArgument, match="not those of the digest"):
            await client.get("default", hashlib.sha256(WHOLE).digest())


async def test_an_upload_that_took_long_before_it_broke_is_made_again() -> None:
    blobs = holding(breaks=1)
    blobs.slow = True
    async with serving(blobs) as client:
        assert await client.put("default", WHOLE) == ref_of(WHOLE)
    assert blobs.put == [WHOLE, WHOLE]


async def test_an_upload_is_given_up_when_the_budget_is_spent() -> None:
    async with serving(holding(breaks=10_000)) as client:
        with pytest.raises(Unavailable):
            await client.put("default", WHOLE)
