"""The part of the client that is about workers: who they are, and asking one to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from stretto.registry.v1 import worker_registry_service_pb2 as pb

from stretto_sdk.client_calls import Calls
from stretto_sdk.words import member_of, word_of


class WorkerState(StrEnum):
    """How a worker stands to the kernel."""

    CONNECTED = "CONNECTED"
    DRAINING = "DRAINING"
    LOST = "LOST"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"
    """One that only a newer kernel knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWorker:
    """A worker as the kernel knows it: its newest process.

    transport: "stream" or "unary". reason: why it drains or is no longer connected. leases: the
    work items it holds, oldest first; given by `Client.worker` only. granted_lease_count,
    first_lease_time: since ever; given with history only, which knows of no queues and the like.
    """

    worker_id: str
    session_id: str
    state: WorkerState
    transport: str
    queues: tuple[str, ...]
    executors: tuple[str, ...]
    labels: Mapping[str, str]
    slot_count: int
    lease_count: int
    connect_time: datetime
    seen_time: datetime
    control_address: str
    version: str
    reason: str
    leases: tuple[str, ...] = ()
    granted_lease_count: int = 0
    first_lease_time: datetime | None = None


class WorkerCalls:
    """What a client can ask about workers; `Client` has it all."""

    _calls: Calls

    async def workers(
        self, *, connected_only: bool = False, history: bool = False
    ) -> Sequence[KnownWorker]:
        """Read the workers in the order of their ids: connected, and lost in the last hour.

        >>> idle = [one for one in await client.workers() if not one.lease_count]

        What is live is memory of the kernel: after its restart a worker appears when it is back.
        history: also those that ever had a lease, as the record knows them.
        """
        request = pb.ListWorkersRequest(
            page_size=1_000, connected_only=connected_only, with_history=history
        )
        found: list[KnownWorker] = []
        while True:
            page = await self._calls.unary(self._calls.registry.ListWorkers, request)
            found += [_worker(each) for each in page.workers]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def worker(self, worker_id: str) -> KnownWorker:
        """Read one worker, with what it holds. Raises NotFound.

        >>> print((await client.worker("build-1")).leases)
        """
        request = pb.GetWorkerRequest(worker_id=worker_id)
        answer = await self._calls.unary(self._calls.registry.GetWorker, request)
        return _worker(answer.worker, tuple(lease.work_item for lease in answer.leases))

    async def drain_worker(self, worker_id: str, *, reason: str = "") -> KnownWorker:
        """Ask a worker's process to finish what it holds and to end; nothing more is leased to it.

        >>> await client.drain_worker("build-1", reason="its disk is full")

        Safe to repeat. Raises NotFound, FailedPrecondition (WORKER_NOT_CONNECTED).
        """
        request = pb.DrainWorkerRequest(worker_id=worker_id, reason=reason)
        answer = await self._calls.unary(self._calls.registry.DrainWorker, request)
        return _worker(answer.worker)


def _worker(message: pb.Worker, leases: tuple[str, ...] = ()) -> KnownWorker:
    return KnownWorker(
        worker_id=message.worker_id,
        session_id=message.session_id,
        state=member_of(WorkerState, pb.WorkerState, message.state),
        transport=word_of(pb.WorkerTransport, message.transport).lower(),
        queues=tuple(message.queues),
        executors=tuple(message.executors),
        labels=dict(message.labels),
        slot_count=message.slot_count,
        lease_count=message.lease_count,
        connect_time=message.connect_time.ToDatetime(tzinfo=UTC),
        seen_time=message.seen_time.ToDatetime(tzinfo=UTC),
        control_address=message.control_address,
        version=message.version,
        reason=message.reason,
        leases=leases,
        granted_lease_count=message.granted_lease_count,
        first_lease_time=(
            message.first_lease_time.ToDatetime(tzinfo=UTC)
            if message.HasField("first_lease_time")
            else None
        ),
    )
