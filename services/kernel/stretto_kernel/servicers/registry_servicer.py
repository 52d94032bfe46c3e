"""WorkerRegistryService: the workers of the partition a kernel owns."""

from __future__ import annotations

from typing import Any

from stretto.registry.v1 import worker_registry_service_pb2 as pb
from stretto.registry.v1.worker_registry_service_pb2_grpc import WorkerRegistryServiceServicer
from stretto_core.ids import WorkerId
from stretto_core.rpc.call import current_call

from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_token, encode_token

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
ID_CHARACTERS_MAX = 128
REASON_CHARACTERS_MAX = 1_000


class RegistryServicer(WorkerRegistryServiceServicer):
    """Answers from the memory of the ownership at hand."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Any
    ) -> pb.ListWorkersResponse:
        """See the contract."""
        fields = Fields()
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        fields.refuse("the request")
        after = ""
        if request.page_token:
            (after,) = decode_token("page_token", "workers", request.page_token, part_count=1)
        page = self._kernel.partition.workers.page(
            after=after, count_max=size, connected_only=request.connected_only
        )
        response = pb.ListWorkersResponse(workers=page.workers)
        if page.more:
            response.next_page_token = encode_token("workers", page.workers[-1].worker_id)
        return response

    async def GetWorker(self, request: pb.GetWorkerRequest, context: Any) -> pb.GetWorkerResponse:
        """See the contract."""
        worker_id = _worker_id(Fields(), request.worker_id)
        worker, leases = self._kernel.partition.workers.get(worker_id)
        return pb.GetWorkerResponse(worker=worker, leases=leases)

    async def DrainWorker(
        self, request: pb.DrainWorkerRequest, context: Any
    ) -> pb.DrainWorkerResponse:
        """See the contract."""
        fields = Fields()
        reason = fields.text("reason", request.reason, characters_max=REASON_CHARACTERS_MAX)
        worker_id = _worker_id(fields, request.worker_id)
        by = current_call().principal.name or "anonymous"
        worker = self._kernel.partition.workers.drain(worker_id, reason or f"asked to by {by}")
        return pb.DrainWorkerResponse(worker=worker)


def _worker_id(fields: Fields, text: str) -> WorkerId:
    if not 0 < len(text) <= ID_CHARACTERS_MAX or not text.isprintable():
        fields.wrong("worker_id", "must be 1-128 printable characters")
    fields.refuse("the request")
    return WorkerId(text)
