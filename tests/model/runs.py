"""A vocabulary for telling what happens to a run: given facts, when commands, then facts.

Time stands still unless a test moves it; every event a command makes is applied and logged.
"""

from __future__ import annotations

from stretto.blackboard.v1.blackboard_pb2 import WRITER_KIND_OPERATOR, Writer
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.clock import NS_PER_S
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import Namespace, RequestId, RunId, SessionId, TaskName, WorkerId
from stretto_kernel.domain.run import RunEvent, RunState, conclude, decide, evolve, new_run
from stretto_kernel.domain.run import commands as cmd

RUN_ID = RunId("p0-000000000000" + "0" * 20)
NAMESPACE = Namespace("default")
OPERATOR = Writer(kind=WRITER_KIND_OPERATOR, name="anna")
KEY_ID = 7
T0 = 1_000 * NS_PER_S
SECOND = NS_PER_S


class Story:
    """One run and its log, moved on by commands.

    digest_key: of a run with a data key, as its host would give it; b"" = a clear run.
    """

    def __init__(self, *, digest_key: bytes = b"") -> None:
        self.state = new_run(RUN_ID, NAMESPACE)
        self.state.digest_key = digest_key
        self.log: list[Recorded[RunEvent]] = []
        self.now_ns = T0
        self._request_count = 0

    def do(self, command: cmd.Command) -> tuple[RunEvent, ...]:
        """Decide and apply; return the facts."""
        events = decide(self.state, command)
        request_id = command.request_id if isinstance(command, cmd.Requested) else ""
        digest = command.request_digest if isinstance(command, cmd.Requested) else b""
        for event in events:
            self.record(event, request_id, digest)
        if not events:
            return ()
        for end in (ends := conclude(self.state)):
            self.record(end, request_id, digest)
        return (*events, *ends)

    def record(self, event: RunEvent, request_id: str = "", digest: bytes = b"") -> None:
        """Apply one fact as recorded now."""
        keyed = self.state.keyed(digest) if request_id else digest
        key_id = KEY_ID if self.state.digest_key else 0
        version = self.state.version + 1
        recorded = Recorded(event, version, self.now_ns, request_id, keyed, key_id)
        evolve(self.state, recorded)
        self.log.append(recorded)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += int(seconds * NS_PER_S)

    def request(self) -> tuple[RequestId, bytes]:
        """Mint a request id and its digest."""
        self._request_count += 1
        name = f"request-{self._request_count}"
        return RequestId(name), name.encode()

    def start(self, graph: plan.TaskGraph, **rest: object) -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.StartRun(
                now_ns=self.now_ns,
                request_id=request_id,
                request_digest=digest,
                graph=graph,
                **rest,  # type: ignore[arg-type]
            )
        )

    def add(self, *tasks: plan.TaskSpec, sealed: bool = False) -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.AddTasks(
                now_ns=self.now_ns,
                request_id=request_id,
                request_digest=digest,
                tasks=tasks,
                sealed=sealed,
            )
        )

    def hold(self, hold_id: str = "operator") -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.PlaceHold(
                now_ns=self.now_ns, request_id=request_id, request_digest=digest, hold_id=hold_id
            )
        )

    def lift(self, hold_id: str = "operator") -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.LiftHold(
                now_ns=self.now_ns, request_id=request_id, request_digest=digest, hold_id=hold_id
            )
        )

    def cancel(self, reason: str = "asked", grace_s: float | None = None) -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.Cancel(
                now_ns=self.now_ns,
                request_id=request_id,
                request_digest=digest,
                reason=reason,
                grace_ns=None if grace_s is None else int(grace_s * NS_PER_S),
            )
        )

    def kill(self, reason: str = "enough") -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.Kill(
                now_ns=self.now_ns, request_id=request_id, request_digest=digest, reason=reason
            )
        )

    def shred(self, reason: str = "they left") -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.Shred(
                now_ns=self.now_ns, request_id=request_id, request_digest=digest, reason=reason
            )
        )

    def retry(self, *tasks: str, step_count: int = 1_000) -> tuple[RunEvent, ...]:
        request_id, digest = self.request()
        return self.do(
            cmd.Retry(
                now_ns=self.now_ns,
                request_id=request_id,
                request_digest=digest,
                tasks=tuple(TaskName(name) for name in tasks),
                step_count=step_count,
            )
        )

    def lease(self, task: str, worker: str = "w1") -> tuple[RunEvent, ...]:
        return self.do(
            cmd.Lease(
                now_ns=self.now_ns,
                task=TaskName(task),
                worker_id=WorkerId(worker),
                session_id=SessionId(f"{worker}-session"),
            )
        )

    def complete(
        self,
        task: str,
        result: str = "1",
        *,
        epoch: int | None = None,
        spawned: tuple[plan.TaskSpec, ...] = (),
    ) -> tuple[RunEvent, ...]:
        return self.do(
            cmd.Complete(
                now_ns=self.now_ns,
                task=TaskName(task),
                epoch=self.epoch(task, epoch),
                result=Payload(json=result),
                spawned=spawned,
            )
        )

    def fail(
        self,
        task: str,
        reason: str = "BROKEN",
        *,
        retryable: bool = True,
        epoch: int | None = None,
        retry_after_s: int | None = None,
    ) -> tuple[RunEvent, ...]:
        failure = Failure(reason=reason, message="it broke", retryable=retryable)
        if retry_after_s is not None:
            failure.retry_after.seconds = retry_after_s
        return self.do(
            cmd.Fail(
                now_ns=self.now_ns,
                task=TaskName(task),
                epoch=self.epoch(task, epoch),
                failure=failure,
            )
        )

    def release(
        self,
        task: str,
        *,
        epoch: int | None = None,
        cause: ev.ReleaseCause.ValueType = ev.RELEASE_CAUSE_RETURNED,
    ) -> tuple[RunEvent, ...]:
        return self.do(
            cmd.Release(
                now_ns=self.now_ns,
                task=TaskName(task),
                epoch=self.epoch(task, epoch),
                cause=cause,
            )
        )

    def stopped(self, task: str, *, epoch: int | None = None) -> tuple[RunEvent, ...]:
        return self.do(
            cmd.CancelAttempt(
                now_ns=self.now_ns, task=TaskName(task), epoch=self.epoch(task, epoch)
            )
        )

    def lose(
        self,
        task: str,
        *,
        epoch: int | None = None,
        cause: ev.LossCause.ValueType = ev.LOSS_CAUSE_EXPIRED,
    ) -> tuple[RunEvent, ...]:
        return self.do(
            cmd.Lose(
                now_ns=self.now_ns,
                task=TaskName(task),
                epoch=self.epoch(task, epoch),
                cause=cause,
            )
        )

    def spawn(
        self, task: str, *tasks: plan.TaskSpec, epoch: int | None = None
    ) -> tuple[RunEvent, ...]:
        return self.do(
            cmd.Spawn(
                now_ns=self.now_ns,
                task=TaskName(task),
                epoch=self.epoch(task, epoch),
                tasks=tasks,
            )
        )

    def put(
        self,
        *writes: cmd.EntryWrite,
        writer: cmd.LeaseHolder | Writer | None = None,
        request: tuple[RequestId, bytes] | None = None,
    ) -> tuple[RunEvent, ...]:
        """Write entries, as an operator unless somebody else is named."""
        request_id, digest = request or self.request()
        return self.do(
            cmd.PutEntries(
                now_ns=self.now_ns,
                request_id=request_id,
                request_digest=digest,
                writer=writer or OPERATOR,
                writes=writes,
            )
        )

    def delete(
        self,
        *keys: str,
        expected: int | None = None,
        writer: cmd.LeaseHolder | Writer | None = None,
        request: tuple[RequestId, bytes] | None = None,
    ) -> tuple[RunEvent, ...]:
        """Delete entries, as an operator unless somebody else is named."""
        request_id, digest = request or self.request()
        return self.do(
            cmd.DeleteEntries(
                now_ns=self.now_ns,
                request_id=request_id,
                request_digest=digest,
                writer=writer or OPERATOR,
                deletions=tuple(
                    cmd.EntryChange(key=key, expected_revision=expected) for key in keys
                ),
            )
        )

    def fire(self, timer: cmd.Timer) -> tuple[RunEvent, ...]:
        return self.do(cmd.TimerFired(now_ns=self.now_ns, timer=timer))

    def epoch(self, task: str, given: int | None = None) -> int:
        """Return the epoch given, else the task's newest."""
        if given is not None or TaskName(task) not in self.state.tasks:
            return given or 1
        return self.state.tasks[TaskName(task)].epoch


def entry(key: str, value: str = "1", *, expected: int | None = None) -> cmd.EntryWrite:
    """Return an entry to write: JSON text under a key."""
    return cmd.EntryWrite(key=key, expected_revision=expected, value=Payload(json=value))


def holder(name: str, epoch: int) -> cmd.LeaseHolder:
    """Return the holder of a task's lease."""
    return cmd.LeaseHolder(TaskName(name), epoch)


def fold(log: list[Recorded[RunEvent]]) -> RunState:
    """Return the state that a log tells."""
    state = new_run(RUN_ID, NAMESPACE)
    for recorded in log:
        evolve(state, recorded)
    return state


def task(
    name: str,
    *after: str | plan.Dependency,
    join: plan.JoinRule | None = None,
    retry: plan.RetryPolicy | None = None,
    timeouts: plan.Timeouts | None = None,
    inputs: dict[str, plan.Binding] | None = None,
    clean_up: bool = False,
    may_spawn: bool = False,
    on_failure: plan.OnFailure.ValueType = plan.ON_FAILURE_UNSPECIFIED,
) -> plan.TaskSpec:
    """Return a task that comes after others, named or given as edges."""
    edges = [plan.Dependency(task=edge) if isinstance(edge, str) else edge for edge in after]
    return plan.TaskSpec(
        name=name,
        executor="process",
        dependencies=edges,
        join=join,
        retry=retry,
        timeouts=timeouts,
        inputs=inputs,
        clean_up=clean_up,
        may_spawn=may_spawn,
        on_failure=on_failure,
    )


def below(name: str) -> plan.Dependency:
    """Return an edge to a task and everything spawned below it."""
    return plan.Dependency(task=name, scope=plan.DEPENDENCY_SCOPE_SUBTREE)


def graph(*tasks: plan.TaskSpec, **policies: object) -> plan.TaskGraph:
    """Return a plan of the tasks."""
    return plan.TaskGraph(tasks=tasks, **policies)  # type: ignore[arg-type]


def started(*tasks: plan.TaskSpec, **policies: object) -> Story:
    """Return a story whose run has started."""
    story = Story()
    story.start(graph(*tasks, **policies))
    return story


def kinds(events: tuple[RunEvent, ...]) -> list[str]:
    """Return the names of the facts."""
    return [type(event).DESCRIPTOR.name for event in events]
