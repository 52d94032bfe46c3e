"""The bench's client process: does what it is told, line by line, and says what it measured.

`python -m tests.bench.client --address A` reads {"what", "how"} from its input, one a line, and
writes one JSON line for each. Clocks start here, at the first submit, and stop when the client has
seen the last end. Instants it tells are of the monotonic clock, which every process here shares.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc
import uvloop
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import run_service_pb2 as pb
from stretto.run.v1.run_service_pb2_grpc import RunServiceStub
from stretto_core.ids.system import SystemIds
from stretto_core.rpc.channel import open_channel
from stretto_sdk import Client, Plan, Run
from stretto_sdk.plan import form_of
from stretto_sdk.runs import Position

from tests.bench import bare_worker
from tests.bench.figures import percentile
from tests.bench.offered import Offered

SLOTS_ABANDONED = 1_000
LIMIT = timedelta(minutes=20)
Measured = dict[str, Any]


class Bench:
    """What the client can be told to do, by name."""

    def __init__(self, client: Client, channel: grpc.aio.Channel) -> None:
        self._client = client
        self._stub = RunServiceStub(channel)
        self._ids = SystemIds()

    async def unary(self, *, runs: int, outstanding: int) -> Measured:
        """Independent one-task runs, one StartRun call each; their ends are heard of together."""
        graph = form_of(_noop()).graph

        async def start(n: int) -> str:
            request = pb.StartRunRequest(
                request_id=self._ids.uuid7(), task_graph=graph, input=Payload(json=str(n))
            )
            return (await self._stub.StartRun(request)).run.name

        return await self._in_parallel(start, runs, outstanding)

    async def coalesced(self, *, runs: int, outstanding: int) -> Measured:
        """The same, each by `await client.start(plan)`: the SDK puts concurrent calls together."""
        plan = _noop()

        async def start(n: int) -> Run:
            return await self._client.start(plan, input=n)

        return await self._in_parallel(start, runs, outstanding)

    async def offered(self, *, runs_per_s: float, seconds: float) -> Measured:
        """Starts that come at a rate, whatever became of those before."""
        offered = Offered(self._client, self._stub, self._ids, form_of(_noop()).graph)
        return await offered.measure(runs_per_s=runs_per_s, seconds=seconds)

    async def sequence(self, *, runs: int) -> Measured:
        """One run after another, each started and waited for; how long each took."""
        plan = _noop()
        took_ms = []
        for n in range(runs):
            began_s = time.perf_counter()
            await self._client.run(plan, input=n)
            took_ms.append((time.perf_counter() - began_s) * 1_000)
        return {"p50_ms": percentile(took_ms, 50), "p99_ms": percentile(took_ms, 99)}

    async def fan(self, *, tasks: int) -> Measured:
        """One run of so many independent tasks and one that joins them."""
        plan = Plan("fan")
        leaves = [plan.task(f"t{at}", **NOOP, inputs={"n": at}) for at in range(tasks)]
        plan.output = plan.task("join", executor="python", function="count", after=leaves).output()
        return {"wall_s": await self._run(plan)}

    async def chain(self, *, tasks: int) -> Measured:
        """One run of so many tasks, each taking what the one before it returned."""
        plan = Plan("chain")
        last = plan.task("t0", **NOOP, inputs={"n": 1})
        for at in range(1, tasks):
            last = plan.task(f"t{at}", **NOOP, after=[last], inputs={"n": last.output()})
        plan.output = last.output()
        return {"ms_per_task": await self._run(plan) * 1_000 / tasks}

    async def held(self, *, runs: int, ledger: str, gate: str) -> Measured:
        """Runs whose one body waits for the gate; tells "started", then when the last had ended."""
        plan = Plan("held")
        plan.output = plan.task(
            "a",
            executor="python",
            function="held",
            inputs={"ledger": ledger, "gate": gate},
            timeouts={"heartbeat": "10s"},
        ).output()
        started = await asyncio.gather(*(self._client.start(plan) for _ in range(runs)))
        _say({"started": len(started)})
        ended = await asyncio.gather(*(self._client.wait(run, timeout=LIMIT) for run in started))
        last_s = time.monotonic()
        accepted: Counter[str] = Counter()
        async with aclosing(self._client.events()) as events:
            async for event in events:
                if event.type.endswith(".AttemptSucceeded"):
                    accepted[event.stream] += 1
        return {
            "last_s": last_s,
            "lost": sum(run.state != "SUCCEEDED" for run in ended),
            "accepted_twice": sum(count > 1 for count in accepted.values()),
        }

    async def large(self, *, tasks: int) -> Measured:
        """One run of independent tasks of the bare worker, started in slices, to its end."""
        plan = _bare(tasks)
        began_s = time.perf_counter()
        ended = await self._client.wait(await self._client.start(plan), timeout=LIMIT)
        wall_s = time.perf_counter() - began_s
        return {"run_id": ended.run_id, "events": ended.version, "wall_s": wall_s}

    async def bare(self, *, runs: int, outstanding: int) -> Measured:
        """Independent runs of the bare worker."""
        plan = _bare(1)

        async def start(_n: int) -> Run:
            return await self._client.start(plan)

        return await self._in_parallel(start, runs, outstanding)

    async def abandon(self, *, tasks: int, address: str) -> Measured:
        """A large run whose worker takes as much as it may and goes away; it stays open."""
        await self._client.start(_bare(tasks))
        await bare_worker.work(address, self._ids.uuid7(), SLOTS_ABANDONED, frames_max=1)
        return {}

    async def kill_all(self) -> Measured:
        """Kill every run that is open."""
        async with aclosing(self._client.list("state = RUNNING")) as runs:
            found = [run async for run in runs]
        for run in found:
            await self._client.kill(run)
        return {"killed": len(found)}

    async def queue(self, *, tasks: int, tasks_per_run: int) -> Measured:
        """So many tasks that nobody takes."""
        for begin in range(0, tasks, tasks_per_run):
            await self._client.start(_bare(min(tasks_per_run, tasks - begin)))
        return {}

    async def steps(self, *, address: str, count: int) -> Measured:
        """Lease and complete queued tasks one by one; how long each took."""
        name = self._ids.uuid7()
        came_s = await bare_worker.work(address, name, 1, frames_max=count + 1)
        took_ms = [(b - a) * 1_000 for a, b in itertools.pairwise(came_s)]
        return {"p99_ms": percentile(took_ms, 99)}

    async def _run(self, plan: Plan) -> float:
        began_s = time.perf_counter()
        await self._client.run(plan)
        return time.perf_counter() - began_s

    async def _in_parallel(
        self, start: Callable[[int], Awaitable[Run | str]], runs: int, outstanding: int
    ) -> Measured:
        """Start so many runs, so many calls at a time, and see each of them end."""
        left = iter(range(runs))
        ends: list[asyncio.Task[Run]] = []

        async def caller() -> None:
            for n in left:
                ends.append(asyncio.create_task(self._client.wait(await start(n))))

        began_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(outstanding)))
        ended = await asyncio.gather(*ends)
        measured = {"tasks_per_s": runs / (time.perf_counter() - began_s)}
        assert all(run.state == "SUCCEEDED" for run in ended), "every run succeeds"
        positions = [run.position for run in ended if run.position is not None]
        await self._seen_in_views(max(positions, key=lambda position: position.number))
        measured["caught_up_tasks_per_s"] = runs / (time.perf_counter() - began_s)
        return measured

    async def _seen_in_views(self, position: Position) -> None:
        async with aclosing(self._client.list(after=position)) as runs:
            async for _ in runs:
                return


NOOP: dict[str, Any] = {"executor": "python", "function": "noop"}


def _noop() -> Plan:
    plan = Plan("noop")
    plan.output = plan.task("a", **NOOP, inputs={"n": plan.input()}).output()
    return plan


def _bare(tasks: int) -> Plan:
    plan = Plan("bare", task_count_max=tasks)
    for at in range(tasks):
        plan.task(f"t{at}", executor=bare_worker.EXECUTOR)
    return plan


def _say(told: Measured) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def _orders() -> AsyncIterator[Measured]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield json.loads(line)


async def serve(address: str) -> None:
    """Do what is asked until the input ends."""
    async with Client(address, retry_budget=LIMIT) as client, open_channel(address) as channel:
        bench = Bench(client, channel)
        async with aclosing(_orders()) as orders:  # type: ignore[type-var]
            async for order in orders:
                _say(await getattr(bench, order["what"])(**order["how"]))


def main() -> None:
    """Read the command line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--address", required=True)
    uvloop.run(serve(arguments.parse_args().address))


if __name__ == "__main__":
    main()
