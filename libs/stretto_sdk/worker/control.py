"""WorkerControlService: what a worker process answers about itself, on a loopback port of its own.

It runs on the protocol's loop, which no body shares: it answers whatever the bodies do. The kernel
dials it when a work stream is lost; a refused connection or another session proves a death.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from stretto.worker.v1 import worker_control_service_pb2 as messages
from stretto.worker.v1 import worker_control_service_pb2_grpc as services

from stretto_sdk.worker.runtime import WorkerRuntime


class WorkerControl(services.WorkerControlServiceServicer):
    """Answers for one process. The runtime comes later than the port that its hello names.

    start_ns: when the process started, UTC nanoseconds since the Unix epoch.
    """

    def __init__(self, worker_id: str, session_id: str, start_ns: int) -> None:
        self._worker_id = worker_id
        self._session_id = session_id
        self._start_ns = start_ns
        self._runtime: WorkerRuntime | None = None

    def attach(self, runtime: WorkerRuntime) -> None:
        """From now on describe and drain this runtime."""
        self._runtime = runtime

    async def Identify(  # noqa: N802 - the contract's name
        self, _request: messages.IdentifyRequest, _context: Any
    ) -> messages.IdentifyResponse:
        """Say which process this is."""
        return messages.IdentifyResponse(worker_id=self._worker_id, session_id=self._session_id)

    async def DescribeWorker(  # noqa: N802 - the contract's name
        self, _request: messages.DescribeWorkerRequest, _context: Any
    ) -> messages.DescribeWorkerResponse:
        """Say what it offers and what it runs."""
        answer = messages.DescribeWorkerResponse(
            worker_id=self._worker_id,
            session_id=self._session_id,
            start_time=_timestamp(self._start_ns),
        )
        runtime = self._runtime
        if runtime is None:
            return answer
        answer.queues.extend(runtime.settings.queues or ("default",))
        answer.executors.extend(runtime.settings.executors)
        answer.labels.update(dict(runtime.settings.labels))
        answer.slot_count = runtime.settings.slot_count
        answer.draining = runtime.session.is_draining
        answer.connected = runtime.session.is_connected
        for key, running in runtime.running.items():
            answer.leases.add(
                work_item=key.work_item,
                epoch=key.epoch,
                accept_time=_timestamp(running.accept_ns),
            )
        return answer

    async def DrainWorker(  # noqa: N802 - the contract's name
        self, request: messages.DrainWorkerRequest, _context: Any
    ) -> messages.DrainWorkerResponse:
        """Start to drain."""
        if self._runtime is None:
            return messages.DrainWorkerResponse()
        self._runtime.drain(request.reason or "asked to")
        return messages.DrainWorkerResponse(lease_count=len(self._runtime.running))


def _timestamp(instant_ns: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(instant_ns)
    return timestamp
