"""Probes that say whether a child answers; each gives False, or raises OSError, for "not yet"."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


def tcp_open(host: str, port: int) -> Callable[[int], Awaitable[bool]]:
    """Return a probe that is True once something accepts connections at the address."""

    async def probe(_pid: int) -> bool:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    return probe


def grpc_serving(target: str, service: str = "") -> Callable[[int], Awaitable[bool]]:
    """Return a probe that is True once `target`'s health service says SERVING for `service`."""

    async def probe(_pid: int) -> bool:
        # gRPC is loaded at the first question: the supervisor is up before it needs it.
        from stretto_core.errors import Refusal  # noqa: PLC0415
        from stretto_core.rpc.channel import open_channel  # noqa: PLC0415
        from stretto_core.rpc.health import is_serving  # noqa: PLC0415

        async with open_channel(target) as channel:
            try:
                return await is_serving(channel, service)
            except Refusal:
                return False

    return probe
