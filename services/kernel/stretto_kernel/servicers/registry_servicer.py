"""WorkerRegistryService: the workers of the partition a kernel owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from stretto.registry.v1 import worker_registry_service_pb2 as pb
from stretto.registry.v1.worker_registry_service_pb2_grpc import WorkerRegistryServiceServicer
from stretto_core.ids import WorkerId
from stretto_core.rpc.call import current_call

from stretto_kernel.dispatch.assignments import timestamp
from stretto_kernel.kernel import Kernel
from stretto_kernel.projections.workers import WorkerRow
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.name_pages import parse_name_page

ID_CHARACTERS_MAX = 128
REASON_CHARACTERS_MAX = 1_000


class WorkerHistory(Protocol):
    """What the record knows of workers."""

    async def page(self, *, after: str, count_max: int) -> Sequence[WorkerRow]:
        """Return the workers whose ids follow `after`, in their order. Raises Unavailable."""
        ...


class RegistryServicer(WorkerRegistryServiceServicer):
    """Answers from the memory of the ownership at hand, and of the past from a view."""

    def __init__(self, kernel: Kernel, history: WorkerHistory) -> None:
        self._kernel = kernel
        self._history = history

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Any
    ) -> pb.ListWorkersResponse:
        """See the contract."""
        fields = Fields()
        if request.connected_only and request.with_history:
            fields.wrong("with_history", "is of workers that are not connected")
        page = parse_name_page(fields, "workers", request.page_size, request.page_token)
        workers, more = self._kernel.partition.workers.page(
            after=page.after, count_max=page.size, connected_only=request.connected_only
        )
        if request.with_history:
            past = await self._history.page(after=page.after, count_max=page.size + 1)
            shown = _with_history(workers, past)
            workers, more = shown[: page.size], more or len(shown) > page.size
        token = page.next_token(workers[-1].worker_id) if more else ""
        return pb.ListWorkersResponse(workers=workers, next_page_token=token)

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


def _with_history(live: Sequence[pb.Worker], past: Sequence[WorkerRow]) -> list[pb.Worker]:
    """Return both in the order of their ids; what is live is known better."""
    found = {worker.worker_id: worker for worker in live}
    for row in past:
        worker = found.setdefault(
            row.worker_id,
            pb.Worker(
                worker_id=row.worker_id,
                session_id=row.session_id,
                state=pb.WORKER_STATE_GONE,
                connect_time=timestamp(row.first_ns),
                seen_time=timestamp(row.last_ns),
                reason="known from the record only",
            ),
        )
        worker.granted_lease_count = row.lease_count
        worker.first_lease_time.CopyFrom(timestamp(row.first_ns))
    return [found[worker_id] for worker_id in sorted(found)]


def _worker_id(fields: Fields, text: str) -> WorkerId:
    if not 0 < len(text) <= ID_CHARACTERS_MAX or not text.isprintable():
        fields.wrong("worker_id", "must be 1-128 printable characters")
    fields.refuse("the request")
    return WorkerId(text)
