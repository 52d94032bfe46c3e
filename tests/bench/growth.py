"""size, queued and ended: what a task costs as a run, the backlog and the past grow.

CPU time over all processes, so that a busy machine does not show: the bars are about flatness. The
sizes alternate round by round. Bodies there are none, so that the suite's share is all there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from tests.bench.processes import rss_mb
from tests.bench.scale import FULL, Scale
from tests.bench.speeds import Measurement, say
from tests.bench.stack import BARE_WORKER, CpuWatch, Layout, running

SLOTS = 500
MB = 1_000_000


async def sizes(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """One run of 1,000, 10,000, 100,000 tasks: CPU per task, start and plan included.

    Of the smaller ones several in turn: a second of CPU is too little to tell sizes apart.
    """
    named = dict(zip((f"size-{tasks}" for tasks in FULL.size_tasks), scale.size_tasks, strict=True))
    async with running(Layout(worker=BARE_WORKER, slots=SLOTS)) as (_, client):
        await client.do("large", tasks=scale.size_tasks[0])
        for _ in range(scale.rounds):
            for name in wanted:
                run_count = max(1, scale.size_measured_tasks // named[name])
                watch = CpuWatch()
                for _ in range(run_count):
                    await client.do("large", tasks=named[name])
                measured = {"cpu_us_per_task": watch.used_us() / (named[name] * run_count)}
                said = {"tasks": named[name], "runs_in_turn": run_count}
                yield name, measured, {**said, "worker_slots": SLOTS}


async def queued(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """1,000 and 1,000,000 queued tasks: cost and latency of leasing the next, and memory.

    Both suites stand side by side and are asked in turn: what else the machine does meets both.
    """
    named = dict(
        zip((f"queued-{tasks}" for tasks in FULL.queued_tasks), scale.queued_tasks, strict=True)
    )
    async with AsyncExitStack() as stacks:
        backlogs = []
        for name in wanted:
            stack, client = await stacks.enter_async_context(
                running(Layout(worker_count=0, views=False))
            )
            assert stack.kernel.pid is not None
            empty_mb = rss_mb(stack.kernel.pid)
            say(f"{name}: queueing {named[name]} tasks")
            queued_count = named[name] + scale.rounds * scale.lease_steps
            await client.do("queue", tasks=queued_count, tasks_per_run=scale.queued_tasks_per_run)
            kernel_mb = rss_mb(stack.kernel.pid)
            memory = {
                "rss_mb": kernel_mb,
                "bytes_per_task": (kernel_mb - empty_mb) * MB / queued_count,
            }
            backlogs.append((name, stack, client, memory, round(empty_mb, 1)))
        for _ in range(scale.rounds):
            for name, stack, client, memory, empty_mb in backlogs:
                watch = CpuWatch()
                measured = await client.do("steps", address=stack.address, count=scale.lease_steps)
                yield (
                    name,
                    {
                        "cpu_us_per_task": watch.used_us() / scale.lease_steps,
                        "p99_ms": measured["p99_ms"],
                        **memory,
                    },
                    {
                        "tasks": named[name],
                        "tasks_per_run": scale.queued_tasks_per_run,
                        "steps": scale.lease_steps,
                        "rss_mb_before": empty_mb,
                    },
                )


async def ended(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """One-task runs that ended: what the kernel's memory grows by once the first quarter is done.

    Until then it fills what it keeps of ended runs.
    """
    quarter = scale.ended_runs // 4
    async with running(Layout(worker=BARE_WORKER, slots=SLOTS)) as (stack, client):
        assert stack.kernel.pid is not None
        before_mb = rss_mb(stack.kernel.pid)
        await client.do("bare", runs=quarter, outstanding=scale.outstanding)
        filled_mb = rss_mb(stack.kernel.pid)
        await client.do("bare", runs=scale.ended_runs - quarter, outstanding=scale.outstanding)
        after_mb = rss_mb(stack.kernel.pid)
        yield (
            wanted[0],
            {
                "rss_mb": after_mb,
                "bytes_per_task": (after_mb - filled_mb) * MB / (scale.ended_runs - quarter),
            },
            {
                "runs": scale.ended_runs,
                "rss_mb_before": round(before_mb, 1),
                "rss_mb_at_a_quarter": round(filled_mb, 1),
            },
        )
