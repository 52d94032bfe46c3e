"""One connection of the client: its channel, its stubs, and how its streams go on after a break.

Unary calls are repeated by stretto_core.rpc.retry within one budget. A stream is opened again by
the same policy, from where its reader left the request; each message received renews the budget.
Refusals arrive as the classes the kernel raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import grpc
from stretto.eventlog.v1.event_log_service_pb2_grpc import EventLogServiceStub
from stretto.namespace.v1.namespace_service_pb2_grpc import NamespaceServiceStub
from stretto.projection.v1.projection_service_pb2_grpc import ProjectionServiceStub
from stretto.queue.v1.queue_service_pb2_grpc import QueueServiceStub
from stretto.registry.v1.worker_registry_service_pb2_grpc import WorkerRegistryServiceStub
from stretto.run.v1.run_service_pb2_grpc import RunServiceStub
from stretto.tasklog.v1.task_log_service_pb2_grpc import TaskLogServiceStub
from stretto_core.errors import Unavailable
from stretto_core.rpc.channel import Metadata, open_channel
from stretto_core.rpc.retry import Caller, RetryPolicy

from stretto_sdk.blobs import BlobClient
from stretto_sdk.board_link import GrpcBoards
from stretto_sdk.coalesced_starts import Starts
from stretto_sdk.endpoint import Endpoint
from stretto_sdk.resumed import resumed
from stretto_sdk.run_ends import RunEnds

if TYPE_CHECKING:
    # These exist in the generated stubs only.
    from stretto.eventlog.v1.event_log_service_pb2_grpc import EventLogServiceAsyncStub
    from stretto.namespace.v1.namespace_service_pb2_grpc import NamespaceServiceAsyncStub
    from stretto.projection.v1.projection_service_pb2_grpc import ProjectionServiceAsyncStub
    from stretto.queue.v1.queue_service_pb2_grpc import QueueServiceAsyncStub
    from stretto.registry.v1.worker_registry_service_pb2_grpc import WorkerRegistryServiceAsyncStub
    from stretto.run.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from stretto.tasklog.v1.task_log_service_pb2_grpc import TaskLogServiceAsyncStub

Request = TypeVar("Request")
Answer = TypeVar("Answer")


CALL_MS_MAX = 90_000
"""So long a unary call waits for its answer: a start may itself wait 60 s for the run's end."""


class Calls:
    """The calls of one client; connects at the first of them, on the running event loop."""

    def __init__(self, endpoint: Endpoint, *, retry_budget: timedelta) -> None:
        self._endpoint = endpoint
        self._policy = RetryPolicy(budget_ms=retry_budget // timedelta(milliseconds=1))
        self._caller = Caller(token=endpoint.token, policy=self._policy, attempt_ms_max=CALL_MS_MAX)
        self._closed = False
        self.starts = Starts(self)
        self.ends = RunEnds(self)

    @property
    def policy(self) -> RetryPolicy:
        """How long and how often a stream is opened again."""
        return self._policy

    @property
    def metadata(self) -> Metadata:
        """What to send with a stream's call."""
        return self._caller.metadata

    @property
    def is_connected(self) -> bool:
        """Whether the suite answers at this moment; False before the first call."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    @cached_property
    def runs(self) -> RunServiceAsyncStub:
        """The stub of RunService."""
        return RunServiceStub(self._channel)

    @cached_property
    def log(self) -> EventLogServiceAsyncStub:
        """The stub of EventLogService."""
        return EventLogServiceStub(self._channel)

    @cached_property
    def task_log(self) -> TaskLogServiceAsyncStub:
        """The stub of TaskLogService."""
        return TaskLogServiceStub(self._channel)

    @cached_property
    def projections(self) -> ProjectionServiceAsyncStub:
        """The stub of ProjectionService."""
        return ProjectionServiceStub(self._channel)

    @cached_property
    def registry(self) -> WorkerRegistryServiceAsyncStub:
        """The stub of WorkerRegistryService."""
        return WorkerRegistryServiceStub(self._channel)

    @cached_property
    def queues(self) -> QueueServiceAsyncStub:
        """The stub of QueueService."""
        return QueueServiceStub(self._channel)

    @cached_property
    def boards(self) -> GrpcBoards:
        """The blackboards of the suite."""
        return GrpcBoards(self._channel, token=self._endpoint.token, policy=self._policy)

    @cached_property
    def namespaces(self) -> NamespaceServiceAsyncStub:
        """The stub of NamespaceService."""
        return NamespaceServiceStub(self._channel)

    @cached_property
    def blobs(self) -> BlobClient:
        """The blobs of the suite."""
        return BlobClient(self._channel, token=self._endpoint.token, policy=self._policy)

    async def unary(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request
    ) -> Answer:
        """Return the answer. Raises the refusal that ended it, DeadlineExceeded after 90 s."""
        with self._told_of_close():
            return await self._caller.call(method, request)

    def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Answer], request: Request
    ) -> AsyncGenerator[Answer, None]:
        """Yield the answers, over breaks of the connection; see `resumed`."""
        return resumed(
            method,
            request,
            metadata=self._caller.metadata,
            policy=self._policy,
            before=self._check_open,
            around=self._told_of_close,
        )

    async def close(self) -> None:
        """Close the channel if one was opened; repeating is harmless.

        Whoever waits for an answer gets Unavailable.
        """
        self._closed = True
        await self.starts.close()
        await self.ends.close()
        if "_channel" in self.__dict__:
            await self._channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the client was closed")

    @contextmanager
    def _told_of_close(self) -> Iterator[None]:
        """Around a call: gRPC ends those of a closed channel as if their callers were cancelled."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or task is None or task.cancelling():
                raise
            raise Unavailable("the client was closed") from None

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        # Not in the constructor: a channel belongs to the loop that runs when it is made.
        return open_channel(self._endpoint.address)
