"""How a blackboard is reached: a port, its gRPC adapter, and one that crosses to another loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import grpc
from stretto.blackboard.v1 import blackboard_service_pb2 as pb
from stretto.blackboard.v1.blackboard_pb2 import Entry
from stretto.blackboard.v1.blackboard_service_pb2_grpc import BlackboardServiceStub
from stretto.common.v1.payload_pb2 import BlobRef
from stretto_core.rpc.channel import credentials
from stretto_core.rpc.retry import Caller, RetryPolicy
from stretto_core.telemetry.secret import Secret

from stretto_sdk.blobs import BlobClient, Source
from stretto_sdk.resumed import resumed
from stretto_sdk.values import Blobs

if TYPE_CHECKING:
    # It exists in the generated stubs only.
    from stretto.blackboard.v1.blackboard_service_pb2_grpc import BlackboardServiceAsyncStub

Answer = TypeVar("Answer")


class BoardLink(Protocol):
    """Calls of BlackboardService, made again while the kernel is not reached. All raise Refusal."""

    @property
    def blobs(self) -> Blobs:
        """Where large values are."""
        ...

    async def get(self, request: pb.GetEntriesRequest) -> pb.GetEntriesResponse:
        """Read entries."""
        ...

    async def put(self, request: pb.PutEntriesRequest) -> pb.PutEntriesResponse:
        """Write entries."""
        ...

    async def delete(self, request: pb.DeleteEntriesRequest) -> pb.DeleteEntriesResponse:
        """Delete entries."""
        ...

    async def list_page(self, request: pb.ListEntriesRequest) -> pb.ListEntriesResponse:
        """Read a page of entries."""
        ...

    def watch(self, request: pb.WatchEntriesRequest) -> AsyncGenerator[pb.WatchEntriesResponse]:
        """Follow entries, first all that are there; the reader moves the request on."""
        ...


class GrpcBoards:
    """Implements BoardLink over a channel that somebody else closes."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        token: Secret | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._stub: BlackboardServiceAsyncStub = BlackboardServiceStub(channel)
        self._policy = policy or RetryPolicy()
        self._metadata = credentials(token)
        self._caller = Caller(token=token, policy=self._policy)
        self.blobs: Blobs = BlobClient(channel, token=token, policy=self._policy)

    async def get(self, request: pb.GetEntriesRequest) -> pb.GetEntriesResponse:
        """See `BoardLink`."""
        return await self._caller.call(self._stub.GetEntries, request)

    async def put(self, request: pb.PutEntriesRequest) -> pb.PutEntriesResponse:
        """See `BoardLink`."""
        return await self._caller.call(self._stub.PutEntries, request)

    async def delete(self, request: pb.DeleteEntriesRequest) -> pb.DeleteEntriesResponse:
        """See `BoardLink`."""
        return await self._caller.call(self._stub.DeleteEntries, request)

    async def list_page(self, request: pb.ListEntriesRequest) -> pb.ListEntriesResponse:
        """See `BoardLink`."""
        return await self._caller.call(self._stub.ListEntries, request)

    async def watch(
        self, request: pb.WatchEntriesRequest
    ) -> AsyncGenerator[pb.WatchEntriesResponse]:
        """See `BoardLink`."""
        listed: list[Entry] = []
        answers = resumed(
            self._stub.WatchEntries,
            request,
            metadata=self._metadata,
            policy=self._policy,
            before=listed.clear,
        )
        async with aclosing(answers):
            async for answer in answers:
                # Entries as they are come whole or, after a break among them, anew: what was told
                # and then deleted before it was listed again would be told of no more.
                listed += answer.changes
                if answer.revision or answer.ended:
                    del answer.changes[:]
                    answer.changes.extend(listed)
                    listed.clear()
                    yield answer


class CrossedBoards:
    """Implements BoardLink for another loop: bodies have one of their own, the channel has its."""

    def __init__(self, link: BoardLink, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self.blobs: Blobs = _CrossedBlobs(self)

    async def get(self, request: pb.GetEntriesRequest) -> pb.GetEntriesResponse:
        """See `BoardLink`."""
        return await self.cross(self._link.get(request))

    async def put(self, request: pb.PutEntriesRequest) -> pb.PutEntriesResponse:
        """See `BoardLink`."""
        return await self.cross(self._link.put(request))

    async def delete(self, request: pb.DeleteEntriesRequest) -> pb.DeleteEntriesResponse:
        """See `BoardLink`."""
        return await self.cross(self._link.delete(request))

    async def list_page(self, request: pb.ListEntriesRequest) -> pb.ListEntriesResponse:
        """See `BoardLink`."""
        return await self.cross(self._link.list_page(request))

    async def watch(
        self, request: pb.WatchEntriesRequest
    ) -> AsyncGenerator[pb.WatchEntriesResponse]:
        """See `BoardLink`."""
        answers = self._link.watch(request)
        try:
            while (answer := await self.cross(_next(answers))) is not None:
                yield answer
        finally:
            await self.cross(answers.aclose())

    async def cross(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Return what the work returns on the other loop; cancelled with its caller."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    @property
    def crossed_blobs(self) -> Blobs:
        """The blobs of the other loop."""
        return self._link.blobs


class _CrossedBlobs:
    def __init__(self, boards: CrossedBoards) -> None:
        self._boards = boards

    async def put(self, namespace: str, source: Source) -> BlobRef:
        return await self._boards.cross(self._boards.crossed_blobs.put(namespace, source))

    async def get(self, namespace: str, digest: bytes) -> bytes:
        return await self._boards.cross(self._boards.crossed_blobs.get(namespace, digest))


async def _next(
    answers: AsyncGenerator[pb.WatchEntriesResponse],
) -> pb.WatchEntriesResponse | None:
    return await anext(answers, None)
