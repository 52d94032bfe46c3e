"""Load that does not wait: starts come at a rate, whatever becomes of those before them.

The client's half of `overload`. A start that is refused is counted and given up, since what is
offered is what comes in; every run that was accepted is seen to succeed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import run_service_pb2 as pb
from stretto.run.v1.plan_pb2 import TaskGraph
from stretto.run.v1.run_service_pb2_grpc import RunServiceStub
from stretto_core.errors import Exhausted, Unavailable
from stretto_core.ids import IdSource
from stretto_core.rpc.retry import refusals
from stretto_sdk import Client, Run

from tests.waiting import passed

TURN_S = 0.01


class Offered:
    """Starts of one graph at a rate. Make it on the running loop."""

    def __init__(
        self, client: Client, stub: RunServiceStub, ids: IdSource, graph: TaskGraph
    ) -> None:
        self._client = client
        self._stub: Any = stub
        self._ids = ids
        self._graph = graph
        self._loop = asyncio.get_running_loop()
        self._refused_count = 0
        self._ended_count = 0

    async def measure(self, *, runs_per_s: float, seconds: float) -> dict[str, float]:
        """Offer that rate for so long; tell what ended, a second until the last did."""
        began_s = self._loop.time()
        calls: list[asyncio.Task[None]] = []
        while (elapsed_s := self._loop.time() - began_s) < seconds:
            due = int(elapsed_s * runs_per_s) - len(calls)
            calls += [asyncio.create_task(self._one(len(calls) + n)) for n in range(due)]
            await passed(TURN_S)
        await asyncio.gather(*calls)
        return {
            "tasks_per_s": self._ended_count / (self._loop.time() - began_s),
            "refused": self._refused_count,
            "ended": self._ended_count,
        }

    async def _one(self, n: int) -> None:
        request = pb.StartRunRequest(
            request_id=self._ids.uuid7(), task_graph=self._graph, input=Payload(json=str(n))
        )
        try:
            with refusals():
                started = await self._stub.StartRun(request)
        except (Exhausted, Unavailable):
            self._refused_count += 1
            return
        ended: Run = await self._client.wait(started.run.name)
        assert ended.state == "SUCCEEDED", "every run that was accepted succeeds"
        self._ended_count += 1
