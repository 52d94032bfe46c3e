"""BlobService: requests to calls on blobs, bytes in and out by messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from stretto.blob.v1 import blob_service_pb2 as pb
from stretto.blob.v1.blob_service_pb2_grpc import BlobServiceServicer
from stretto.common.v1.payload_pb2 import BlobRef
from stretto_core.ids import Namespace

from stretto_kernel.app.blob_store import Holder
from stretto_kernel.domain.run.blob_names import BlobName, blob_name
from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.fields import Fields

ASKED_MAX = 1_000


class BlobServicer(BlobServiceServicer):
    """Serves the blobs; whether a namespace encrypts, the ownership at hand knows."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._calls = kernel.ports.blobs

    async def PutBlob(
        self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: Any
    ) -> pb.PutBlobResponse:
        """See the contract."""
        first = await anext(request_iterator, pb.PutBlobRequest())
        fields = Fields()
        namespace = fields.namespace("parent", first.parent)
        fields.check_blob("blob", first.blob)
        fields.refuse("the request")
        stored = await self._calls.put(
            namespace,
            blob_name(first.blob),
            _data(first, request_iterator),
            encrypts=self._kernel.partition.namespaces.encrypts(namespace),
        )
        return pb.PutBlobResponse(blob=BlobRef(**stored._asdict()))

    async def GetBlob(
        self, request: pb.GetBlobRequest, context: Any
    ) -> AsyncIterator[pb.GetBlobResponse]:
        """See the contract."""
        fields = Fields()
        namespace = fields.namespace("parent", request.parent)
        fields.check_digest("digest", request.digest)
        offset = fields.count("offset_bytes", request.offset_bytes)
        length = fields.count("length_bytes", request.length_bytes)
        fields.refuse("the request")
        found = await self._calls.get(
            namespace, request.digest, offset_bytes=offset, length_bytes=length
        )
        empty = True
        async for chunk in found.chunks:
            empty = False
            yield pb.GetBlobResponse(
                size_bytes=found.size_bytes, data=chunk, decrypted=found.decrypted
            )
        if empty:
            yield pb.GetBlobResponse(size_bytes=found.size_bytes, decrypted=found.decrypted)

    async def FindMissingBlobs(
        self, request: pb.FindMissingBlobsRequest, context: Any
    ) -> pb.FindMissingBlobsResponse:
        """See the contract."""
        namespace, names = _parse_asked(request)
        holder = Holder(encrypts=self._kernel.partition.namespaces.encrypts(namespace))
        absent = await self._calls.find_missing(namespace, names, holder) if names else ()
        missing = [
            BlobRef(digest=name.digest, size_bytes=name.size_bytes)
            for name in dict.fromkeys(names)
            if name in absent
        ]
        return pb.FindMissingBlobsResponse(missing=missing)


def _parse_asked(request: pb.FindMissingBlobsRequest) -> tuple[Namespace, list[BlobName]]:
    fields = Fields()
    namespace = fields.namespace("parent", request.parent)
    if len(request.blobs) > ASKED_MAX:
        fields.wrong("blobs", f"has more than {ASKED_MAX} entries")
    else:
        for index, blob in enumerate(request.blobs):
            fields.check_blob(f"blobs[{index}]", blob)
    fields.refuse("the request")
    return namespace, [blob_name(blob) for blob in request.blobs]


async def _data(
    first: pb.PutBlobRequest, others: AsyncIterator[pb.PutBlobRequest]
) -> AsyncIterator[bytes]:
    yield first.data
    async for request in others:
        if request.parent or request.HasField("blob"):
            findings = Findings()
            findings.wrong("blob", "stands in the first message only")
            findings.refuse("the request")
        yield request.data
