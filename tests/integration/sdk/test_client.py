"""The client over real gRPC against a kernel whose every answer the test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.lease_pb2 import Position
from stretto.common.v1.payload_pb2 import Payload
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.eventlog.v1.event_log_service_pb2_grpc import (
    EventLogServiceServicer,
    add_EventLogServiceServicer_to_server,
)
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.run.v1 import run_pb2, run_service_pb2
from stretto.run.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from stretto_core.ids import uuid7_unix_ms
from stretto_core.rpc.server import RpcServer, ServerSettings
from stretto_sdk import Client, Plan, RunCancelled, RunFailed, RunState
from stretto_sdk.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

RUN_ID = "p0-0123456789ab0123456789abcdef0123"


def a_plan() -> Plan:
    plan = Plan("hello", labels={"team": "search"})
    plan.output = plan.task("hello", executor="process", argv=["true"]).output()
    return plan


def a_run(state: run_pb2.RunState.ValueType, version: int = 1, **more: Any) -> run_pb2.Run:
    return run_pb2.Run(
        name=f"namespaces/default/runs/{RUN_ID}",
        run_id=RUN_ID,
        state=state,
        version=version,
        **more,
    )


def ended_as(run: run_pb2.Run, name: str = "") -> run_service_pb2.AwaitRunsResponse:
    ended = run_service_pb2.AwaitedRun(
        name=name or run.name, ended=run, position=Position(partition="p0", number=9)
    )
    return run_service_pb2.AwaitRunsResponse(runs=[ended])


class ScriptedRuns(RunServiceServicer):
    """Answers each call with the next step of its script: a message to send, an error to raise."""

    def __init__(self, **scripts: list[Any]) -> None:
        self.scripts = scripts
        self.seen: list[Any] = []

    async def StartRun(self, request: Any, context: Any) -> Any:
        return self._next("StartRun", request)

    async def GetRun(self, request: Any, context: Any) -> Any:
        return self._next("GetRun", request)

    async def ListTasks(self, request: Any, context: Any) -> Any:
        return self._next("ListTasks", request)

    async def WatchRun(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for step in self._next("WatchRun", request):
            if isinstance(step, Silence):
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), step.duration_s)
                continue
            if isinstance(step, Exception):
                raise step
            yield step

    async def StartRuns(self, request: Any, context: Any) -> Any:
        return self._next("StartRuns", request)

    async def AwaitRuns(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            for step in self._next("AwaitRuns", request):
                if isinstance(step, Exception):
                    raise step
                yield step

    def _next(self, method: str, request: Any) -> Any:
        self.seen.append(request)
        step = self.scripts[method].pop(0)
        if isinstance(step, Exception):
            raise step
        return step


@dataclass(frozen=True)
class Silence:
    """A step that takes so long and says nothing."""

    duration_s: float


class ScriptedLog(EventLogServiceServicer):
    def __init__(self, pages: list[Any]) -> None:
        self.pages = pages
        self.cursors: list[str] = []

    async def Subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.cursors.append(request.cursor)
        for step in self.pages.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step


def _scripted_runs(**scripts: list[Any]) -> ScriptedRuns:
    return ScriptedRuns(**scripts)  # type: ignore[abstract]


def _scripted_log(pages: list[Any]) -> ScriptedLog:
    return ScriptedLog(pages)  # type: ignore[abstract]


@asynccontextmanager
async def serving(
    runs: ScriptedRuns | None = None, log: ScriptedLog | None = None, **options: Any
) -> AsyncIterator[Client]:
    server = RpcServer(ServerSettings())
    server.add(add_RunServiceServicer_to_server, runs or _scripted_runs())
    server.add(add_EventLogServiceServicer_to_server, log or _scripted_log([]))
    port = await server.start()
    await server.set_serving()
    try:
        async with Client(f"127.0.0.1:{port}", **options) as client:
            yield client
    finally:
        await server.drain(0)


class RefusedSlice(RunServiceServicer):
    """Starts a large plan, and refuses its second slice."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    async def StartRun(self, request: Any, context: Any) -> Any:
        return run_service_pb2.StartRunResponse(run=a_run(run_pb2.RUN_STATE_RUNNING))

    async def AddTasks(self, request: Any, context: Any) -> Any:
        raise FailedPrecondition("sealed by another", reason="PLAN_SEALED")

    async def KillRun(self, request: Any, context: Any) -> Any:
        self.killed.append(request.reason)
        raise NotFound("what became of it is not what the caller must hear")


async def test_a_run_whose_plan_is_refused_halfway_is_killed_and_the_refusal_told() -> None:
    suite = RefusedSlice()  # type: ignore[abstract]
    tasks = [{"name": f"t{number}", "executor": "acme.do"} for number in range(1_500)]
    async with serving(suite) as client:  # type: ignore[arg-type]
        with pytest.raises(FailedPrecondition, match="sealed by another"):
            await client.start({"tasks": tasks})
    assert suite.killed == ["a part of its plan was refused: PLAN_SEALED"]


async def test_a_time_limit_of_the_callers_own_is_not_taken_for_the_waits() -> None:
    def own(_: object) -> None:
        raise TimeoutError("of the caller")

    change = run_service_pb2.WatchRunResponse(run=a_run(run_pb2.RUN_STATE_RUNNING), version=1)
    async with serving(_scripted_runs(WatchRun=[[change]])) as client:
        with pytest.raises(TimeoutError, match="of the caller"):
            await client.wait(RUN_ID, on_change=own)


async def test_a_start_is_sent_again_under_the_same_request_id_until_it_is_answered() -> None:
    answer = run_service_pb2.StartRunResponse(
        run=a_run(run_pb2.RUN_STATE_RUNNING), position=Position(partition="p0", number=7)
    )
    script = _scripted_runs(
        StartRun=[Unavailable("draining", retry_delay_ms=1), Unavailable("down"), answer]
    )
    async with serving(script) as client:
        run = await client.start(a_plan(), input={"n": 1}, labels={"tier": "gold"})
    assert (run.run_id, run.state) == (RUN_ID, RunState.RUNNING)
    assert run.position is not None
    assert run.position.number == 7
    assert len({each.request_id for each in script.seen}) == 1
    assert uuid7_unix_ms(script.seen[0].request_id)
    assert script.seen[0].input.json == '{"n":1}'
    assert script.seen[0].display_name == "hello"
    assert dict(script.seen[0].labels) == {"team": "search", "tier": "gold"}


async def test_an_unavailable_suite_is_given_up_when_the_budget_is_spent() -> None:
    script = _scripted_runs(GetRun=[Unavailable("down", retry_delay_ms=1) for _ in range(10_000)])
    async with serving(script, retry_budget=timedelta(milliseconds=100)) as client:
        with pytest.raises(Unavailable):
            await client.get(RUN_ID)
    assert len(script.seen) > 1


async def test_a_refusal_arrives_as_it_was_raised_and_is_not_repeated() -> None:
    script = _scripted_runs(GetRun=[NotFound("no such run", run=RUN_ID)])
    async with serving(script) as client:
        with pytest.raises(NotFound) as refused:
            await client.get(RUN_ID)
    assert refused.value.reason_word == "NOT_FOUND"
    assert refused.value.metadata["run"] == RUN_ID
    assert len(script.seen) == 1
    assert script.seen[0].name == f"namespaces/default/runs/{RUN_ID}"


async def test_a_plan_with_mistakes_is_refused_before_any_call() -> None:
    script = _scripted_runs()
    async with serving(script) as client:
        with pytest.raises(InvalidArgument, match="executor"):
            await client.start({"tasks": [{"name": "a"}]})
    assert script.seen == []


async def test_a_watch_goes_on_after_a_break_from_the_last_version() -> None:
    running, ended = run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_SUCCEEDED
    script = _scripted_runs(
        WatchRun=[
            [
                run_service_pb2.WatchRunResponse(run=a_run(running, 3), version=3),
                Unavailable("draining", retry_delay_ms=1),
            ],
            [
                run_service_pb2.WatchRunResponse(
                    run=a_run(ended, 5, output=Payload(json='{"n": 2}')), version=5, ended=True
                )
            ],
        ]
    )
    async with serving(script) as client:
        changes = [change async for change in client.watch(RUN_ID)]
    assert changes[-1].run.output == {"n": 2}
    assert [each.after_version for each in script.seen] == [0, 3]


async def test_a_run_that_ended_badly_raises_with_the_run() -> None:
    failed = a_run(
        run_pb2.RUN_STATE_FAILED, failure=Failure(reason="EXIT_STATUS", message="1", task="hello")
    )
    cancelled = a_run(run_pb2.RUN_STATE_CANCELLED, end_reason="not needed")
    script = _scripted_runs(AwaitRuns=[[ended_as(failed)], [ended_as(cancelled)]])
    async with serving(script) as client:
        with pytest.raises(RunFailed, match=r"task hello: EXIT_STATUS") as raised:
            await client.result(RUN_ID)
        assert raised.value.run.failure is not None
        assert raised.value.run.failure.reason == "EXIT_STATUS"
        with pytest.raises(RunCancelled, match="not needed"):
            await client.result(RUN_ID)


async def test_a_wait_ends_at_its_timeout_and_says_so() -> None:
    running = run_service_pb2.WatchRunResponse(run=a_run(run_pb2.RUN_STATE_RUNNING), version=1)
    breaks = [[running, Unavailable("moved", retry_delay_ms=1)] for _ in range(10_000)]
    async with serving(_scripted_runs(WatchRun=breaks)) as client:
        with pytest.raises(DeadlineExceeded, match=RUN_ID):
            await client.wait(RUN_ID, timeout=timedelta(milliseconds=50), on_change=str)
    async with serving(_scripted_runs(AwaitRuns=[[]])) as client:
        with pytest.raises(DeadlineExceeded, match=RUN_ID):
            await client.result(RUN_ID, timeout=timedelta(milliseconds=50))


async def test_a_run_that_ends_in_time_takes_one_call() -> None:
    ended = a_run(run_pb2.RUN_STATE_SUCCEEDED, 4, output=Payload(json="[1]"))
    script = _scripted_runs(StartRun=[run_service_pb2.StartRunResponse(run=ended)])
    async with serving(script) as client:
        assert await client.run(a_plan()) == [1]
    assert script.seen[0].wait_timeout.seconds == 60


async def test_tasks_are_read_over_all_pages() -> None:
    def page(name: str, token: str) -> run_service_pb2.ListTasksResponse:
        task = run_pb2.Task(task=name, state=run_pb2.TASK_STATE_READY, executor="process")
        return run_service_pb2.ListTasksResponse(tasks=[task], next_page_token=token)

    script = _scripted_runs(ListTasks=[page("a", "more"), page("b", "")])
    async with serving(script) as client:
        assert [task.name for task in await client.tasks(RUN_ID)] == ["a", "b"]


async def test_a_stream_that_was_silent_for_long_has_its_whole_budget_when_it_breaks() -> None:
    running = run_service_pb2.WatchRunResponse(run=a_run(run_pb2.RUN_STATE_RUNNING), version=1)
    ended = a_run(run_pb2.RUN_STATE_SUCCEEDED, 4, output=Payload(json="7"))
    script = _scripted_runs(
        WatchRun=[
            [running, Silence(0.3), Unavailable("restarted", retry_delay_ms=1)],
            [run_service_pb2.WatchRunResponse(run=ended, version=4, ended=True)],
        ]
    )
    async with serving(script, retry_budget=timedelta(milliseconds=250)) as client:
        ended_run = await client.wait(RUN_ID, on_change=str)
    assert ended_run.output == 7


async def test_who_stops_in_mid_message_misses_no_event() -> None:
    def logged(version: int) -> log_pb.LoggedEvent:
        event = RecordedEvent(stream=RUN_ID, version=version, type="stretto.run.v1.RunStarted")
        return log_pb.LoggedEvent(event=event)

    both = log_pb.SubscribeResponse(events=[logged(1), logged(2)], cursor="c2")
    async with serving(log=_scripted_log([[both]])) as client:
        events = [event async for event in client.events(RUN_ID, follow=True, cursor="c0")]
    assert [event.cursor for event in events] == ["c0", "c2"]


async def test_a_subscription_resumes_after_the_last_message_it_handed_out() -> None:
    def message(version: int) -> log_pb.SubscribeResponse:
        event = RecordedEvent(stream=RUN_ID, version=version, type="stretto.run.v1.RunStarted")
        return log_pb.SubscribeResponse(
            events=[log_pb.LoggedEvent(event=event, body_json='{"a": 1}')], cursor=f"c{version}"
        )

    log = _scripted_log([[message(1), Unavailable("draining", retry_delay_ms=1)], [message(2)]])
    async with serving(log=log) as client:
        events = [event async for event in client.events(RUN_ID, follow=True, cursor="c0")]
    assert [(event.version, event.cursor) for event in events] == [(1, "c1"), (2, "c2")]
    assert log.cursors == ["c0", "c1"]
    assert events[0].body == {"a": 1}
