"""How a task of the loop that carries a body ended, also when it is we who are wrong."""

from __future__ import annotations

import asyncio

import structlog
from stretto_sdk.worker.effects import Ending, LeaseKey, Stopped
from stretto_sdk.worker.endings import failed


def ending_of_task(executor: str, key: LeaseKey, task: asyncio.Task[Ending]) -> Ending:
    """Return what an ended task returned; whatever became of it, an attempt has an end."""
    if task.cancelled():
        return Stopped()
    error = task.exception()
    if error is None:
        return task.result()
    # A bug of ours; its text may hold anything, so only its name leaves this process.
    log = structlog.get_logger("stretto.worker")
    log.error(f"{executor}.failed", work_item=key.work_item, error=type(error).__name__)
    return failed("INTERNAL", f"the worker failed: {type(error).__name__}")
