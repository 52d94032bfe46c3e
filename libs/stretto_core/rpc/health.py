"""The standard health service (grpc.health.v1): one status per service, and one for the whole.

Nothing is SERVING until `set_serving` says so; a drain turns all to NOT_SERVING before the port
closes.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from stretto_core.rpc.status import from_rpc_error

WHOLE = ""
"""The name under which the health of the whole process is asked."""


class HealthBoard:
    """The statuses of a server's services."""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()
        self._names: list[str] = [WHOLE]

    async def watch_over(self, names: Iterable[str]) -> None:
        """Take services on, NOT_SERVING."""
        self._names.extend(names)
        await self.set_serving(serving=False)

    async def set_serving(self, *, serving: bool, service: str | None = None) -> None:
        """Say whether a service (None: all, and the whole) serves; watchers are told."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in self._names if service is None else [service]:
            await self.servicer.set(name, status)

    async def drain(self) -> None:
        """Turn everything to NOT_SERVING for good."""
        await self.servicer.enter_graceful_shutdown()


async def is_serving(
    channel: grpc.aio.Channel, service: str = WHOLE, timeout_ms: int = 2_000
) -> bool:
    """Ask a server once whether it serves; raises the refusal when it cannot be asked."""
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    try:
        answer = await stub.Check(request, timeout=timeout_ms / 1_000)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
