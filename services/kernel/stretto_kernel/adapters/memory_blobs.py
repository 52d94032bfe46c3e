"""Blobs in memory: the double of the table, under the same contract suite. For tests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from stretto_core.ids import Namespace

from stretto_kernel.app.blob_store import CLEAR, Holder, StoredBlob, Untouched
from stretto_kernel.domain.run.blob_names import BlobName


@dataclass(slots=True)
class _Blob:
    key: int
    chunks: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    touched_ns: int = 0
    encrypted: bool = False
    secrets: dict[int, bytes] = field(default_factory=dict)

    def opens_for(self, holder: Holder) -> bool:
        """Whether it can be read, and is encrypted if need be."""
        return bool(self.secrets) or not (self.encrypted or holder.encrypts)


class MemoryBlobs:
    """Implements BlobStore and SweptBlobs; outlives the kernels that use it, like a table."""

    def __init__(self) -> None:
        self._blobs: dict[tuple[Namespace, bytes], _Blob] = {}
        self._by_key: dict[int, _Blob] = {}
        self._keys_given = 0

    @property
    def chunk_count(self) -> int:
        """How many chunks are kept, those of uploads included."""
        return sum(len(blob.chunks) for blob in self._by_key.values())

    def keep(self, namespace: Namespace, data: bytes) -> BlobName:
        """Have the blob from the beginning, as if it had been put."""
        name = BlobName(hashlib.sha256(data).digest(), len(data))
        self._keys_given += 1
        blob = _Blob(self._keys_given, [data], len(data))
        self._by_key[blob.key] = self._blobs[namespace, name.digest] = blob
        return name

    async def touch(
        self,
        namespace: Namespace,
        blobs: Collection[BlobName],
        *,
        now_ns: int,
        holder: Holder = CLEAR,
    ) -> frozenset[BlobName]:
        """See `BlobStore`."""
        missing = set()
        for name in blobs:
            blob = self._blobs.get((namespace, name.digest))
            if blob is None or blob.size_bytes != name.size_bytes or not blob.opens_for(holder):
                missing.add(name)
            else:
                blob.touched_ns = max(blob.touched_ns, now_ns)
                if holder.key_id and blob.secrets:
                    blob.secrets[holder.key_id] = next(iter(blob.secrets.values()))
        return frozenset(missing)

    async def forget_keys(self, key_id: int) -> None:
        """See `BlobStore`."""
        for blob in self._by_key.values():
            if blob.secrets.pop(key_id, None) is not None and blob.secrets.keys() <= {0}:
                blob.secrets.clear()

    async def begin(self, namespace: Namespace, *, now_ns: int) -> _Upload:
        """See `BlobStore`."""
        self._keys_given += 1
        blob = self._by_key[self._keys_given] = _Blob(self._keys_given, touched_ns=now_ns)
        return _Upload(self, namespace, blob)

    async def find(self, namespace: Namespace, digest: bytes) -> StoredBlob | None:
        """See `BlobStore`."""
        blob = self._blobs.get((namespace, digest))
        if blob is None:
            return None
        secret = next(iter(blob.secrets.values()), None)
        return StoredBlob(blob.key, blob.size_bytes, blob.encrypted, secret)

    async def read(self, key: int, chunk_number: int) -> bytes | None:
        """See `BlobStore`."""
        blob = self._by_key.get(key)
        if blob is None or chunk_number >= len(blob.chunks):
            return None
        return blob.chunks[chunk_number]

    async def untouched(
        self, *, before_ns: int, count_max: int, after: Untouched | None = None
    ) -> Sequence[Untouched]:
        """See `SweptBlobs`."""
        found = [
            Untouched(namespace, digest, blob.touched_ns)
            for (namespace, digest), blob in self._blobs.items()
            if blob.touched_ns < before_ns
        ]
        found.sort(key=_order)
        if after is not None:
            found = [each for each in found if _order(each) > _order(after)]
        return found[:count_max]

    async def delete(self, blob: Untouched) -> bool:
        """See `SweptBlobs`."""
        kept = self._blobs.get((blob.namespace, blob.digest))
        if kept is None or kept.touched_ns != blob.touched_ns:
            return False
        del self._blobs[blob.namespace, blob.digest]
        del self._by_key[kept.key]
        return True

    async def delete_uploads(self, *, before_ns: int) -> int:
        """See `SweptBlobs`."""
        visible = {blob.key for blob in self._blobs.values()}
        left = [
            key
            for key, blob in self._by_key.items()
            if key not in visible and blob.touched_ns < before_ns
        ]
        for key in left:
            del self._by_key[key]
        return len(left)

    def commit(self, namespace: Namespace, name: BlobName, blob: _Blob, now_ns: int) -> None:
        """Make an upload visible, or renew what came first."""
        first = self._blobs.get((namespace, name.digest))
        if first is not None:
            first.touched_ns = max(first.touched_ns, now_ns)
            self.discard(blob)
            return
        blob.size_bytes = name.size_bytes
        blob.touched_ns = now_ns
        self._blobs[namespace, name.digest] = blob

    def discard(self, blob: _Blob) -> None:
        """Forget an upload that is not visible."""
        if blob not in self._blobs.values():
            self._by_key.pop(blob.key, None)


class _Upload:
    def __init__(self, blobs: MemoryBlobs, namespace: Namespace, blob: _Blob) -> None:
        self._blobs = blobs
        self._namespace = namespace
        self._blob = blob

    async def add(self, chunk: bytes) -> None:
        """See `BlobUpload`."""
        self._blob.chunks.append(chunk)

    async def commit(self, blob: BlobName, *, now_ns: int, secret: bytes | None = None) -> None:
        """See `BlobUpload`."""
        if secret is not None:
            self._blob.encrypted = True
            self._blob.secrets[0] = secret
        self._blobs.commit(self._namespace, blob, self._blob, now_ns)

    async def discard(self) -> None:
        """See `BlobUpload`."""
        self._blobs.discard(self._blob)


def _order(blob: Untouched) -> tuple[int, Namespace, bytes]:
    return blob.touched_ns, blob.namespace, blob.digest
