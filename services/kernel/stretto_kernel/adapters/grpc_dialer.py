"""Dials a worker's control address over gRPC to prove its process alive or gone."""

from __future__ import annotations

import asyncio

import grpc
from stretto.worker.v1 import worker_control_service_pb2 as pb
from stretto.worker.v1.worker_control_service_pb2_grpc import WorkerControlServiceStub
from stretto_core.ids import SessionId
from stretto_core.rpc.channel import open_channel

from stretto_kernel.dispatch.death_watch import DialResult

CONNECT_S = 0.5
ANSWER_S = 0.5


class GrpcDialer:
    """Asks WorkerControlService.Identify; tells a refused connection from silence."""

    async def identify(self, address: str) -> SessionId | DialResult:
        """See `WorkerDialer`."""
        refused = await self._is_refused(address)
        if refused is not None:
            return refused
        async with open_channel(address) as channel:
            try:
                answer = await WorkerControlServiceStub(channel).Identify(
                    pb.IdentifyRequest(), timeout=ANSWER_S
                )
            except grpc.aio.AioRpcError:
                return DialResult.NO_ANSWER
        return SessionId(answer.session_id)

    async def _is_refused(self, address: str) -> DialResult | None:
        """A plain connection first: gRPC reports refusal and silence with the same code."""
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            return DialResult.NO_ANSWER
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except ConnectionRefusedError:
            return DialResult.REFUSED
        except (OSError, TimeoutError, ValueError, OverflowError):  # Or it is no address at all.
            return DialResult.NO_ANSWER
        writer.close()
        return None
