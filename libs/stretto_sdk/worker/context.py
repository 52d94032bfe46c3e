"""What a task's body sees of the attempt it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Artifact, BlobRef
from stretto.run.v1 import plan_pb2
from stretto_core.errors import Refusal

from stretto_sdk.blackboard import Blackboard
from stretto_sdk.blobs import Source
from stretto_sdk.plan_form import parse_tasks
from stretto_sdk.worker.artifacts import artifact_of, check_artifact_name
from stretto_sdk.worker.effects import LeaseKey, StopKind
from stretto_sdk.worker.task_logger import TaskLogger


class SpawnRefused(Refusal):
    """The kernel refused to add the tasks: `reason_word` says why; none of them was added."""

    reason = "SPAWN_REFUSED"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A result with tasks to add below the task, recorded together with it or not at all.

    tasks: in the form of a plan's `tasks`, or TaskSpec messages.

        >>> return TaskResult(len(files), spawn=[{"name": "count", "executor": "python", ...}])
    """

    output: object = None
    spawn: Sequence[Mapping[str, Any] | plan_pb2.TaskSpec] = ()


class ContextPort(Protocol):
    """What a context needs of its executor; called on the bodies' loop."""

    def heartbeat(self, key: LeaseKey, details: object) -> None:
        """Pass the newest details on."""
        ...

    async def spawn(self, key: LeaseKey, tasks: tuple[plan_pb2.TaskSpec, ...]) -> None:
        """Return when the tasks are recorded. Raises SpawnRefused."""
        ...

    def blackboard(self, context: TaskContext) -> Blackboard:
        """Return the blackboard as an attempt sees it. Raises Unimplemented."""
        ...

    async def put_blob(self, key: LeaseKey, source: Source) -> BlobRef:
        """Return when the bytes are stored. Raises Refusal, OSError."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class TaskContext:
    """The first argument of every task function: the attempt it runs in.

    run: name of the run (`namespaces/*/runs/*`). task: the task's name in it.
    attempt: which try, from 1. activation: which life of the task, from 1.
    epoch: the fencing token, for receivers that compare it.
    idempotency_key: the same for every try of one activation, for what must not happen twice.
    inputs: all inputs by name, as the function got them.
    last_details: what the attempt before said last in a heartbeat, or None.
    log: what it says of its work, `ctx.log("copied", count=3)`: shown by `stretto logs`.
    deadline: until when it may run (UTC): its attempt timeout, or sooner once it is asked to stop.
    cancelled: set once the attempt is asked to stop, see `stop_reason`.
    artifacts: what it leaves behind so far, see `artifact`.
    board_revisions: of the entries that inputs were taken from, by the input's name.

        >>> @worker.task
        ... async def copy(ctx, files):
        ...     for index in range(ctx.last_details or 0, len(files)):
        ...         await copy_one(files[index])
        ...         ctx.heartbeat(index + 1)
        ...     return len(files)
    """

    key: LeaseKey
    run: str
    task: str
    attempt: int
    activation: int
    inputs: Mapping[str, object]
    last_details: Any
    port: ContextPort = field(repr=False)
    log: TaskLogger = field(repr=False)
    token: LeaseToken = field(default_factory=LeaseToken, repr=False)
    board_revisions: Mapping[str, int] = field(default_factory=dict)
    deadline: datetime | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    stop_kind: StopKind | None = None
    stop_reason: str = ""
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The fencing token of this attempt's lease."""
        return self.key.epoch

    @property
    def idempotency_key(self) -> str:
        """Names the activation: what it does once, no other try of it should do again."""
        return idempotency_key(self.run, self.task, self.activation)

    def heartbeat(self, details: object) -> None:
        """Record how far the work came: the next attempt finds the newest in `last_details`.

        Cheap: call it as often as you like; at most two a second leave the process. The lease
        lives on without it. Raises InvalidArgument for what is not JSON or above 64 KiB.

            >>> ctx.heartbeat({"row": 41})
        """
        self.port.heartbeat(self.key, details)

    async def spawn(self, tasks: Sequence[Mapping[str, Any] | plan_pb2.TaskSpec]) -> None:
        """Add tasks below this one; they are recorded when it returns, all or none.

        The same name and spec again changes nothing, so a later attempt may spawn them again.
        Raises InvalidArgument for a wrong form, SpawnRefused for what the kernel refuses.

            >>> await ctx.spawn([{"name": "part-1", "executor": "python",
            ...                   "arguments": {"function": "count"}, "inputs": {"part": 1}}])
        """
        await self.port.spawn(self.key, task_specs(tasks))

    @property
    def blackboard(self) -> Blackboard:
        """What the tasks of the run, and people, tell each other.

        A key that begins with a colon is in this task's own scope, where alone it may write. What
        is written under a lease that was passed on is refused (FailedPrecondition, LEASE_LOST).

            >>> await ctx.blackboard.put(":progress/percent", 50)
            >>> ready = await ctx.blackboard.get("build:progress/percent")
        """
        return self.port.blackboard(self)

    async def artifact(
        self, name: str, source: Path | str | bytes, content_type: str | None = None
    ) -> None:
        """Leave a file behind with the result; it is stored when this returns.

        name: unique in the attempt, a relative path; the same name again replaces the file. source:
        the bytes, or the path of a file, 1 GiB at most, of which nothing is needed afterwards.
        content_type: guessed from the name if it is not given. The artifacts of an attempt that
        fails are dropped. Raises InvalidArgument, OSError, Unavailable.

            >>> await ctx.artifact("report.pdf", Path("/tmp/report.pdf"))
        """
        check_artifact_name(name, self.artifacts)
        content = Path(source) if isinstance(source, str) else source
        blob = await self.port.put_blob(self.key, content)
        self.artifacts[name] = artifact_of(name, blob, content_type)


def idempotency_key(run: str, task: str, activation: int) -> str:
    """Return what names one activation of a task for ever."""
    return f"{run}/tasks/{task}@{activation}"


def task_specs(
    tasks: Sequence[Mapping[str, Any] | plan_pb2.TaskSpec],
) -> tuple[plan_pb2.TaskSpec, ...]:
    """Return tasks as the contract has them. Raises InvalidArgument with every mistake."""
    return tuple(
        each if isinstance(each, plan_pb2.TaskSpec) else parse_tasks([each], source="the spawn")[0]
        for each in tasks
    )
