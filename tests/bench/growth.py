"""size and queued: what a task costs as a run grows, and as the backlog grows.

CPU time over all processes, so that a busy machine does not show: the bars are about flatness. The
sizes alternate round by round. Bodies there are none, so that the suite's share is all there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from tests.bench.processes import rss_mb
from tests.bench.scale import FULL, Scale
from tests.bench.speeds import Measurement, say
from tests.bench.stack import BARE_WORKER, CpuWatch, Layout, running

SLOTS = 500


async def sizes(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """One run of 1,000, 10,000, 100,000 tasks: CPU per task, start and plan included."""
    named = dict(zip((f"size-{tasks}" for tasks in FULL.size_tasks), scale.size_tasks, strict=True))
    async with running(Layout(worker=BARE_WORKER, slots=SLOTS)) as (_, client):
        await client.do("large", tasks=scale.size_tasks[0])
        for _ in range(scale.rounds):
            for name in wanted:
                watch = CpuWatch()
                await client.do("large", tasks=named[name])
                measured = {"cpu_us_per_task": watch.used_us() / named[name]}
                yield name, measured, {"tasks": named[name], "worker_slots": SLOTS}


async def queued(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """1,000 and 1,000,000 queued tasks: cost and latency of leasing the next, and memory."""
    named = dict(
        zip((f"queued-{tasks}" for tasks in FULL.queued_tasks), scale.queued_tasks, strict=True)
    )
    for name in wanted:
        async with running(Layout(worker_count=0, views=False)) as (stack, client):
            assert stack.kernel.pid is not None
            empty_mb = rss_mb(stack.kernel.pid)
            say(f"{name}: queueing {named[name]} tasks")
            await client.do(
                "queue",
                tasks=named[name] + scale.rounds * scale.lease_steps,
                tasks_per_run=scale.queued_tasks_per_run,
            )
            kernel_mb = rss_mb(stack.kernel.pid)
            for _ in range(scale.rounds):
                watch = CpuWatch()
                measured = await client.do("steps", address=stack.address, count=scale.lease_steps)
                yield (
                    name,
                    {
                        "cpu_us_per_task": watch.used_us() / scale.lease_steps,
                        "p99_ms": measured["p99_ms"],
                        "rss_mb": kernel_mb,
                    },
                    {
                        "tasks": named[name],
                        "tasks_per_run": scale.queued_tasks_per_run,
                        "steps": scale.lease_steps,
                        "rss_mb_before": round(empty_mb, 1),
                    },
                )
