"""What can be asked of blobs: put, get, find the missing; and the gate of commands that name them.

A blob is never whole in memory: its bytes come and go in chunks, each stored or read by itself.
Knows no gRPC and no table.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Collection
from typing import NamedTuple

from stretto_core.clock import Clock
from stretto_core.errors import (
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
)
from stretto_core.ids import Namespace

from stretto_kernel.app.blob_cipher import (
    PLAIN_CHUNK_BYTES,
    BlobCipher,
    check_size,
    chunk_count,
    plain_bytes,
)
from stretto_kernel.app.blob_store import (
    CHUNK_BYTES,
    CLEAR,
    BlobStore,
    BlobUpload,
    Holder,
    StoredBlob,
    missing,
)
from stretto_kernel.app.data_key import SECRET_BYTES, RandomBytes
from stretto_kernel.domain.run.blob_names import BlobName

UPLOADS_MAX = 64
SILENCE_S_MAX = 60.0


class DigestMismatch(InvalidArgument):
    """The bytes are not those that were named: nothing was stored; read the source again."""

    reason = "DIGEST_MISMATCH"


class TooManyUploads(Exhausted):
    """The kernel takes its most uploads."""

    reason = "OVERLOADED"


class BlobShredded(FailedPrecondition):
    """The blob's key was destroyed with the run that named it: nobody can read it any more."""

    reason = "BLOB_SHREDDED"


class BlobRange(NamedTuple):
    """Some bytes of a blob, chunk by chunk. decrypted: the digest is not theirs."""

    size_bytes: int
    chunks: AsyncIterator[bytes]
    decrypted: bool = False


class BlobCalls:
    """The calls on blobs, for every namespace.

    uploads_max: at once; silence_s_max: after so long without data an upload is cut. random_bytes:
    where keys of encrypted blobs come from.
    """

    def __init__(
        self,
        store: BlobStore,
        clock: Clock,
        *,
        uploads_max: int = UPLOADS_MAX,
        silence_s_max: float = SILENCE_S_MAX,
        random_bytes: RandomBytes = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._uploads_max = uploads_max
        self._silence_s_max = silence_s_max
        self._random_bytes = random_bytes
        self.upload_count = 0
        self.stored_bytes_count = 0
        """Bytes stored by uploads that ended well."""

    async def require(
        self,
        namespace: Namespace,
        blobs: Collection[BlobName],
        key_id: int = 0,
        *,
        needs_key: bool = False,
    ) -> None:
        """Renew the blobs a command names, before its append: none of them is swept from here on.

        key_id: the data key of its run, which gets the blobs' keys; 0 = none. needs_key: there is
        no run yet, but one with a key is meant. Raises BlobMissing, Unavailable.
        """
        holder = Holder(key_id, encrypts=needs_key or key_id > 0)
        if blobs and (absent := await self.find_missing(namespace, blobs, holder)):
            raise missing(absent)

    async def find_missing(
        self, namespace: Namespace, blobs: Collection[BlobName], holder: Holder = CLEAR
    ) -> frozenset[BlobName]:
        """Return which are not here, and renew the others."""
        return await self._store.touch(namespace, blobs, now_ns=self._clock.now_ns(), holder=holder)

    async def put(
        self,
        namespace: Namespace,
        blob: BlobName,
        data: AsyncIterator[bytes],
        *,
        encrypts: bool = False,
    ) -> BlobName:
        """Store the bytes, and return what names them; a clear blob that is there is renewed.

        encrypts: store them encrypted, under a key and thus a name of their own. Whatever ends this
        before its end, nothing of it is visible, and what was stored is deleted. Raises
        DigestMismatch, InvalidArgument, DeadlineExceeded, TooManyUploads, Unavailable.
        """
        if encrypts:
            check_size(blob.size_bytes)
        elif not await self.find_missing(namespace, [blob]):
            return blob
        if self.upload_count >= self._uploads_max:
            raise TooManyUploads("too many uploads", uploads_max=str(self._uploads_max))
        self.upload_count += 1
        try:
            upload = await self._store.begin(namespace, now_ns=self._clock.now_ns())
            try:
                stored = await self._receive(upload, blob, data, encrypts=encrypts)
            except BaseException:
                # Shielded: a caller who went away cancels this, and its chunks shall not stay.
                await asyncio.shield(asyncio.ensure_future(upload.discard()))
                raise
        finally:
            self.upload_count -= 1
        self.stored_bytes_count += stored.size_bytes
        return stored

    async def get(
        self, namespace: Namespace, digest: bytes, *, offset_bytes: int, length_bytes: int
    ) -> BlobRange:
        """Return the bytes from an offset; length 0: to the end, decrypted if need be.

        Raises NotFound, OutOfRange, BlobShredded.
        """
        found = await self._store.find(namespace, digest)
        if found is None:
            raise NotFound("no such blob", digest=digest.hex())
        if found.encrypted and found.secret is None:
            raise BlobShredded("the blob's key was destroyed", digest=digest.hex())
        cipher = None if found.secret is None else BlobCipher(found.secret)
        size_bytes = found.size_bytes if cipher is None else plain_bytes(found.size_bytes)
        if offset_bytes > size_bytes:
            raise OutOfRange(
                f"the blob ends at {size_bytes}",
                size_bytes=str(size_bytes),
                offset_bytes=str(offset_bytes),
            )
        end = size_bytes if not length_bytes else min(offset_bytes + length_bytes, size_bytes)
        if cipher is None:
            chunks = self._chunks(found.key, offset_bytes, end)
        else:
            chunks = self._decrypted(found, cipher, offset_bytes, end)
        return BlobRange(size_bytes, chunks, decrypted=cipher is not None)

    async def forget_keys(self, key_id: int) -> None:
        """Destroy what opens the blobs that only the run of this data key names. Idempotent."""
        await self._store.forget_keys(key_id)

    async def _receive(
        self, upload: BlobUpload, blob: BlobName, data: AsyncIterator[bytes], *, encrypts: bool
    ) -> BlobName:
        """Store what comes, chunk by chunk, and make it visible once it is what was named."""
        digest = hashlib.sha256()
        size_bytes = 0
        waiting = bytearray()
        secret = self._random_bytes(SECRET_BYTES) if encrypts else None
        chunks = _Chunks(upload, None if secret is None else BlobCipher(secret))
        async for part in self._heard(data):
            size_bytes += len(part)
            if size_bytes > blob.size_bytes:
                break
            digest.update(part)
            waiting += part
            while len(waiting) >= chunks.ripe_bytes:
                await chunks.add(bytes(waiting[: chunks.bytes_max]), last=False)
                del waiting[: chunks.bytes_max]
        if size_bytes != blob.size_bytes or digest.digest() != blob.digest:
            raise DigestMismatch(
                "the bytes are not those named: nothing was stored",
                digest=blob.digest.hex(),
                size_bytes=str(blob.size_bytes),
            )
        if waiting or secret is not None:
            await chunks.add(bytes(waiting), last=True)
        stored = blob if secret is None else chunks.name()
        await upload.commit(stored, now_ns=self._clock.now_ns(), secret=secret)
        return stored

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

    async def _decrypted(
        self, found: StoredBlob, cipher: BlobCipher, begin: int, end: int
    ) -> AsyncIterator[bytes]:
        last_number = chunk_count(found.size_bytes) - 1
        while begin < end:
            number, skipped = divmod(begin, PLAIN_CHUNK_BYTES)
            chunk = await self._store.read(found.key, number)
            if chunk is None:
                raise NotFound("the blob was swept while it was read")
            plain = cipher.decrypt(number, chunk, last=number == last_number)
            part = plain[skipped : skipped + end - begin]
            begin += len(part)
            yield part


class _Chunks:
    """The chunks of one upload on their way to the store, encrypted there if need be."""

    def __init__(self, upload: BlobUpload, cipher: BlobCipher | None) -> None:
        self._upload = upload
        self._cipher = cipher
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._count = 0
        self.bytes_max = CHUNK_BYTES if cipher is None else PLAIN_CHUNK_BYTES
        # Only what follows an encrypted chunk says that it is not the last.
        self.ripe_bytes = self.bytes_max + (cipher is not None)

    async def add(self, chunk: bytes, *, last: bool) -> None:
        """Store the next chunk."""
        if self._cipher is not None:
            chunk = self._cipher.encrypt(self._count, chunk, last=last)
            self._digest.update(chunk)
            self._size_bytes += len(chunk)
        self._count += 1
        await self._upload.add(chunk)

    def name(self) -> BlobName:
        """Return what names the encrypted chunks."""
        return BlobName(self._digest.digest(), self._size_bytes)
