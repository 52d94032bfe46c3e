"""WorkService: carries frames and unary calls between gRPC and the kernel's dispatch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as pb
from stretto.work.v1.work_service_pb2_grpc import WorkServiceServicer
from stretto_core.rpc.call import current_call

from stretto_kernel.dispatch.session import RENEW_INTERVAL_S
from stretto_kernel.dispatch.work_stream import WorkerTooSlow
from stretto_kernel.kernel import Kernel, WorkSessionHandle
from stretto_kernel.servicers.task_log_servicer import append_logs
from stretto_kernel.servicers.work_requests import (
    check_items,
    parse_lease_work,
    parse_release_work,
)
from stretto_kernel.tasklog.task_logs import TaskLogs

WAITING_BYTES_MAX = 16 * 1024 * 1024
LAST_WORD_S = 1.0
"""So long a worker that was cut off has to read why; then its stream is dropped."""


class WorkServicer(WorkServiceServicer):
    """Serves the workers of the partition a kernel owns."""

    def __init__(self, kernel: Kernel, task_logs: TaskLogs) -> None:
        self._kernel = kernel
        self._task_logs = task_logs

    async def Work(
        self, request_iterator: AsyncIterator[pb.WorkRequest], context: Any
    ) -> AsyncIterator[pb.WorkResponse]:
        """See the contract."""
        call = current_call()
        outgoing = _Outgoing(asyncio.current_task())
        session = self._kernel.open_session(
            outgoing.send, outgoing.end, call.principal, call.traceparent
        )
        reader = asyncio.create_task(_read(request_iterator, session, outgoing), name="work-stream")
        try:
            async for frame in outgoing.frames():
                yield frame
        finally:
            reader.cancel()
            session.lost()

    async def LeaseWork(self, request: pb.LeaseWorkRequest, context: Any) -> pb.LeaseWorkResponse:
        """See the contract."""
        deadline_s = current_call().deadline_s
        now_s = asyncio.get_running_loop().time()
        call = parse_lease_work(request, None if deadline_s is None else deadline_s - now_s)
        assignments = await self._kernel.partition.polls.lease(call)
        # Nothing is awaited from here on: what is made and not sent is leased to nobody.
        return pb.LeaseWorkResponse(
            assignments=assignments, renew_interval=Duration(seconds=RENEW_INTERVAL_S)
        )

    async def RenewLeases(
        self, request: pb.RenewLeasesRequest, context: Any
    ) -> pb.RenewLeasesResponse:
        """See the contract."""
        check_items(request.renewals)
        call, partition = current_call(), self._kernel.partition
        receipts, signals = await partition.unary_writes.renew(
            request.renewals, call.principal, call.traceparent
        )
        draining = partition.polls.draining
        drain = work_pb2.Drain(reason=draining) if draining else None
        return pb.RenewLeasesResponse(receipts=receipts, signals=signals, drain=drain)

    async def ReportOutcomes(
        self, request: pb.ReportOutcomesRequest, context: Any
    ) -> pb.ReportOutcomesResponse:
        """See the contract."""
        check_items(request.outcomes, request.spawns)
        call = current_call()
        receipts = await self._kernel.partition.unary_writes.write(
            request.spawns, request.outcomes, call.principal, call.traceparent
        )
        return pb.ReportOutcomesResponse(receipts=receipts)

    async def ReleaseWork(
        self, request: pb.ReleaseWorkRequest, context: Any
    ) -> pb.ReleaseWorkResponse:
        """See the contract."""
        releases, calls = parse_release_work(request)
        call, partition = current_call(), self._kernel.partition
        for session_id, request_id in calls:
            partition.polls.give_up(session_id, request_id)
        receipts = await partition.unary_writes.write(
            (), releases, call.principal, call.traceparent
        )
        return pb.ReleaseWorkResponse(receipts=receipts)

    async def AppendLogs(
        self, request: pb.AppendLogsRequest, context: Any
    ) -> pb.AppendLogsResponse:
        """See the contract."""
        return await append_logs(self._kernel, self._task_logs, request)


class _Outgoing:
    """The frames on their way to one worker, and how the stream ends; bounded in bytes.

    writer: the task that writes them. One that does not come back from a write is cancelled.
    """

    def __init__(self, writer: asyncio.Task[Any] | None) -> None:
        self._queue: asyncio.Queue[pb.WorkResponse | Exception | None] = asyncio.Queue()
        self._writer = writer
        self._waiting_bytes = 0
        self._over = False

    def send(self, frame: pb.WorkResponse) -> None:
        """Queue a frame; a worker that does not read is cut off."""
        if self._over:
            return
        self._queue.put_nowait(frame)
        if self._queue.qsize() > 1:  # Else it goes out at once.
            self._waiting_bytes += frame.ByteSize()
            if self._waiting_bytes > WAITING_BYTES_MAX:
                self._cut_off()

    def end(self, cause: Exception | None) -> None:
        """End the stream after what is queued: with a refusal or our bug, or in order."""
        self._over = True
        self._queue.put_nowait(cause)

    async def frames(self) -> AsyncIterator[pb.WorkResponse]:
        """Yield the frames until the end. Raises what it ends with."""
        while (said := await self._queue.get()) is not None:
            if isinstance(said, Exception):
                raise said
            if self._queue.empty():
                self._waiting_bytes = 0
            yield said

    def _cut_off(self) -> None:
        """Nobody reads: what waits is dropped, and the write that waits for a reader as well."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self.end(WorkerTooSlow("the worker does not read its stream"))
        if self._writer is not None:
            asyncio.get_running_loop().call_later(LAST_WORD_S, self._writer.cancel)


async def _read(
    frames: AsyncIterator[pb.WorkRequest], session: WorkSessionHandle, outgoing: _Outgoing
) -> None:
    """Hand each frame to the session until the worker's side ends; then the stream ends too."""
    cause: Exception | None = None
    try:
        async for frame in frames:
            session.receive(frame)
            # What is not read yet waits with the worker, not here.
            while session.is_busy:  # noqa: ASYNC110 - each turn of the loop acts on more
                await asyncio.sleep(0)
    except grpc.RpcError:
        pass  # The transport failed: nobody reads any more.
    except Exception as error:
        cause = error
    session.lost()
    outgoing.end(cause)
