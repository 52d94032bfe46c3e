"""as-of: one large run, read as it was at random moments; nothing of it in the kernel's memory.

p95_ms: GetRun as of a version, and as of a time, in turn. tasks_p95_ms: a page of ListTasks as of a
version. filtered_p95_ms: such a page of those that were running. live_p95_ms: a page of those that
succeeded, as the views have them.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from stretto.common.v1.as_of_pb2 import AsOf
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto.run.v1.run_service_pb2_grpc import RunServiceStub
from stretto_core.rpc.channel import open_channel

from tests.bench.figures import percentile
from tests.bench.scale import Scale
from tests.bench.speeds import Measurement
from tests.bench.stack import BARE_WORKER, Layout, running

Read = Callable[[], Awaitable[object]]


async def past(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """Reads of one run's past, one after another."""
    async with running(Layout(worker=BARE_WORKER, slots=500)) as (stack, client):
        made = await client.do("large", tasks=scale.past_tasks)
        # What was folded is forgotten; the views have everything by the time it serves again.
        await stack.kernel.stop()
        await stack.start_kernel()
        async with open_channel(stack.address) as channel:
            runs = RunServiceStub(channel)
            name = f"namespaces/default/runs/{made['run_id']}"
            run = (await runs.GetRun(pb.GetRunRequest(name=name))).run
            chance = random.Random(scale.past_tasks)

            def get() -> Awaitable[object]:
                moment = AsOf()
                if chance.random() < 0.5:
                    moment.version = chance.randint(1, run.version)
                else:
                    moment.time.FromNanoseconds(_instant_ns(run, chance))
                return runs.GetRun(pb.GetRunRequest(name=name, as_of=moment))

            def listed(filter: str, *, past: bool) -> Read:
                def read() -> Awaitable[object]:
                    moment = AsOf(version=chance.randint(1, run.version)) if past else None
                    return runs.ListTasks(
                        pb.ListTasksRequest(parent=name, as_of=moment, filter=filter)
                    )

                return read

            reads: dict[str, Read] = {
                "p95_ms": get,
                "tasks_p95_ms": listed("", past=True),
                "filtered_p95_ms": listed("state = RUNNING", past=True),
                "live_p95_ms": listed("state = SUCCEEDED", past=False),
            }
            for _ in range(scale.rounds):
                measured = {metric: await _p95(read, scale) for metric, read in reads.items()}
                yield wanted[0], measured, {"tasks": scale.past_tasks, "events": run.version}


def _instant_ns(run: run_pb2.Run, chance: random.Random) -> int:
    return chance.randint(run.create_time.ToNanoseconds(), run.update_time.ToNanoseconds())


async def _p95(read: Read, scale: Scale) -> float:
    took_ms = []
    for _ in range(scale.past_reads):
        began_s = time.perf_counter()
        await read()
        took_ms.append((time.perf_counter() - began_s) * 1e3)
    return percentile(took_ms, 95)
