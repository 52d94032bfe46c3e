"""Concurrent starts and waits of one client go together; a lone one goes at once, by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import AlreadyExists, Exhausted, Refusal
from stretto_core.rpc.status import to_status
from stretto_sdk import RunState, run_ends
from stretto_sdk.errors import NotFound, Unavailable

from tests.integration.sdk.test_client import ScriptedRuns, a_plan, serving
from tests.waiting import until

RUNS = "namespaces/default/runs"


class Suite(ScriptedRuns):
    """Starts what it is asked once `open` is set; ends what it is asked about at once."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.refusals: dict[str, Refusal] = {}
        self.breaks = 0
        self.down = False
        self.alone: list[str] = []
        self.together: list[list[str]] = []
        self.named: list[list[str]] = []

    async def StartRun(self, request: Any, context: Any) -> Any:
        self.alone.append(request.request_id)
        await self.open.wait()
        return started(request)

    async def StartRuns(self, request: Any, context: Any) -> Any:
        self.together.append([each.request_id for each in request.requests])
        if self.down:
            raise Unavailable("moved", retry_delay_ms=1)
        await self.open.wait()
        return pb.StartRunsResponse(results=[self._result(each) for each in request.requests])

    async def AwaitRuns(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            self.named.append(list(request.names))
            if self.breaks:
                self.breaks -= 1
                raise Unavailable("moved", retry_delay_ms=1)
            yield pb.AwaitRunsResponse(runs=[self._end(name) for name in request.names])

    def _result(self, request: Any) -> pb.StartRunResult:
        assert not request.HasField("wait_timeout")
        refusal = self.refusals.pop(request.request_id, None)
        if refusal is not None:
            return pb.StartRunResult(refused=to_status(refusal))
        return pb.StartRunResult(started=started(request))

    def _end(self, name: str) -> pb.AwaitedRun:
        refusal = self.refusals.get(name)
        if refusal is not None:
            return pb.AwaitedRun(name=name, refused=to_status(refusal))
        run = run_pb2.Run(name=name, run_id=name[-2:], state=run_pb2.RUN_STATE_SUCCEEDED)
        return pb.AwaitedRun(name=name, ended=run)


def a_suite() -> Suite:
    return Suite()  # type: ignore[abstract]


def started(request: Any) -> pb.StartRunResponse:
    run = run_pb2.Run(
        name=f"{RUNS}/{request.request_id}",
        run_id=request.request_id,
        state=run_pb2.RUN_STATE_RUNNING,
    )
    return pb.StartRunResponse(run=run)


async def test_starts_in_sequence_go_alone() -> None:
    suite = a_suite()
    suite.open.set()
    async with serving(suite) as client:
        for name in ("r1", "r2", "r3"):
            assert (await client.start(a_plan(), request_id=name)).run_id == name
    assert (suite.alone, suite.together) == (["r1", "r2", "r3"], [])


async def test_what_starts_while_another_is_under_way_goes_together() -> None:
    suite = a_suite()
    names = [f"r{number}" for number in range(20)]
    async with serving(suite) as client:
        first = asyncio.create_task(client.start(a_plan(), request_id="r0"))
        await until(lambda: suite.alone == ["r0"])
        rest = [asyncio.create_task(client.start(a_plan(), request_id=n)) for n in names[1:]]
        await until(lambda: len(suite.together) == 1)
        suite.open.set()
        runs = await asyncio.gather(first, *rest)
    assert [run.run_id for run in runs] == names, "each gets its own answer"
    assert suite.together == [names[1:]]


async def test_a_refusal_in_a_batch_is_its_own_starters() -> None:
    suite = a_suite()
    suite.refusals["r1"] = AlreadyExists("another request", reason="REQUEST_ID_REUSED")
    # Sent again by itself: it is a moment's refusal.
    suite.refusals["r2"] = Exhausted("the writer is full", reason="OVERLOADED")
    async with serving(suite) as client:
        starts = [
            asyncio.create_task(client.start(a_plan(), request_id=name))
            for name in ("r0", "r1", "r2", "r3")
        ]
        await until(lambda: len(suite.together) == 1)
        suite.open.set()
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
    assert isinstance(outcomes[1], AlreadyExists)
    assert outcomes[1].reason_word == "REQUEST_ID_REUSED"
    assert [getattr(outcomes[at], "run_id", None) for at in (0, 2, 3)] == ["r0", "r2", "r3"]
    assert suite.alone == ["r0", "r2"]


async def test_a_batch_that_is_not_answered_has_one_budget() -> None:
    suite = a_suite()
    async with serving(suite, retry_budget=timedelta(milliseconds=100)) as client:
        first = asyncio.create_task(client.start(a_plan(), request_id="r0"))
        await until(lambda: suite.alone == ["r0"])
        suite.down = True
        with pytest.raises(Unavailable):
            await client.start(a_plan(), request_id="r1")
        suite.open.set()
        await first
    assert suite.alone == ["r0"], "what was repeated for as long as it may be is not sent again"
    assert suite.together[0] == ["r1"]


async def test_closing_the_client_is_told_to_whoever_waits_for_an_answer() -> None:
    suite = a_suite()
    async with serving(suite) as client:
        starts = [asyncio.create_task(client.start(a_plan(), request_id="r0"))]
        await until(lambda: suite.alone == ["r0"])
        for name in ("r1", "r2"):
            starts.append(asyncio.create_task(client.start(a_plan(), request_id=name)))
            await until(lambda: len(suite.together) == len(starts) - 1)
        starts.append(asyncio.create_task(client.start(a_plan(), request_id="r3")))
        await asyncio.sleep(0)
        await client.close()
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
    # A cancelled task that nobody cancelled would end without a word.
    assert [str(outcome) for outcome in outcomes] == ["the client was closed"] * 4


async def test_a_start_given_up_is_not_sent_and_harms_no_other() -> None:
    suite = a_suite()
    async with serving(suite) as client:
        first = asyncio.create_task(client.start(a_plan(), request_id="r0"))
        await until(lambda: suite.alone == ["r0"])
        calls = [asyncio.create_task(client.start(a_plan(), request_id="r1"))]
        await until(lambda: len(suite.together) == 1)
        calls.append(asyncio.create_task(client.start(a_plan(), request_id="r2")))
        await until(lambda: len(suite.together) == 2)
        given_up = asyncio.create_task(client.start(a_plan(), request_id="r3"))
        calls.append(asyncio.create_task(client.start(a_plan(), request_id="r4")))
        await asyncio.sleep(0)
        given_up.cancel()
        suite.open.set()
        assert len(await asyncio.gather(first, *calls)) == 4
    assert suite.together == [["r1"], ["r2"], ["r4"]], "two are under way at most"


async def test_starts_that_are_large_go_in_several_messages() -> None:
    """Each is well below the limit of a message; many together are not."""
    suite = a_suite()
    async with serving(suite) as client:
        first = asyncio.create_task(client.start(a_plan(), request_id="r0"))
        await until(lambda: suite.alone == ["r0"])
        rest = [
            asyncio.create_task(client.start(a_plan(), request_id=f"r{at}", input="z" * 60_000))
            for at in range(1, 31)
        ]
        await until(lambda: len(suite.together) == 2)
        suite.open.set()
        await asyncio.gather(first, *rest)
    assert [len(each) for each in suite.together] == [17, 13], "1 MiB a message at most"


async def test_runs_that_are_run_together_share_their_messages() -> None:
    suite = a_suite()
    suite.open.set()
    async with serving(suite) as client:
        await asyncio.gather(
            *(client.start(a_plan(), wait=timedelta(seconds=60)) for _ in range(20))
        )
    assert len(suite.alone) + len(suite.together) < 5
    assert len(suite.named) < 5
    assert sum(map(len, suite.named)) >= 19


async def test_waits_go_on_over_a_broken_stream() -> None:
    suite = a_suite()
    suite.breaks = 2
    async with serving(suite) as client:
        runs = await asyncio.gather(*(client.wait(f"{RUNS}/r{at}") for at in range(3)))
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 3
    assert len(suite.named) == 3, "all names are said again after a break"


async def test_what_is_waited_for_after_a_break_is_said_on_the_new_stream() -> None:
    suite = a_suite()
    suite.breaks = 1
    async with serving(suite) as client:
        await client.wait(f"{RUNS}/r0")
        # The broken stream's names are not read any more: nothing may be said there.
        async with asyncio.timeout(60):
            assert (await client.wait(f"{RUNS}/r1")).state is RunState.SUCCEEDED
    assert suite.named == [[f"{RUNS}/r0"], [f"{RUNS}/r0"], [f"{RUNS}/r1"]]


class SilentSuite(Suite):
    """Tells of no end but those in `ended`, and notes what each stream was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[list[str]] = []
        self.ended: set[str] = set()

    def was_told(self, name: str) -> bool:
        return any(name in names for names in self.streams)

    async def AwaitRuns(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        self.streams.append(names := [])
        async for request in request_iterator:
            names += request.names
            if told := self.ended.intersection(request.names):
                yield pb.AwaitRunsResponse(runs=[self._end(name) for name in told])


async def test_waits_given_up_do_not_fill_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ends, "ABANDONED_MAX", 3)
    suite = SilentSuite()  # type: ignore[abstract]
    async with serving(suite) as client:
        kept = asyncio.create_task(client.wait(f"{RUNS}/kept"))
        for number in range(4):
            lost = asyncio.create_task(client.wait(f"{RUNS}/lost{number}"))
            await until(partial(suite.was_told, f"{RUNS}/lost{number}"))
            if number:  # One that is waited for again is named once.
                again = asyncio.create_task(client.wait(f"{RUNS}/lost0"))
                await asyncio.sleep(0)
                again.cancel()
            lost.cancel()
            await asyncio.wait([lost])
        await until(lambda: len(suite.streams) == 2 and bool(suite.streams[1]))
        assert suite.streams[0].count(f"{RUNS}/lost0") == 1
        assert suite.streams[1] == [f"{RUNS}/kept"]
        suite.ended.add(f"{RUNS}/late")
        assert (await client.wait(f"{RUNS}/late")).run_id == "te"
        kept.cancel()
        await asyncio.wait([kept])


async def test_a_refused_wait_is_its_own_waiters() -> None:
    suite = a_suite()
    suite.refusals[f"{RUNS}/r1"] = NotFound("no such run")
    async with serving(suite) as client:
        outcomes = await asyncio.gather(
            client.wait(f"{RUNS}/r0"), client.wait(f"{RUNS}/r1"), return_exceptions=True
        )
        assert isinstance(outcomes[1], NotFound)
        assert (await client.wait(f"{RUNS}/r0")).state is RunState.SUCCEEDED


async def test_a_wait_is_given_up_when_the_budget_is_spent() -> None:
    suite = a_suite()
    suite.breaks = 10_000
    async with serving(suite, retry_budget=timedelta(milliseconds=50)) as client:
        with pytest.raises(Unavailable):
            await client.wait(f"{RUNS}/r0")


async def test_closing_the_client_ends_its_waits() -> None:
    silent = ScriptedRuns(AwaitRuns=[[]])  # type: ignore[abstract]
    async with serving(silent) as client:
        waiting = asyncio.create_task(client.wait(f"{RUNS}/r0"))
        await until(lambda: len(silent.seen) == 1)
        await client.close()
        with pytest.raises(Unavailable):
            await waiting
