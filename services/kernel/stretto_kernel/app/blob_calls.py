"""What can be asked of blobs: put, get, find the missing; and the gate of commands that name them.

A blob is never whole in memory: its bytes come and go in chunks, each stored or read by itself.
Knows no gRPC and no table.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection
from typing import NamedTuple

from stretto_core.clock import Clock
from stretto_core.errors import (
    DeadlineExceeded,
    Exhausted,
    InvalidArgument,
    NotFound,
    OutOfRange,
)
from stretto_core.ids import Namespace

from stretto_kernel.app.blob_store import (
    CHUNK_BYTES,
    BlobStore,
    BlobUpload,
    missing,
)
from stretto_kernel.domain.run.blob_names import BlobName

UPLOADS_MAX = 64
SILENCE_S_MAX = 60.0


class DigestMismatch(InvalidArgument):
    """The bytes are not those that were named: nothing was stored; read the source again."""

    reason = "DIGEST_MISMATCH"


class TooManyUploads(Exhausted):
    """The kernel takes its most uploads."""

    reason = "OVERLOADED"


class BlobRange(NamedTuple):
    """Some bytes of a blob, chunk by chunk."""

    size_bytes: int
    chunks: AsyncIterator[bytes]


class BlobCalls:
    """The calls on blobs, for every namespace.

    uploads_max: at once; silence_s_max: after so long without data an upload is cut.
    """

    def __init__(
        self,
        store: BlobStore,
        clock: Clock,
        *,
        uploads_max: int = UPLOADS_MAX,
        silence_s_max: float = SILENCE_S_MAX,
    ) -> None:
        self._store = store
        self._clock = clock
        self._uploads_max = uploads_max
        self._silence_s_max = silence_s_max
        self.upload_count = 0
        self.stored_bytes_count = 0
        """Bytes stored by uploads that ended well."""

    async def require(self, namespace: Namespace, blobs: Collection[BlobName]) -> None:
        """Renew the blobs a command names, before its append: none of them is swept from here on.

        Raises BlobMissing, Unavailable.
        """
        if blobs and (absent := await self.find_missing(namespace, blobs)):
            raise missing(absent)

    async def find_missing(
        self, namespace: Namespace, blobs: Collection[BlobName]
    ) -> frozenset[BlobName]:
        """Return which are not here, and renew the others."""
        return await self._store.touch(namespace, blobs, now_ns=self._clock.now_ns())

    async def put(self, namespace: Namespace, blob: BlobName, data: AsyncIterator[bytes]) -> None:
        """Store the bytes under their name; one that is there already is renewed.

        Whatever ends this before its end, nothing of it is visible, and what was stored is deleted.
        Raises DigestMismatch, DeadlineExceeded, TooManyUploads, Unavailable.
        """
        if not await self.find_missing(namespace, [blob]):
            return
        if self.upload_count >= self._uploads_max:
            raise TooManyUploads("too many uploads", uploads_max=str(self._uploads_max))
        self.upload_count += 1
        try:
            upload = await self._store.begin(namespace, now_ns=self._clock.now_ns())
            try:
                await self._receive(upload, blob, data)
                await upload.commit(blob, now_ns=self._clock.now_ns())
            except BaseException:
                # Shielded: a caller who went away cancels this, and its chunks shall not stay.
                await asyncio.shield(asyncio.ensure_future(upload.discard()))
                raise
        finally:
            self.upload_count -= 1
        self.stored_bytes_count += blob.size_bytes

    async def get(
        self, namespace: Namespace, digest: bytes, *, offset_bytes: int, length_bytes: int
    ) -> BlobRange:
        """Return the bytes from an offset; length 0: to the end. Raises NotFound, OutOfRange."""
        found = await self._store.find(namespace, digest)
        if found is None:
            raise NotFound("no such blob", digest=digest.hex())
        if offset_bytes > found.size_bytes:
            raise OutOfRange(
                f"the blob ends at {found.size_bytes}",
                size_bytes=str(found.size_bytes),
                offset_bytes=str(offset_bytes),
            )
        end = found.size_bytes if not length_bytes else offset_bytes + length_bytes
        chunks = self._chunks(found.key, offset_bytes, min(end, found.size_bytes))
        return BlobRange(found.size_bytes, chunks)

    async def _receive(
        self, upload: BlobUpload, blob: BlobName, data: AsyncIterator[bytes]
    ) -> None:
        digest = hashlib.sha256()
        size_bytes = 0
        waiting = bytearray()
        async for part in self._heard(data):
            size_bytes += len(part)
            if size_bytes > blob.size_bytes:
                break
            digest.update(part)
            waiting += part
            while len(waiting) >= CHUNK_BYTES:
                await upload.add(bytes(waiting[:CHUNK_BYTES]))
                del waiting[:CHUNK_BYTES]
        if size_bytes != blob.size_bytes or digest.digest() != blob.digest:
            raise DigestMismatch(
                "the bytes are not those named: nothing was stored",
                digest=blob.digest.hex(),
                size_bytes=str(blob.size_bytes),
            )
        if waiting:
            await upload.add(bytes(waiting))

    async def _heard(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what comes, as long as it comes."""
        while True:
            try:
                async with asyncio.timeout(self._silence_s_max):
                    part = await anext(data, None)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"no data came for {self._silence_s_max:g} s: put the blob again"
                ) from None
            if part is None:
                return
            yield part

    async def _chunks(self, key: int, begin: int, end: int) -> AsyncIterator[bytes]:
        while begin < end:
            number, skipped = divmod(begin, CHUNK_BYTES)
            chunk = await self._store.read(key, number)
            if chunk is None:
                raise NotFound("the blob was swept while it was read")
            part = chunk[skipped : skipped + end - begin]
            begin += len(part)
            yield part
