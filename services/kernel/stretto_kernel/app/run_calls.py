"""What can be asked of runs, one function per command or read: load, decide, append, answer.

Values come in parsed; protobuf resources go out as they stood at the answered version. Knows no
gRPC.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import run_pb2
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.eventlog.codec import Cause
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import (
    IdSource,
    Namespace,
    Partition,
    RequestId,
    RunId,
    TaskName,
    derive_run_id,
)

from stretto_kernel.app.asking import Answered, Asked, Decided, Finder, answered, ask, put
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.confidential import reveal
from stretto_kernel.app.fact_bytes import check_fact_bytes
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.app.in_parts import in_parts
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.app.presence import RunPresence
from stretto_kernel.app.run_keys import StartKeys
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.domain.run import RunState, decide, evolve, new_run
from stretto_kernel.domain.run.blob_names import BlobName, in_graph, in_payload, in_tasks
from stretto_kernel.domain.run.commands import AddTasks, Command, StartRun
from stretto_kernel.domain.run.judging import judging_graph, judging_tasks
from stretto_kernel.domain.run.parts import has_parts
from stretto_kernel.domain.run.refusals import RunNotFound
from stretto_kernel.domain.run.resource import to_run, to_task

Shown = TypeVar("Shown", run_pb2.Run, run_pb2.Task)
WaitReasonOf = Callable[[HostedRun, TaskName], run_pb2.WaitReason.ValueType]


class Caller(NamedTuple):
    """Who calls, and under which idempotency key.

    request_digest: 32 bytes over the parsed request; both empty for a read.
    """

    principal: Principal
    request_id: str = ""
    request_digest: bytes = b""
    traceparent: str = ""


class RunStart(NamedTuple):
    """A start as parsed."""

    namespace: Namespace
    command: StartRun
    caller: Caller


class TaskPage(NamedTuple):
    """Some tasks in the order they came to be, and where the next page begins (None: nowhere)."""

    tasks: list[run_pb2.Task]
    next_index: int | None
    version: int


class RunCalls:
    """The calls on the runs of one ownership of a partition."""

    def __init__(
        self,
        host: StreamHost,
        presence: RunPresence,
        clock: Clock,
        ids: IdSource,
        *,
        partition: Partition,
        blobs: BlobCalls,
        keys: StartKeys,
        wait_reason: WaitReasonOf,
    ) -> None:
        self._host = host
        self._presence = presence
        self._clock = clock
        self._ids = ids
        self._partition = partition
        self._blobs = blobs
        self._keys = keys
        self._wait_reason = wait_reason

    def run_id_of(self, namespace: Namespace, request_id: RequestId) -> RunId:
        """The id of the run that a start with this request id begins."""
        return derive_run_id(self._partition, namespace, request_id)

    async def start_run(
        self, namespace: Namespace, command: StartRun, caller: Caller
    ) -> Answered[run_pb2.Run]:
        """Accept a run, or answer like the first time when the same request began it before.

        Raises RequestIdReused, BlobMissing, and InvalidArgument or Unimplemented for a plan that is
        wrong.
        """
        start = RunStart(namespace, command, caller)
        asked = self.put_start(start)
        if asked is not None:
            return await self.started(start, asked)
        start = start._replace(command=await _judged(command))
        if blobs_in_start(command):
            await self._require_blobs(start)
        return await ask(self._host, self._start_finder(start), partial(self._start, start))

    def put_start(self, start: RunStart) -> Asked[run_pb2.Run] | None:
        """Decide a start at once; None when it is large, or something has to be looked up first.

        Raises what `start_run` does, for a plan that is wrong.
        """
        if has_parts(start.command.graph.tasks) or blobs_in_start(start.command):
            return None
        run_id = self.run_id_of(start.namespace, start.command.request_id)
        run = self._host.find(run_id)
        if run is None:
            if not self._presence.is_surely_new(run_id) or self._keys.encrypts(start.namespace):
                return None
            run = self._host.create(run_id, start.namespace, start.caller.principal)
        return put(self._host, run, partial(self._start, start))

    async def started(self, start: RunStart, asked: Asked[run_pb2.Run]) -> Answered[run_pb2.Run]:
        """Answer a start that was put. Raises what `start_run` does."""
        try:
            return await answered(self._host.facts, asked)
        except DecidedAgain:
            find, question = self._start_finder(start), partial(self._start, start)
            return await ask(self._host, find, question, dropped_count=1)

    def _start_finder(self, start: RunStart) -> Finder[HostedRun]:
        run_id = self.run_id_of(start.namespace, start.command.request_id)

        async def find(dropped_count: int) -> HostedRun:
            run = self._host.find(run_id)
            if run is not None:
                return run
            # After a drop nothing is guessed: the guess may be what failed.
            if await self._is_taken(run_id, guess=dropped_count == 0):
                return await self._host.load(run_id)
            key = await self._keys.make(start.namespace, run_id)
            run = self._host.find(run_id)  # Somebody may have begun it during the look-up.
            return run or self._host.create(
                run_id, start.namespace, start.caller.principal, key=key
            )

        return find

    async def _is_taken(self, run_id: RunId, *, guess: bool = True) -> bool:
        """Whether a run began under the id. guess: that it is new may be taken from its time."""
        if guess and self._presence.is_surely_new(run_id):
            return False
        return await self._presence.exists(run_id)

    async def _require_blobs(self, start: RunStart) -> None:
        """Renew what a start names; a repeated one names nothing new, and gets no key again."""
        run_id = self.run_id_of(start.namespace, start.command.request_id)
        if self._host.find(run_id) is not None or await self._is_taken(run_id):
            return
        if self._keys.encrypts(start.namespace):
            # A start that is refused leaves no run that could be shredded: it shall hold no key of
            # a blob, which would go on opening it for ever.
            await self._check_start(start.namespace, start.command)
        key = await self._keys.make(start.namespace, run_id)
        blobs = blobs_in_start(start.command)
        await self._blobs.require(start.namespace, blobs, 0 if key is None else key.key_id)

    def _start(self, start: RunStart, run: HostedRun) -> Decided[run_pb2.Run]:
        own_facts = self._host.take(run, start.command, self.cause(run, start.caller))
        self._presence.note_started(run.run_id)
        return Decided(self._show(run, with_input=False), own_facts)

    async def validate_start(
        self, namespace: Namespace, command: StartRun, caller: Caller
    ) -> run_pb2.Run:
        """Check a start, store nothing, and return the run as it would be."""
        state = await self._check_start(namespace, await _judged(command))
        return to_run(state, command.now_ns, creator=caller.principal, with_input=False)

    async def _check_start(self, namespace: Namespace, command: StartRun) -> RunState:
        """Return the run as it would be. Raises what `start_run` does, but for repeated ones."""
        blobs = blobs_in_start(command)
        await self._blobs.require(namespace, blobs, needs_key=self._keys.encrypts(namespace))
        state = new_run(self.run_id_of(namespace, command.request_id), namespace)
        facts = decide(state, command)
        check_fact_bytes(facts)
        for version, event in enumerate(facts, start=1):
            evolve(state, Recorded(event, version, command.now_ns, command.request_id))
        return state

    def show_end(self, run: HostedRun) -> run_pb2.Run:
        """The run as `wait_ended` answers it."""
        return self._show(run, with_input=False)

    async def wait_ended(
        self, namespace: Namespace, run_id: RunId, timeout_ns: int
    ) -> Answered[run_pb2.Run]:
        """Return the run once it has ended, or as it is when `timeout_ns` has passed."""
        try:
            async with asyncio.timeout(timeout_ns / NS_PER_S):
                while True:
                    run = await self._host.load(run_id)
                    # An end that came after the question is proven by its own commit. An older one
                    # may have been retried under another owner since.
                    came_after = not run.has_ended
                    await self._host.until_end(run)
                    if not run.has_ended:
                        continue
                    shown = self._show(run, with_input=False)
                    try:
                        await self._host.facts.answered(run, run.decided, own_facts=came_after)
                    except DecidedAgain:
                        continue
                    return Answered(shown, run.position)
        except TimeoutError:
            return await self.get_run(namespace, run_id, with_input=False)

    async def get_run(
        self, namespace: Namespace, run_id: RunId, *, with_input: bool = True
    ) -> Answered[run_pb2.Run]:
        """Read a run as of its newest committed fact. Raises RunNotFound."""

        def question(run: HostedRun) -> Decided[run_pb2.Run]:
            return Decided(self._show(run, with_input=with_input), own_facts=False)

        return await ask(self._host, self.finder(namespace, run_id), question)

    async def steer_run(
        self, namespace: Namespace, run_id: RunId, command: Command, caller: Caller
    ) -> Answered[run_pb2.Run]:
        """Decide a client's command on a run: hold, lift, cancel, kill, retry, add tasks.

        Raises RunNotFound, BlobMissing and what the decider refuses.
        """
        if isinstance(command, AddTasks):
            blobs = frozenset(in_tasks(command.tasks))
            run = await self.find(namespace, run_id)
            if not run.is_shredded:
                await self._blobs.require(namespace, blobs, run.state.key_id)
            judged = await in_parts(judging_tasks("tasks", command.tasks))
            command = replace(command, judged=judged)

        def question(run: HostedRun) -> Decided[run_pb2.Run]:
            own_facts = self._host.take(run, command, self.cause(run, caller))
            return Decided(self._show(run, with_input=False), own_facts)

        return await ask(self._host, self.finder(namespace, run_id), question)

    async def list_tasks(
        self, namespace: Namespace, run_id: RunId, *, first_index: int, count_max: int
    ) -> TaskPage:
        """Read some of the run's tasks. Raises RunNotFound."""

        def question(run: HostedRun) -> Decided[TaskPage]:
            task_count = len(run.state.tasks)
            first = min(first_index, task_count)
            names = itertools.islice(run.state.tasks, first, min(first + count_max, task_count))
            tasks = [self.show_task(run, name) for name in names]
            del tasks[count_within((task.ByteSize() for task in tasks), PAGE_BYTES_MAX) :]
            end = first + len(tasks)
            next_index = end if end < task_count else None
            return Decided(TaskPage(tasks, next_index, run.decided), own_facts=False)

        answered = await ask(self._host, self.finder(namespace, run_id), question)
        return answered.answer

    async def find(self, namespace: Namespace, run_id: RunId) -> HostedRun:
        """The run in memory. Raises RunNotFound, also when it is another tenant's."""
        run = await self._host.load(run_id)
        if run.namespace != namespace:
            raise RunNotFound(run_id)
        return run

    def show_task(self, run: HostedRun, task: TaskName) -> run_pb2.Task:
        """The task as it stands, with what a ready one waits for."""
        shown = to_task(run.state, task, run.instant_ns(self._clock.now_ns()))
        if shown.state == run_pb2.TASK_STATE_READY:
            shown.wait_reason = self._wait_reason(run, task)
        return _marked(run, shown)

    def finder(self, namespace: Namespace, run_id: RunId) -> Finder[HostedRun]:
        """Return what finds the run of a question."""
        return lambda _: self.find(namespace, run_id)

    def _show(self, run: HostedRun, *, with_input: bool) -> run_pb2.Run:
        now_ns = run.instant_ns(self._clock.now_ns())
        shown = to_run(run.state, now_ns, creator=run.creator, with_input=with_input)
        return _marked(run, shown)

    def cause(self, run: HostedRun, caller: Caller) -> Cause:
        """Return the cause of what a caller makes true."""
        return Cause(
            namespace=run.namespace,
            principal=caller.principal,
            request_id=caller.request_id,
            request_digest=caller.request_digest,
            correlation_id=self._ids.uuid7(),
            traceparent=caller.traceparent,
        )


def blobs_in_start(command: StartRun) -> frozenset[BlobName]:
    """Return the blobs that a start names."""
    return frozenset((*in_graph(command.graph), *in_payload(command.input)))


async def _judged(command: StartRun) -> StartRun:
    """Judge a large plan in parts, ahead of its decision."""
    if not has_parts(command.graph.tasks):
        return command
    return replace(command, judged=await in_parts(judging_graph(command.graph)))


def _marked(run: HostedRun, shown: Shown) -> Shown:
    """Return what is shown of a run; what was shredded is marked, for it is folded as it lies."""
    if run.state.shredding is not None:
        reveal(shown, lambda _: None)
    return shown
