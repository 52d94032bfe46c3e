"""Carries values of any size between the kernel and an executor, which sees only whole ones.

Stands between the runtime and one executor: inputs that are blobs are fetched before a body begins,
results and literals that are too large are put before its outcome leaves. The lease is renewed
meanwhile. Runs on the protocol's loop; parsing of what is large goes to a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial

import structlog
from stretto.common.v1 import payload_pb2
from stretto.common.v1.payload_pb2 import BlobRef
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto_core.errors import DeadlineExceeded, Exhausted, Refusal, Unavailable

from stretto_sdk.blobs import Source
from stretto_sdk.board_link import BoardLink
from stretto_sdk.value_sizes import INLINE_BYTES_MAX
from stretto_sdk.values import (
    Blobs,
    ValueTooLarge,
    ValueUnresolved,
    check_size,
    fetched,
    has_large_literals,
    is_stored,
    size_of,
    store_literals,
    stored,
)
from stretto_sdk.worker.effects import (
    Ending,
    LeaseKey,
    SpawnAnswered,
    Stop,
    StopKind,
    Stopped,
    Succeeded,
    key_of,
)
from stretto_sdk.worker.endings import failed
from stretto_sdk.worker.log_forwarder import TaskLogWriter
from stretto_sdk.worker.ports import Executor, Reports


@dataclass(slots=True)
class _Carried:
    """An attempt: its namespace, and what is fetched before its body or put after it."""

    namespace: str
    moving: asyncio.Task[None] | None = None
    body_ended: bool = False


class ValueCarrier:
    """An executor around another one, and the reports around the runtime's."""

    def __init__(self, executor: Executor, blobs: Blobs, boards: BoardLink | None = None) -> None:
        self._executor = executor
        self._blobs = blobs
        self._boards = boards
        self._carried: dict[LeaseKey, _Carried] = {}
        self._spawning: set[asyncio.Task[None]] = set()
        self._outer: Reports | None = None

    # As an executor.

    def attach(self, reports: Reports) -> None:
        """See `Executor`."""
        self._outer = reports
        self._executor.attach(self)

    def begin(self, assignment: work_pb2.Assignment) -> None:
        """Start the body, once its inputs are whole."""
        key = key_of(assignment.token)
        carried = self._carried[key] = _Carried(_namespace_of(assignment.run))
        if any(is_stored(value) for value in assignment.inputs.values()):
            self._move(key, carried, self._fetch(key, carried, assignment))
        else:
            self._executor.begin(assignment)

    def stop(self, stop: Stop) -> None:
        """Ask the body to stop; one whose inputs are still on their way never begins."""
        carried = self._carried.get(stop.key)
        if carried is None or carried.moving is None:
            self._executor.stop(stop)
        elif stop.kind is StopKind.REVOKE or not carried.body_ended:
            carried.moving.cancel()
            self._tell(stop.key, Stopped())

    def spawn_answered(self, answer: SpawnAnswered) -> None:
        """See `Executor`."""
        self._executor.spawn_answered(answer)

    async def close(self) -> None:
        """End what is under way, then the executor."""
        for carried in self._carried.values():
            if carried.moving is not None:
                carried.moving.cancel()
        for spawning in self._spawning:
            spawning.cancel()
        await self._executor.close()

    # As the executor's reports.

    def ended(self, key: LeaseKey, ending: Ending) -> None:
        """Pass the ending on, once what is too large in it is stored."""
        carried = self._carried.get(key)
        if carried is None:
            return
        if isinstance(ending, Succeeded) and _is_large(ending):
            carried.body_ended = True
            self._move(key, carried, self._store(key, carried, ending))
        else:
            self._tell(key, ending)

    def heartbeat(self, key: LeaseKey, details: payload_pb2.Payload) -> None:
        """See `Reports`."""
        self._reports.heartbeat(key, details)

    def spawn(self, key: LeaseKey, request_id: str, tasks: tuple[plan_pb2.TaskSpec, ...]) -> None:
        """Pass the tasks on, once what is too large in them is stored."""
        carried = self._carried.get(key)
        if carried is None or not has_large_literals(tasks):
            self._reports.spawn(key, request_id, tasks)
            return
        task = asyncio.create_task(self._store_spawn(key, carried.namespace, request_id, tasks))
        self._spawning.add(task)
        task.add_done_callback(self._spawning.discard)

    @property
    def boards(self) -> BoardLink:
        """See `Reports`."""
        return self._boards or self._reports.boards

    def task_log(self, key: LeaseKey) -> TaskLogWriter:
        """See `Reports`."""
        return self._reports.task_log(key)

    async def put_blob(self, key: LeaseKey, source: Source) -> BlobRef:
        """See `Reports`."""
        carried = self._carried.get(key)
        if carried is None:
            raise Unavailable("the attempt has ended")
        return await self._blobs.put(carried.namespace, source)

    @property
    def _reports(self) -> Reports:
        assert self._outer is not None, "attached before the first body"
        return self._outer

    def _move(self, key: LeaseKey, carried: _Carried, work: Coroutine[None, None, None]) -> None:
        carried.moving = asyncio.create_task(work, name=f"values-{key.work_item}")
        carried.moving.add_done_callback(partial(self._moved, key))

    def _moved(self, key: LeaseKey, moving: asyncio.Task[None]) -> None:
        """Whatever went wrong, an attempt has an end."""
        error = None if moving.cancelled() else moving.exception()
        if error is not None:
            log = structlog.get_logger("stretto.worker")
            log.error("values.failed", work_item=key.work_item, exc_info=error)
            self._tell(key, failed("INTERNAL", f"the worker failed: {type(error).__name__}"))

    def _tell(self, key: LeaseKey, ending: Ending) -> None:
        if self._carried.pop(key, None) is not None:
            self._reports.ended(key, ending)

    async def _fetch(
        self, key: LeaseKey, carried: _Carried, assignment: work_pb2.Assignment
    ) -> None:
        whole = work_pb2.Assignment()
        whole.CopyFrom(assignment)
        try:
            check_size(whole.inputs.values())
            for value in whole.inputs.values():
                value.CopyFrom(await fetched(self._blobs, carried.namespace, value))
        except Refusal as refusal:
            carried.moving = None
            self._tell(key, _not_fetched(refusal))
            return
        carried.moving = None
        self._executor.begin(whole)

    async def _store(self, key: LeaseKey, carried: _Carried, ending: Succeeded) -> None:
        namespace = carried.namespace
        try:
            result = ending.result
            if result is not None:
                result = await stored(self._blobs, namespace, result)
            tasks = await self._with_stored_literals(namespace, ending.spawned)
        except Refusal as refusal:
            self._tell(key, _not_stored(refusal))
        else:
            self._tell(key, replace(ending, result=result, spawned=tasks))

    async def _store_spawn(
        self,
        key: LeaseKey,
        namespace: str,
        request_id: str,
        tasks: tuple[plan_pb2.TaskSpec, ...],
    ) -> None:
        try:
            tasks = await self._with_stored_literals(namespace, tasks)
        except Refusal as refusal:
            answer = SpawnAnswered(key, request_id, refusal.reason_word, refusal.message)
            self._executor.spawn_answered(answer)
            return
        if key in self._carried:
            self._reports.spawn(key, request_id, tasks)

    async def _with_stored_literals(
        self, namespace: str, tasks: tuple[plan_pb2.TaskSpec, ...]
    ) -> tuple[plan_pb2.TaskSpec, ...]:
        if not has_large_literals(tasks):
            return tasks
        copies = []
        for task in tasks:
            copy = plan_pb2.TaskSpec()
            copy.CopyFrom(task)
            copies.append(copy)
        await store_literals(self._blobs, namespace, copies)
        return tuple(copies)


def _namespace_of(run: str) -> str:
    return run.removeprefix("namespaces/").partition("/")[0]


def _is_large(ending: Succeeded) -> bool:
    large = ending.result is not None and size_of(ending.result) > INLINE_BYTES_MAX
    return large or has_large_literals(ending.spawned)


def _may_pass(refusal: Refusal) -> bool:
    """Whether another attempt may meet a kernel that is there, has room, and answers in time."""
    return isinstance(refusal, Unavailable | Exhausted | DeadlineExceeded)


def _not_fetched(refusal: Refusal) -> Ending:
    """A blob that is not there, or a part of it that is not, does not come by waiting."""
    if isinstance(refusal, ValueUnresolved | ValueTooLarge):
        return failed(refusal.reason_word, refusal.message)
    passing = _may_pass(refusal)
    reason = "INPUT_UNAVAILABLE" if passing else "BLOB_MISSING"
    return failed(reason, f"An input could not be got: {refusal.message}", retryable=passing)


def _not_stored(refusal: Refusal) -> Ending:
    if refusal.reason_word == "PAYLOAD_TOO_LARGE":
        return failed("RESULT_TOO_LARGE", refusal.message)
    message = f"The result could not be stored: {refusal.message}"
    return failed("RESULT_NOT_STORED", message, retryable=_may_pass(refusal))
