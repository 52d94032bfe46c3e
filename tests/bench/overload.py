"""overload: what twice the load that can be carried does to throughput and to renewals.

Once at the rate that 64 callers reach together, which is the most that can be carried, then at
twice that. Meanwhile a worker without a stream renews a lease ten times a second from this process,
which has nothing else to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as work
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.ids.system import SystemIds
from stretto_core.rpc.channel import open_channel

from tests.bench.bare_worker import EXECUTOR
from tests.bench.figures import percentile
from tests.bench.scale import Scale
from tests.bench.speeds import Measurement, say
from tests.bench.stack import CpuWatch, Layout, running
from tests.waiting import passed

RENEW_EVERY_S = 0.1


async def overload(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """Both loads on one stack, in turn."""
    async with running(Layout()) as (stack, client):
        await client.do("unary", runs=scale.warm_runs, outstanding=scale.outstanding)
        for _ in range(scale.rounds):
            reached = await client.do(
                "unary", runs=scale.independent_runs, outstanding=scale.outstanding
            )
            peak = reached["tasks_per_s"]
            say(f"overload: {scale.outstanding} callers reach {peak:.0f} a second")
            for name, times in (("overload-1x", 1), ("overload-2x", 2)):
                if name not in wanted:
                    continue
                await client.do("queue", tasks=1, tasks_per_run=1)
                async with _renewing(stack.address) as took_ms:
                    watch = CpuWatch()
                    measured = await client.do(
                        "offered", runs_per_s=times * peak, seconds=scale.offered_s
                    )
                # What refusals cost is in it; where all cores are busy, throughput is its inverse.
                measured["cpu_us_per_task"] = watch.used_us() / measured.pop("ended")
                measured["p99_ms"] = percentile(took_ms, 99)
                yield (
                    name,
                    measured,
                    {"offered_per_s": round(times * peak), "seconds": scale.offered_s},
                )


@asynccontextmanager
async def _renewing(address: str) -> AsyncIterator[list[float]]:
    """Yield how long renewals of one lease took, in milliseconds, from now on."""
    took_ms: list[float] = []
    async with open_channel(address) as channel:
        stub = WorkServiceStub(channel)
        ids = SystemIds()
        hello = work_pb2.Hello(worker_id="w", session_id=ids.uuid7(), executors=[EXECUTOR])
        request = work.LeaseWorkRequest(worker=hello, request_id=ids.uuid7(), count_max=1)
        request.wait_timeout.FromSeconds(10)
        leased = await stub.LeaseWork(request)
        renewals = [work_pb2.Renewal(token=leased.assignments[0].token)]

        ended = asyncio.Event()

        async def renew() -> None:
            while not ended.is_set():
                began_s = time.perf_counter()
                answer = await stub.RenewLeases(work.RenewLeasesRequest(renewals=renewals))
                assert not answer.receipts, "the lease is held to the end"
                took_ms.append((time.perf_counter() - began_s) * 1_000)
                await passed(RENEW_EVERY_S)

        renewing = asyncio.create_task(renew())
        try:
            yield took_ms
        finally:
            ended.set()
            await renewing
        outcome = work_pb2.Outcome(token=renewals[0].token, succeeded=work_pb2.OutcomeSucceeded())
        await stub.ReportOutcomes(work.ReportOutcomesRequest(outcomes=[outcome]))
