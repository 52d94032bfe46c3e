"""What a blocking body sees of its attempt: the task context, for a thread.

Nothing can end a thread from outside. A body that is asked to stop learns it from `cancelled`, or
from TaskCancelled at its next `heartbeat`; until it returns it keeps its slot, whatever became of
its lease, and what it returns after the lease is gone is dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from stretto.run.v1 import plan_pb2

from stretto_sdk.sync_blackboard import SyncBlackboard
from stretto_sdk.worker.body_calls import BodyCalls
from stretto_sdk.worker.context import TaskContext
from stretto_sdk.worker.effects import StopKind
from stretto_sdk.worker.task_logger import TaskLogger

_NOTHING = object()


class TaskCancelled(BaseException):
    """The attempt was asked to stop. Let it through: what matters is cleaned up in `finally`.

    No Exception, so that `except Exception` does not take it for a failure of the work.
    """


class SyncTaskContext:
    """The first argument of a blocking task function; its fields are those of TaskContext.

    cancelled: set once the attempt is asked to stop, see `stop_reason`; `wait` on it to pause.

        >>> @worker.task
        ... def copy(ctx, files):
        ...     for index in range(ctx.last_details or 0, len(files)):
        ...         copy_one(files[index])
        ...         ctx.heartbeat(index + 1)
        ...     return len(files)
    """

    def __init__(self, context: TaskContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.cancelled = threading.Event()

    @property
    def run(self) -> str:
        """Name of the run (`namespaces/*/runs/*`)."""
        return self._context.run

    @property
    def task(self) -> str:
        """The task's name in its run."""
        return self._context.task

    @property
    def attempt(self) -> int:
        """Which try, from 1."""
        return self._context.attempt

    @property
    def activation(self) -> int:
        """Which life of the task, from 1."""
        return self._context.activation

    @property
    def epoch(self) -> int:
        """The fencing token of this attempt's lease."""
        return self._context.epoch

    @property
    def idempotency_key(self) -> str:
        """Names the activation: what it does once, no other try of it should do again."""
        return self._context.idempotency_key

    @property
    def inputs(self) -> Mapping[str, object]:
        """All inputs by name, as the function got them."""
        return self._context.inputs

    @property
    def last_details(self) -> Any:
        """What the attempt before said last in a heartbeat, or None."""
        return self._context.last_details

    @property
    def deadline(self) -> datetime | None:
        """Until when it may run (UTC): its attempt timeout, or sooner once it is asked to stop."""
        return self._context.deadline

    @property
    def stop_kind(self) -> StopKind | None:
        """How it is asked to stop, or None."""
        return self._context.stop_kind

    @property
    def stop_reason(self) -> str:
        """Why it is asked to stop."""
        return self._context.stop_reason

    @property
    def log(self) -> TaskLogger:
        """What it says of its work: `ctx.log("copied", count=3)`, shown by `stretto logs`."""
        return self._context.log

    def heartbeat(self, details: object = _NOTHING) -> None:
        """Record how far the work came, if details are given; then stop here if asked to.

        Cheap: call it as often as you like. The lease lives on without it.
        Raises TaskCancelled once the attempt is asked to stop; InvalidArgument for what is not JSON
        or above 64 KiB.

            >>> ctx.heartbeat({"row": 41})
        """
        if details is not _NOTHING:
            self._context.heartbeat(details)
        if self.cancelled.is_set():
            raise TaskCancelled(self.stop_reason)

    def spawn(self, tasks: Sequence[Mapping[str, Any] | plan_pb2.TaskSpec]) -> None:
        """Add tasks below this one; they are recorded when it returns, all or none.

        The same name and spec again changes nothing, so a later attempt may spawn them again.
        Raises InvalidArgument for a wrong form, SpawnRefused for what the kernel refuses.

            >>> ctx.spawn([{"name": "part-1", "executor": "python",
            ...             "arguments": {"function": "count"}, "inputs": {"part": 1}}])
        """
        asyncio.run_coroutine_threadsafe(self._context.spawn(tasks), self._loop).result()

    @property
    def blackboard(self) -> SyncBlackboard:
        """What the tasks of the run, and people, tell each other.

        A key that begins with a colon is in this task's own scope, where alone it may write. What
        is written under a lease that was passed on is refused (FailedPrecondition, LEASE_LOST). A
        `watch` that waits raises TaskCancelled once the attempt is asked to stop.

            >>> ctx.blackboard.put(":progress/percent", 50)
            >>> ready = ctx.blackboard.get("build:progress/percent")
        """
        context = self._context
        calls = BodyCalls(self._loop, context.cancelled, lambda: TaskCancelled(self.stop_reason))
        return SyncBlackboard(context.blackboard, calls)

    @property
    def board_revisions(self) -> Mapping[str, int]:
        """Of the blackboard's entries that inputs were taken from, by the input's name."""
        return self._context.board_revisions

    def artifact(
        self, name: str, source: Path | str | bytes, content_type: str | None = None
    ) -> None:
        """Leave a file behind with the result; it is stored when this returns.

        name: unique in the attempt, a relative path; the same name again replaces the file. source:
        the bytes, or the path of a file, 1 GiB at most, of which nothing is needed afterwards.
        content_type: guessed from the name if it is not given. The artifacts of an attempt that
        fails are dropped. Raises InvalidArgument, OSError, Unavailable.

            >>> ctx.artifact("report.pdf", Path("/tmp/report.pdf"))
        """
        storing = self._context.artifact(name, source, content_type)
        asyncio.run_coroutine_threadsafe(storing, self._loop).result()
