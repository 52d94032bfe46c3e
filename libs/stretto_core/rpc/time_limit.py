"""How long calls may take whose callers name no deadline: one timer for all of them.

All have the same span, so they are due in the order they came: the timer is that of the oldest.
Belongs to the running loop; uses its time only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from stretto_core.errors import DeadlineExceeded

Answer = TypeVar("Answer")


class TimeLimit:
    """Ends what has taken `span_s` seconds."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._due_s: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def within(self, work: Awaitable[Answer]) -> Answer:
        """Await `work` in the running task, one at a time. Raises DeadlineExceeded."""
        task = asyncio.current_task()
        assert task is not None and task not in self._due_s
        loop = asyncio.get_running_loop()
        self._due_s[task] = due_s = loop.time() + self._span_s
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._ring)
        try:
            return await work
        except asyncio.CancelledError:
            # Still named: somebody else cancelled it, and means it.
            if task in self._due_s or task.uncancel() > 0:
                raise
            raise DeadlineExceeded(
                "the call took longer than a call without a deadline may"
            ) from None
        finally:
            self._due_s.pop(task, None)

    def _ring(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for task, due_s in list(self._due_s.items()):
            if due_s > now_s:
                self._timer = loop.call_at(due_s, self._ring)
                return
            del self._due_s[task]
            task.cancel()
