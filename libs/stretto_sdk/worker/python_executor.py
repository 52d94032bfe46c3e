"""The `python` executor: runs functions as bodies, `async def` on a loop, blocking ones in threads.

arguments_json: {"function": NAME}, a registered name or, where the worker allows it, `module:name`.
The function is called with the context and the inputs by name; what it returns is the result. Two
loops meet here: `begin`, `stop` and the like run on the protocol's, everything named `_body_*` on
the bodies'. Calls cross in batches: one wake-up of the other loop takes everything waiting.
A blocking body is a task of the bodies' loop that awaits its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from stretto.common.v1 import payload_pb2
from stretto.common.v1.payload_pb2 import Artifact, BlobRef
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.errors import Refusal
from stretto_core.ids import IdSource

from stretto_sdk.blackboard import Blackboard
from stretto_sdk.blobs import Source
from stretto_sdk.board_link import CrossedBoards
from stretto_sdk.value_sizes import BLOB_BYTES_MAX
from stretto_sdk.worker.bodies import BodyLoop, Call, Mailbox
from stretto_sdk.worker.body_threads import BodyThreads
from stretto_sdk.worker.context import SpawnRefused, TaskContext, TaskResult, task_specs
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
from stretto_sdk.worker.endings import ending_of_error, failed, payload_of, value_of
from stretto_sdk.worker.functions import FunctionTable, TaskFunction
from stretto_sdk.worker.ports import Reports
from stretto_sdk.worker.sync_context import SyncTaskContext, TaskCancelled
from stretto_sdk.worker.task_logger import TaskLogger, enter


@dataclass(slots=True)
class _Body:
    task: asyncio.Task[None]
    context: TaskContext | None = None
    function: TaskFunction | None = None
    stop: Stop | None = None
    deadline: asyncio.TimerHandle | None = None
    cancelled: threading.Event | None = None


class PythonExecutor:
    """Runs the functions of a table as bodies; at most `slot_count` of them block at once."""

    def __init__(
        self,
        functions: FunctionTable,
        *,
        bodies: BodyLoop,
        slot_count: int,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._functions = functions
        self._body_loop = bodies
        self._threads = BodyThreads(slot_count)
        self._clock = clock
        self._ids = ids
        self._bodies: dict[LeaseKey, _Body] = {}
        self._spawns: dict[str, asyncio.Future[SpawnAnswered]] = {}
        self._inward = Mailbox(bodies.post)
        self._outward = Mailbox(self._post_out)
        self._reports: Reports | None = None
        self._protocol_loop: asyncio.AbstractEventLoop | None = None

    # On the protocol's loop.

    def attach(self, reports: Reports) -> None:
        """Remember whom to report to."""
        self._reports = reports

    def begin(self, assignment: work_pb2.Assignment) -> None:
        """Start a body on the bodies' loop."""
        self._protocol_loop = asyncio.get_running_loop()
        self._inward.put(partial(self._body_begin, assignment))

    def stop(self, stop: Stop) -> None:
        """Ask a body to stop."""
        self._inward.put(partial(self._body_stop, stop))

    def spawn_answered(self, answer: SpawnAnswered) -> None:
        """Let the body that asked go on."""
        self._inward.put(partial(self._body_spawn_answered, answer))

    async def close(self) -> None:
        """Cancel every body and stop their loop; a blocking body ends when it returns."""
        self._threads.close()
        await self._body_loop.close()

    # On the bodies' loop.

    def _post_out(self, call: Call) -> None:
        assert self._protocol_loop is not None, "a body was begun on it"
        # Its end takes the stream with it: then nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            self._protocol_loop.call_soon_threadsafe(call)

    def _body_begin(self, assignment: work_pb2.Assignment) -> None:
        key = key_of(assignment.token)
        task = asyncio.get_running_loop().create_task(self._body_run(assignment))
        self._bodies[key] = _Body(task)

    async def _body_run(self, assignment: work_pb2.Assignment) -> None:
        key = key_of(assignment.token)
        try:
            ending = await self._body_ending(key, assignment)
        except (asyncio.CancelledError, TaskCancelled):
            ending = Stopped()
        # Whatever a body raises or returns is how its attempt ended; `sys.exit` ends no worker.
        except BaseException as error:
            ending = ending_of_error(error)
        body = self._bodies.pop(key)
        if body.deadline is not None:
            body.deadline.cancel()
        assert self._reports is not None, "attached before the first body"
        self._outward.put(partial(self._reports.ended, key, ending))

    async def _body_ending(self, key: LeaseKey, assignment: work_pb2.Assignment) -> Ending:
        try:
            function = self._functions.find(assignment.arguments_json)
            context = self._context(key, assignment)
            function.check_inputs(context.inputs)
        except Refusal as refusal:
            reason = refusal.reason_word
            wrong = "INVALID_ARGUMENTS" if reason == "INVALID_ARGUMENT" else reason
            return failed(wrong, refusal.message)
        body = self._bodies[key]
        body.context, body.function = context, function
        enter(context.log)
        if body.stop is not None:
            self._body_stop(body.stop)  # It came before the body could hear of it.
        if function.blocking:
            if context.cancelled.is_set():
                return Stopped()
            returned = await self._in_thread(body, context, function)
        else:
            returned = await function.function(context, **context.inputs)
        return _ending_of_value(returned, context.artifacts)

    async def _in_thread(self, body: _Body, context: TaskContext, function: TaskFunction) -> object:
        """Call a blocking function. Cancelling this waits for it no longer, and ends nothing."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[object] = loop.create_future()
        told = SyncTaskContext(context, loop)
        body.cancelled = told.cancelled

        def settle(value: object, error: BaseException | None) -> None:
            if ended.done():
                return  # The executor is closing.
            if error is None:
                ended.set_result(value)
            else:
                ended.set_exception(_carried(error))

        def run() -> None:
            value, error = None, None
            try:
                value = copied.run(function.function, told, **context.inputs)
            except BaseException as raised:
                error = raised
            # The loop may have closed while the body went on: then nobody is left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, value, error)

        copied = contextvars.copy_context()
        self._threads.start(run)
        return await ended

    def _context(self, key: LeaseKey, assignment: work_pb2.Assignment) -> TaskContext:
        assert self._reports is not None, "attached before the first body"
        has_details = assignment.HasField("last_details")
        last = value_of(assignment.last_details, source="details") if has_details else None
        return TaskContext(
            key=key,
            run=assignment.run,
            task=assignment.task,
            attempt=assignment.attempt,
            activation=assignment.activation,
            inputs={
                name: value_of(payload, source=f"input {name}")
                for name, payload in assignment.inputs.items()
            },
            last_details=last,
            deadline=_instant(assignment.attempt_deadline_time.ToNanoseconds())
            if assignment.HasField("attempt_deadline_time")
            else None,
            port=self,
            log=TaskLogger(self._reports.task_log(key), self._outward.put),
            token=assignment.token,
            board_revisions=dict(assignment.board_revisions),
        )

    def _body_stop(self, stop: Stop) -> None:
        body = self._bodies.get(stop.key)
        if body is None:
            return
        body.stop = stop
        context, function = body.context, body.function
        if context is None or function is None:
            if stop.kind is StopKind.REVOKE:
                body.task.cancel()
            return
        context.stop_kind, context.stop_reason = stop.kind, stop.reason
        if stop.deadline_ns is not None:
            asked = _instant(stop.deadline_ns)
            context.deadline = min(context.deadline or asked, asked)
        context.cancelled.set()
        if function.blocking:
            if body.cancelled is not None:
                body.cancelled.set()
            return
        if body.deadline is not None:
            body.deadline.cancel()
            body.deadline = None
        if not function.cooperative or stop.kind is StopKind.REVOKE:
            body.task.cancel()
        elif stop.deadline_ns is not None:
            delay_s = max(0.0, (stop.deadline_ns - self._clock.now_ns()) / NS_PER_S)
            loop = asyncio.get_running_loop()
            body.deadline = loop.call_later(delay_s, body.task.cancel)

    def _body_spawn_answered(self, answer: SpawnAnswered) -> None:
        waiting = self._spawns.pop(answer.request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # What a context asks for, on the bodies' loop (a heartbeat also from a thread of the body's).

    def heartbeat(self, key: LeaseKey, details: object) -> None:
        """Pass newest details on. Raises InvalidArgument when they are no payload."""
        payload: payload_pb2.Payload = payload_of(details, source="the heartbeat's details")
        assert self._reports is not None, "attached before the first body"
        self._outward.put(partial(self._reports.heartbeat, key, payload))

    def blackboard(self, context: TaskContext) -> Blackboard:
        """Return the blackboard as the attempt sees it; the connection is the protocol's."""
        reports, protocol_loop = self._reports, self._protocol_loop
        assert reports is not None, "attached before the first body"
        assert protocol_loop is not None, "a body was begun on it"
        return Blackboard(
            lambda: CrossedBoards(reports.boards, protocol_loop),
            context.run,
            new_id=self._ids.uuid7,
            scope=context.task,
            token=context.token,
        )

    async def put_blob(self, key: LeaseKey, source: Source) -> BlobRef:
        """Store bytes or a file; the connection is the protocol's. Raises Refusal, OSError."""
        assert self._reports is not None, "attached before the first body"
        assert self._protocol_loop is not None, "a body was begun on it"
        putting = self._reports.put_blob(key, source)
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(putting, self._protocol_loop)
        )

    async def spawn(self, key: LeaseKey, tasks: tuple[plan_pb2.TaskSpec, ...]) -> None:
        """Return when the kernel has recorded the tasks. Raises SpawnRefused."""
        request_id = self._ids.uuid7()
        waiting = asyncio.get_running_loop().create_future()
        self._spawns[request_id] = waiting
        assert self._reports is not None, "attached before the first body"
        self._outward.put(partial(self._reports.spawn, key, request_id, tasks))
        try:
            answer: SpawnAnswered = await waiting
        finally:
            self._spawns.pop(request_id, None)
        if answer.reason:
            raise SpawnRefused(answer.message or answer.reason, reason=answer.reason)


def _instant(instant_ns: int) -> datetime:
    return datetime.fromtimestamp(instant_ns / NS_PER_S, UTC)


def _carried(error: BaseException) -> BaseException:
    """Return an exception of a thread as one that a future takes: StopIteration is its own word."""
    if isinstance(error, StopIteration):
        return RuntimeError("the function raised StopIteration")
    return error


def _ending_of_value(returned: object, artifacts: Mapping[str, Artifact]) -> Ending:
    if inspect.iscoroutine(returned):
        returned.close()
        return failed("INVALID_RESULT", "a plain function returned a coroutine: make it async def")
    result = returned if isinstance(returned, TaskResult) else TaskResult(returned)
    try:
        payload = None
        if result.output is not None:
            payload = payload_of(result.output, source="the result", bytes_max=BLOB_BYTES_MAX)
        return Succeeded(payload, task_specs(result.spawn), tuple(artifacts.values()))
    except Refusal as refusal:
        large = refusal.reason_word == "PAYLOAD_TOO_LARGE"
        return failed("RESULT_TOO_LARGE" if large else "INVALID_RESULT", refusal.message)
