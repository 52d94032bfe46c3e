"""Blobs over the wire: put what is too large for a fact, get it back, read what is made of blobs.

A source is bytes or a file; a file is read twice (digest, then bytes) and never whole in memory.
Sizes are bytes. Everything here may be repeated: a blob is its content.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import grpc
from stretto.blob.v1 import blob_service_pb2 as pb
from stretto.blob.v1.blob_service_pb2_grpc import BlobServiceStub
from stretto.common.v1.payload_pb2 import BlobRef
from stretto_core.errors import InvalidArgument, Refusal
from stretto_core.rpc.channel import credentials
from stretto_core.rpc.retry import Caller, RetryPolicy, refusals
from stretto_core.telemetry.secret import Secret

from stretto_sdk.breaks import Breaks
from stretto_sdk.value_sizes import BLOB_BYTES_MAX

if TYPE_CHECKING:
    # It exists in the generated stubs only.
    from stretto.blob.v1.blob_service_pb2_grpc import BlobServiceAsyncStub

PART_BYTES = 512 * 1024
ASKED_MAX = 1_000
PUT_S_MAX = 3_600.0
"""A large blob over a slow line; the kernel cuts an upload that is silent much sooner."""

Source = bytes | Path


class BlobClient:
    """Puts and gets blobs of one namespace over a channel that somebody else closes.

    namespace: without the collection, "default". policy: for how long a call is made again while
    the kernel cannot be reached.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        token: Secret | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._stub: BlobServiceAsyncStub = BlobServiceStub(channel)
        self._metadata = credentials(token)
        self._policy = policy or RetryPolicy()
        self._caller = Caller(token=token, policy=self._policy)

    async def put(self, namespace: str, source: Source) -> BlobRef:
        """Store the bytes unless they are there, and return what names them.

        In a namespace that encrypts that is another digest than theirs, and a new one each time.

        Raises InvalidArgument (too large, or the file changed while it was read), OSError, and the
        refusal that ended the last try.
        """
        blob = await asyncio.to_thread(ref_of, source)
        if not await self.missing(namespace, [blob]):
            return blob
        breaks = Breaks(self._policy)
        while True:
            try:
                with refusals():
                    answer = await self._stub.PutBlob(
                        _requests(f"namespaces/{namespace}", blob, source),
                        metadata=self._metadata,
                        timeout=PUT_S_MAX,
                    )
                return answer.blob
            except Refusal as refused:
                await breaks.wait(refused)

    async def missing(self, namespace: str, blobs: Sequence[BlobRef]) -> list[BlobRef]:
        """Return which of the blobs have to be put; the others stay for 24 hours at least."""
        found: list[BlobRef] = []
        for first in range(0, len(blobs), ASKED_MAX):
            request = pb.FindMissingBlobsRequest(
                parent=f"namespaces/{namespace}", blobs=blobs[first : first + ASKED_MAX]
            )
            answer = await self._caller.call(self._stub.FindMissingBlobs, request)
            found.extend(answer.missing)
        return found

    async def stream(
        self, namespace: str, digest: bytes, *, offset_bytes: int = 0, length_bytes: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from an offset (length 0: to the end); goes on after a broken connection.

        The caller sees exactly the bytes asked for; a whole blob is checked against its digest,
        or by the kernel, which decrypts it.
        Raises NotFound, OutOfRange.
        """
        breaks = Breaks(self._policy)
        digester = None if offset_bytes or length_bytes else hashlib.sha256()
        got = 0
        while True:
            request = pb.GetBlobRequest(
                parent=f"namespaces/{namespace}",
                digest=digest,
                offset_bytes=offset_bytes + got,
                length_bytes=length_bytes - got if length_bytes else 0,
            )
            call = self._stub.GetBlob(request, metadata=self._metadata)
            try:
                with refusals():
                    async for answer in call:
                        breaks.are_over()
                        got += len(answer.data)
                        if answer.decrypted:
                            digester = None  # The digest is that of the ciphertext.
                        if digester is not None:
                            digester.update(answer.data)
                        if answer.data:
                            yield answer.data
                break
            except Refusal as refused:
                await breaks.wait(refused)
                if length_bytes and got >= length_bytes:
                    break
            finally:
                call.cancel()
        if digester is not None and digester.digest() != digest:
            raise InvalidArgument("the bytes received are not those of the digest")

    async def get(self, namespace: str, digest: bytes) -> bytes:
        """Return a whole blob. Raises NotFound."""
        parts = bytearray()
        async with aclosing(self.stream(namespace, digest)) as received:
            async for part in received:
                parts += part
        return bytes(parts)


def ref_of(source: Source) -> BlobRef:
    """Return what names the bytes of a source. Blocking. Raises InvalidArgument, OSError."""
    if isinstance(source, bytes):
        digest, size_bytes = hashlib.sha256(source).digest(), len(source)
    else:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            size_bytes = file.tell()
    if size_bytes > BLOB_BYTES_MAX:
        raise InvalidArgument(
            f"{_called(source)} has {size_bytes} bytes; a blob has at most {BLOB_BYTES_MAX}",
            reason="PAYLOAD_TOO_LARGE",
            bytes_max=str(BLOB_BYTES_MAX),
        )
    return BlobRef(digest=digest, size_bytes=size_bytes)


async def _requests(parent: str, blob: BlobRef, source: Source) -> AsyncIterator[pb.PutBlobRequest]:
    yield pb.PutBlobRequest(parent=parent, blob=blob)
    if isinstance(source, bytes):
        for first in range(0, len(source), PART_BYTES):
            yield pb.PutBlobRequest(data=source[first : first + PART_BYTES])
        return
    file: BinaryIO = await asyncio.to_thread(source.open, "rb")
    with file:
        while data := await asyncio.to_thread(file.read, PART_BYTES):
            yield pb.PutBlobRequest(data=data)


def _called(source: Source) -> Any:
    return "the value" if isinstance(source, bytes) else source
