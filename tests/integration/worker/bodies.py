"""Functions that a worker process imports for its tests."""

from __future__ import annotations

import asyncio
import threading

from stretto_sdk import TaskContext


async def block_a_thread(ctx: TaskContext) -> None:
    """Wait in a thread that no cancellation reaches."""
    ctx.heartbeat("blocking")
    await asyncio.to_thread(threading.Event().wait)
