"""A client process in the simulator: starts runs, steers them, and insists.

Each call is sent again with the same request_id until it has an answer. What is answered is held
against the log: an acknowledged call is in it, and no read is older than what was committed when
it was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from stretto.common.v1.payload_pb2 import Payload
from stretto.namespace.v1 import namespace_service_pb2 as namespace_wire
from stretto.namespace.v1.namespace_pb2 import Namespace
from stretto.queue.v1 import queue_pb2
from stretto.queue.v1 import queue_service_pb2 as queue_wire
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as wire
from stretto_core.errors import (
    DeadlineExceeded,
    Exhausted,
    InvalidArgument,
    NotFound,
    Refusal,
    Unavailable,
)
from stretto_core.ids import IdSource, StreamId
from stretto_core.rpc.status import from_status
from stretto_core.testing.connection import ConnectionEnd
from stretto_core.testing.log_watch import InvariantBroken, LogWatch
from stretto_core.testing.network import Network
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.trace import Trace
from stretto_kernel.domain.run.reopening import may_be_retried
from stretto_kernel.domain.run.resource import to_task

from tests.simulation.board_hands import BoardHands, Judge
from tests.simulation.laws import Laws
from tests.simulation.log_fold import LogFold
from tests.simulation.random_plans import random_plan, random_slice

CALL_TIMEOUT_S = 3.0
RETRIES_MAX = 1
_LIMITS = ("concurrency_limit", "rate_limit", "paused")
TERMINAL = (
    run_pb2.RUN_STATE_SUCCEEDED,
    run_pb2.RUN_STATE_FAILED,
    run_pb2.RUN_STATE_CANCELLED,
    run_pb2.RUN_STATE_KILLED,
)


class SimClient:
    """Drives a number of runs to their ends, one after another or side by side.

    addresses: where a kernel may be.
    """

    def __init__(
        self,
        process: Process,
        network: Network,
        ids: IdSource,
        *,
        addresses: list[str],
        seed: int,
        watch: LogWatch,
        laws: Laws,
        fold: LogFold,
        judge: Judge,
        trace: Trace,
    ) -> None:
        self._process = process
        self._network = network
        self._ids = ids
        self._addresses = addresses
        self._draws = random_for(seed, f"client {process.name}")
        self._watch = watch
        self._laws = laws
        self._fold = fold
        self._trace = trace
        self._address = addresses[0]
        self._board = BoardHands(self._until_answered, ids, self._draws, judge)
        self.ended: dict[str, int] = {}

    async def run(self, run_count: int) -> None:
        """Start `run_count` runs and return when each has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(run_count):
                group.create_task(self._drive())
                await asyncio.sleep(self._draws.uniform(0.0, 10.0))

    async def set_limits(self, queue: str, rest: queue_pb2.Queue, for_s: float) -> None:
        """Change the settings of a queue for so long, at random; in the end they are `rest`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + for_s
        while loop.time() < end_s:
            await asyncio.sleep(self._draws.uniform(0.0, 4.0))
            limits = queue_pb2.Queue(queue=queue, paused=self._draws.random() < 0.3)
            if self._draws.random() < 0.8:
                limits.concurrency_limit = self._draws.randint(1, 3)
            if self._draws.random() < 0.3:
                limits.rate_limit.tokens_per_second = self._draws.uniform(0.5, 20.0)
            paths = [path for path in _LIMITS if self._draws.random() < 0.6] or [*_LIMITS]
            await self._update(limits, paths)
        await self._update(rest, _LIMITS)

    async def encrypt(self) -> None:
        """Let the runs that are started from now on have data keys."""
        request = namespace_wire.UpdateNamespaceRequest(
            namespace=Namespace(name="namespaces/default", encrypt_payloads=True),
            request_id=self._ids.uuid7(),
        )
        request.update_mask.paths.append("encrypt_payloads")
        await self._until_answered("UpdateNamespace", request)

    async def _update(self, limits: queue_pb2.Queue, paths: Sequence[str]) -> None:
        request = queue_wire.UpdateQueueRequest(queue=limits, request_id=self._ids.uuid7())
        request.update_mask.paths.extend(paths)
        answer = await self._until_answered("UpdateQueue", request)
        in_log = self._watch.version(StreamId("p0-queues"))
        self._hold(int(answer.queue.etag) <= in_log, "1: an acknowledged setting is in the log")

    async def _drive(self) -> None:
        draws = self._draws
        plan = random_plan(draws)
        start = wire.StartRunRequest(
            request_id=self._ids.uuid7(),
            task_graph=plan,
            input=Payload(json='{"n": 7}'),
            labels={"by": self._process.name},
        )
        run = await self._start(start)
        self._in_log(run.run_id, start.request_id)
        steps: list[Callable[[run_pb2.Run], Awaitable[None]]] = []
        if plan.growing:
            names = [task.name for task in plan.tasks if not task.clean_up]
            steps.append(lambda run: self._grow(run, names))
        if draws.random() < 0.25:
            steps.append(self._pause_and_resume)
        for _ in range(draws.choice((0, 0, 1, 2))):
            steps.append(lambda run: self._board.write_some(run.name))
        if draws.random() < 0.15:
            steps.append(self._cancel)
        if draws.random() < 0.1:
            steps.append(self._kill)
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(self._step(step, run))
        run = await self._await_end(run, start)
        for _ in range(RETRIES_MAX):
            if run.state == run_pb2.RUN_STATE_SUCCEEDED or draws.random() < 0.6:
                break
            if (retried := await self._retry(run)) is None:
                break
            run = await self._await_end(retried, start)
        if draws.random() < 0.3:
            await self._shred(run)

    async def _shred(self, run: run_pb2.Run) -> None:
        """Have what the ended run carried forgotten, if it was kept so that it can be."""
        request = wire.ShredRunRequest(name=run.name, request_id=self._ids.uuid7(), reason="asked")
        try:
            answer = await self._until_answered("ShredRun", request)
        except Refusal as refusal:
            self._hold(
                refusal.reason_word == "RUN_NOT_ENCRYPTED" and not run.encrypted,
                f"shred: {refusal.reason_word}",
            )
        else:
            self._hold(answer.run.HasField("shred_time"), f"{run.run_id} is shredded")
            key_id = self._fold.at(run.run_id, answer.run.version).key_id
            self._hold(self._fold.is_forgotten(key_id), f"the key of {run.run_id} is gone")

    async def _retry(self, run: run_pb2.Run) -> run_pb2.Run | None:
        """Have the ended run re-opened, all of it or some tasks; None when nothing is to retry."""
        state = self._fold.at(run.run_id, run.version)
        request = wire.RetryRunRequest(name=run.name, request_id=self._ids.uuid7())
        if self._draws.random() < 0.3:
            retriable = [name for name, record in state.tasks.items() if may_be_retried(record)]
            request.tasks.extend(retriable[: self._draws.randint(1, 2)])
        try:
            answer = await self._until_answered("RetryRun", request)
        except Refusal as refusal:
            self._hold(refusal.reason_word == "NOTHING_TO_RETRY", f"retry: {refusal.reason_word}")
            return None
        self._in_log(run.run_id, request.request_id)
        retried: run_pb2.Run = answer.run
        for hold in retried.holds:  # They outlive the end: whoever retries has to lift them.
            resume = wire.ResumeRunRequest(
                name=run.name, request_id=self._ids.uuid7(), hold_id=hold.hold_id
            )
            try:
                await self._until_answered("ResumeRun", resume)
            except Refusal as refusal:
                self._hold(refusal.reason_word == "RUN_CLOSED", f"resume: {refusal.reason_word}")
        return retried

    async def _start(self, start: wire.StartRunRequest) -> run_pb2.Run:
        """Start it by itself, or in a batch with its own repetition and one that is wrong."""
        if self._draws.random() < 0.6:
            answer = await self._until_answered("StartRun", start)
            started: run_pb2.Run = answer.run
            return started
        wrong = wire.StartRunRequest(request_id=self._ids.uuid7())
        batch = wire.StartRunsRequest(requests=[start, wrong, start])
        while True:
            results = (await self._until_answered("StartRuns", batch)).results
            refused = from_status(results[1].refused)
            self._hold(isinstance(refused, InvalidArgument), "a wrong start is refused alone")
            runs = [each.started.run for each in results if each.HasField("started")]
            if runs:
                self._hold(len({run.run_id for run in runs}) == 1, "a repeated start is one run")
                first: run_pb2.Run = runs[0]
                return first
            await asyncio.sleep(self._draws.uniform(0.05, 1.0))

    async def _step(self, step: Callable[[run_pb2.Run], Awaitable[None]], run: run_pb2.Run) -> None:
        await asyncio.sleep(self._draws.uniform(0.0, 8.0))
        try:
            await step(run)
        except Refusal as refusal:
            if refusal.reason_word not in ("RUN_CLOSED", "PLAN_SEALED"):
                raise
            self._refused_rightly(step, run.run_id, refusal)

    async def _grow(self, run: run_pb2.Run, names: list[str]) -> None:
        for number in range(self._draws.randint(1, 3)):
            tasks = random_slice(self._draws, number, names)
            names = [*names, *(task.name for task in tasks)]
            request = wire.AddTasksRequest(
                name=run.name, request_id=self._ids.uuid7(), tasks=tasks, sealed=number == 2
            )
            if request.tasks or request.sealed:
                await self._until_answered("AddTasks", request)
                self._in_log(run.run_id, request.request_id)
            await asyncio.sleep(self._draws.uniform(0.0, 3.0))

    async def _pause_and_resume(self, run: run_pb2.Run) -> None:
        hold_id = f"hold-{self._draws.randint(1, 2)}"
        pause = wire.PauseRunRequest(
            name=run.name, request_id=self._ids.uuid7(), hold_id=hold_id, reason="to see"
        )
        await self._until_answered("PauseRun", pause)
        await asyncio.sleep(self._draws.uniform(0.0, 10.0))
        resume = wire.ResumeRunRequest(name=run.name, request_id=self._ids.uuid7(), hold_id=hold_id)
        await self._until_answered("ResumeRun", resume)

    async def _cancel(self, run: run_pb2.Run) -> None:
        request = wire.CancelRunRequest(
            name=run.name, request_id=self._ids.uuid7(), reason="enough"
        )
        if self._draws.random() < 0.5:
            request.grace.CopyFrom(Duration(seconds=self._draws.randint(1, 5)))
        await self._until_answered("CancelRun", request)

    async def _kill(self, run: run_pb2.Run) -> None:
        request = wire.KillRunRequest(name=run.name, request_id=self._ids.uuid7(), reason="now")
        answer = await self._until_answered("KillRun", request)
        self._hold(answer.run.state == run_pb2.RUN_STATE_KILLED, f"{run.run_id} is killed")

    async def _await_end(self, run: run_pb2.Run, start: wire.StartRunRequest) -> run_pb2.Run:
        """Ask in every way there is until the run has ended; return how it did."""
        waiting = wire.StartRunRequest()
        waiting.CopyFrom(start)
        waiting.wait_timeout.CopyFrom(Duration(seconds=2))
        if self._draws.random() < 0.4:
            run = await self._watch_to_end(run)
        elif self._draws.random() < 0.5:
            run = await self._hear_of_end(run)
        while run.state not in TERMINAL:
            if self._draws.random() < 0.5:
                run = (await self._until_answered("StartRun", waiting)).run
            else:
                await asyncio.sleep(self._draws.uniform(0.5, 3.0))
                run = (await self._until_answered("GetRun", wire.GetRunRequest(name=run.name))).run
        self.ended[run.run_id] = run.state
        if self._draws.random() < 0.3:
            await self._list_tasks(run)
        return run

    async def _watch_to_end(self, run: run_pb2.Run) -> run_pb2.Run:
        """Follow the run over any number of streams; what was seen in all is the whole of it."""
        seen: dict[str, run_pb2.Task] = {}
        version = 0
        while True:
            try:
                stream: ConnectionEnd[wire.WatchRunRequest, wire.WatchRunResponse]
                stream = await self._network.connect(self._process, self._address, "WatchRun")
                request = wire.WatchRunRequest(name=run.name, tasks=True, after_version=version)
                stream.send(request)
                async for change in stream.frames():
                    self._hold(change.version >= version, "1: a watch never goes back")
                    version = change.version
                    seen.update((task.task, task) for task in change.tasks)
                    if change.ended:
                        stream.close()
                        self._are_tasks_of(change.run, seen)
                        return change.run
            except Unavailable as lost:
                self._trace.note("call", f"{self._process.name} WatchRun: {lost.reason_word}")
            self._address = self._draws.choice(self._addresses)
            await asyncio.sleep(self._draws.uniform(0.05, 1.0))

    async def _hear_of_end(self, run: run_pb2.Run) -> run_pb2.Run:
        """Name the run on any number of streams until one of them tells of its end."""
        while True:
            floor = self._watch.version(StreamId(run.run_id))
            try:
                stream: ConnectionEnd[wire.AwaitRunsRequest, wire.AwaitRunsResponse]
                stream = await self._network.connect(self._process, self._address, "AwaitRuns")
                stream.send(wire.AwaitRunsRequest(names=[run.name, "runs/none"]))
                async for told in stream.frames():
                    for each in told.runs:
                        if each.name == run.name and each.HasField("ended"):
                            stream.close()
                            self._hold(each.ended.state in TERMINAL, "only an end is told of")
                            self._hold(each.ended.version >= floor, "1: an end is not older")
                            return each.ended
            except Unavailable as lost:
                self._trace.note("call", f"{self._process.name} AwaitRuns: {lost.reason_word}")
            self._address = self._draws.choice(self._addresses)
            await asyncio.sleep(self._draws.uniform(0.05, 1.0))

    async def _list_tasks(self, run: run_pb2.Run) -> None:
        """Read the tasks of an ended run page by page."""
        listed: dict[str, run_pb2.Task] = {}
        request = wire.ListTasksRequest(parent=run.name, page_size=3)
        while True:
            page = await self._until_answered("ListTasks", request)
            listed.update((task.task, task) for task in page.tasks)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        self._are_tasks_of(run, listed)

    def _are_tasks_of(self, run: run_pb2.Run, seen: dict[str, run_pb2.Task]) -> None:
        state = self._fold.at(run.run_id, run.version)
        self._hold(set(seen) == set(state.tasks), f"2: {run.run_id} shown with tasks {set(seen)}")
        for name in state.tasks:
            shown, expected = seen[name], to_task(state, name, state.time_ns)
            for field in ("state", "epoch", "attempt", "worker_id", "result", "failure"):
                self._hold(
                    getattr(shown, field) == getattr(expected, field),
                    f"2: {run.run_id} task {name}: {field} is not what the log says",
                )

    async def _until_answered(self, method: str, request: Message) -> Any:
        """Send the request again and again until it is answered or refused for good."""
        while True:
            stream = self._stream_of(request)
            floor = self._watch.version(stream) if stream else 0
            try:
                answer = await self._network.call(
                    self._process, self._address, method, request, timeout_s=CALL_TIMEOUT_S
                )
            except (Unavailable, DeadlineExceeded, Exhausted) as refusal:
                self._trace.note(
                    "call", f"{self._process.name} {method}: {refusal.reason_word}, again"
                )
                self._address = self._draws.choice(self._addresses)
                await asyncio.sleep(self._draws.uniform(0.05, 1.0))
                continue
            except NotFound:
                self._hold(floor == 0, f"1: {stream} is in the log and was not found")
                raise
            if "run" in answer.DESCRIPTOR.fields_by_name:
                self._hold(
                    answer.run.version >= floor,
                    f"1: {method} answered version {answer.run.version} of {answer.run.run_id}, "
                    f"{floor} was committed before it was asked",
                )
            return answer

    def _stream_of(self, request: Message) -> StreamId | None:
        name: str = getattr(request, "name", "") or getattr(request, "parent", "")
        return StreamId(name.rpartition("/")[2]) if name else None

    def _in_log(self, run_id: str, request_id: str) -> None:
        self._watch.catch_up()
        run = self._laws.runs.get(run_id)
        self._hold(
            run is not None and request_id in run.request_ids,
            f"1: {request_id} was acknowledged and is not in the log of {run_id}",
        )

    def _refused_rightly(self, step: object, run_id: str, refusal: Refusal) -> None:
        if step in (self._cancel, self._kill):
            self._watch.catch_up()
            self._hold(
                self._laws.runs[run_id].end is not None,
                f"1: {refusal.reason_word}, though {run_id} has not ended in the log",
            )

    def _hold(self, holds: bool, law: str) -> None:
        if not holds:
            raise InvariantBroken(law)
