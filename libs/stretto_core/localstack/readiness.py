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


def nats_named(host: str, port: int, server_name: str) -> Callable[[int], Awaitable[bool]]:
    """Return a probe that is True once the NATS server of that name greets at the address."""

    async def probe(_pid: int) -> bool:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            async with asyncio.timeout(1):
                # A server says who it is before anything is asked of it.
                greeting = await reader.readline()
        except (TimeoutError, ValueError):
            return False
        finally:
            writer.close()
        return f'"server_name":"{server_name}"'.encode() in greeting

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
