"""The work stream over gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from stretto.work.v1 import work_service_pb2 as wire
from stretto.work.v1 import work_service_pb2_grpc as services
from stretto_core.errors import Unavailable
from stretto_core.rpc.channel import credentials, open_channel
from stretto_core.rpc.retry import refusals
from stretto_core.telemetry.secret import Secret

from stretto_sdk.blobs import BlobClient
from stretto_sdk.board_link import GrpcBoards

APPEND_LOGS_S = 10.0


class GrpcLink:
    """One Work call."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, frame: wire.WorkRequest) -> None:
        """Write a frame. Raises Refusal when the stream has ended."""
        try:
            with refusals():
                await self._call.write(frame)
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            # What it ended with is the reader's to hear.
            raise Unavailable("the work stream has ended") from None

    async def receive(self) -> wire.WorkResponse:
        """Read a frame. Raises Refusal when the stream has ended, also when it ended well."""
        with refusals():
            frame = await self._call.read()
        if isinstance(frame, wire.WorkResponse):
            return frame
        raise Unavailable("the kernel ended the work stream")

    async def close(self) -> None:
        """Half-close and cancel."""
        self._call.cancel()


class GrpcDialer:
    """Opens work streams on one channel; reconnects by itself within 50 ms to 1 s.

    address: host:port of a kernel. Close it when the worker ends.
    """

    def __init__(self, address: str, token: Secret | None = None) -> None:
        self._channel = open_channel(address)
        self._stub = services.WorkServiceStub(self._channel)
        self._token = token
        self._metadata = credentials(token)

    async def dial(self) -> GrpcLink:
        """Start a Work call."""
        return GrpcLink(self._stub.Work(metadata=self._metadata))

    async def append_logs(self, request: wire.AppendLogsRequest) -> wire.AppendLogsResponse:
        """Deliver what bodies wrote; waits for a kernel that is away. Raises Refusal."""
        with refusals():
            return await self._stub.AppendLogs(
                request, metadata=self._metadata, timeout=APPEND_LOGS_S, wait_for_ready=True
            )

    def blobs(self) -> BlobClient:
        """Return the blobs of the kernel, over the same channel."""
        return BlobClient(self._channel, token=self._token)

    def boards(self) -> GrpcBoards:
        """Return the blackboards of the kernel, over the same channel."""
        return GrpcBoards(self._channel, token=self._token)

    async def close(self) -> None:
        """Close the channel and whatever stream is on it."""
        await self._channel.close()
