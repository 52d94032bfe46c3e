"""Blobs as the kernel sees them: put in parts, read by ranges, touched, swept.

The port of the table that keeps them, which is part of the record and stored with fsync. A blob is
visible in its namespace only, by digest and size. Instants are UTC nanoseconds of the caller's
clock; `touched_ns` never goes back. Knows no gRPC.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from stretto_core.errors import FailedPrecondition
from stretto_core.ids import Namespace

from stretto_kernel.domain.run.blob_names import BlobName

CHUNK_BYTES = 512 * 1024
"""What is stored and read at a time; all chunks of a blob but the last have this size."""


class BlobMissing(FailedPrecondition):
    """A blob that a command names is not in its namespace (metadata `digest`): put it first."""

    reason = "BLOB_MISSING"


class Untouched(NamedTuple):
    """A blob that may be swept if it is still as it was: the key of a deletion."""

    namespace: Namespace
    digest: bytes
    touched_ns: int


class Holder(NamedTuple):
    """Who names blobs: a run with that data key, a run without one, or nobody yet (key id 0).

    encrypts: only encrypted blobs whose key is there will do.
    """

    key_id: int = 0
    encrypts: bool = False


CLEAR = Holder()


class StoredBlob(NamedTuple):
    """A blob that is there. key: what its chunks are read by.

    encrypted: its chunks are ciphertext; secret: of its cipher, None = clear, or destroyed.
    """

    key: int
    size_bytes: int
    encrypted: bool = False
    secret: bytes | None = None

    def __repr__(self) -> str:
        """Never the secret: this ends in logs."""
        return f"StoredBlob({self.key}, {self.size_bytes}, {self.encrypted})"


class BlobUpload(Protocol):
    """A blob on its way in; nobody sees it before `commit`. No transaction is open in between."""

    async def add(self, chunk: bytes) -> None:
        """Store the next chunk: CHUNK_BYTES, less for the last. Raises Unavailable."""
        ...

    async def commit(self, blob: BlobName, *, now_ns: int, secret: bytes | None = None) -> None:
        """Make the blob visible, with fsync; or renew the one that came first. Raises Unavailable.

        The caller has checked digest and size. secret: what its chunks were encrypted with.
        """
        ...

    async def discard(self) -> None:
        """Forget what was stored; after a commit this changes nothing. Never raises Unavailable."""
        ...


class BlobStore(Protocol):
    """The blobs of all namespaces."""

    async def touch(
        self,
        namespace: Namespace,
        blobs: Collection[BlobName],
        *,
        now_ns: int,
        holder: Holder = CLEAR,
    ) -> frozenset[BlobName]:
        """Renew the touched time of those that are there; return the others. Raises Unavailable.

        A holder with a key gets a copy of the key of each. One whose key is destroyed is not there.
        """
        ...

    async def forget_keys(self, key_id: int) -> None:
        """Destroy the blobs' keys that the run of a data key holds. On disk; idempotent.

        Where no other run holds one, the one that the put left goes too. Raises Unavailable.
        """
        ...

    async def begin(self, namespace: Namespace, *, now_ns: int) -> BlobUpload:
        """Begin an upload. Raises Unavailable."""
        ...

    async def find(self, namespace: Namespace, digest: bytes) -> StoredBlob | None:
        """Return the blob if it is there. Raises Unavailable."""
        ...

    async def read(self, key: int, chunk_number: int) -> bytes | None:
        """Return a chunk, from 0; None when the blob has none of that number (any more).

        Raises Unavailable.
        """
        ...


class SweptBlobs(Protocol):
    """The blobs as the sweep sees them."""

    async def untouched(
        self, *, before_ns: int, count_max: int, after: Untouched | None = None
    ) -> Sequence[Untouched]:
        """Return visible blobs touched last before an instant, the longest untouched first.

        after: the last of the page before. Raises Unavailable.
        """
        ...

    async def delete(self, blob: Untouched) -> bool:
        """Delete the blob unless it was touched since; return whether. Raises Unavailable."""
        ...

    async def delete_uploads(self, *, before_ns: int) -> int:
        """Delete what uploads that never ended left, last heard of before an instant."""
        ...


def missing(names: Collection[BlobName]) -> BlobMissing:
    """Return what refuses a command that names these."""
    digest = min(names).digest.hex()
    return BlobMissing(
        f"{len(names)} of the blobs named are not here with that size: put them first",
        digest=digest,
        missing_count=str(len(names)),
    )
