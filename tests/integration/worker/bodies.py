"""Functions that a worker process imports for its tests."""

from __future__ import annotations

import asyncio
import threading

from stretto_sdk import SyncTaskContext, TaskContext


async def block_a_thread(ctx: TaskContext) -> None:
    """Wait in a thread that no cancellation reaches."""
    ctx.heartbeat("blocking")
    await asyncio.to_thread(threading.Event().wait)


def add_in_a_thread(ctx: SyncTaskContext, left: int, right: int) -> int:
    """Add two numbers, not on the bodies' loop."""
    assert threading.current_thread().name.startswith("stretto-body-")
    return left + right
