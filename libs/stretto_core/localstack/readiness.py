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
