"""W1, W2, W3 and append: what a suite that nothing happens to reaches.

The rounds of workloads that share a layout run on one stack, one after another, so that what grows
with the log grows alike for all.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from tests.bench.figures import Round
from tests.bench.scale import Scale
from tests.bench.stack import BARE_WORKER, ClientProcess, CpuWatch, Layout, running

Measurement = tuple[str, Round, dict[str, object]]
"""A workload's name, what one round of it measured, and its settings."""


async def independent_runs(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """W1-unary and W1-coalesced, W2, W3-fan and W3-chain on one stack with one worker."""
    async with running(Layout()) as (_, client):
        for how in ("unary", "coalesced"):
            await client.do(how, runs=scale.warm_runs, outstanding=scale.outstanding)
        await client.do("sequence", runs=min(scale.warm_runs, scale.sequence_runs))
        await client.do("fan", tasks=scale.fan_tasks)
        for _ in range(scale.rounds):
            for name in wanted:
                measured, settings = await _one(scale, client, name)
                yield name, measured, settings


async def _one(scale: Scale, client: ClientProcess, name: str) -> tuple[Round, dict[str, object]]:
    match name:
        case "W1-unary" | "W1-coalesced":
            settings: dict[str, object] = {
                "runs": scale.independent_runs,
                "outstanding": scale.outstanding,
                "worker_slots": Layout().slots,
            }
            watch = CpuWatch()
            measured = await client.do(
                name.removeprefix("W1-"),
                runs=scale.independent_runs,
                outstanding=scale.outstanding,
            )
            # Until the views have caught up: that work belongs to the tasks.
            measured["cpu_us_per_task"] = watch.used_us() / scale.independent_runs
        case "W2":
            settings = {"runs": scale.sequence_runs}
            measured = await client.do("sequence", runs=scale.sequence_runs)
        case "W3-fan":
            settings = {"tasks": scale.fan_tasks}
            measured = await client.do("fan", tasks=scale.fan_tasks)
        case _:
            settings = {"tasks": scale.chain_tasks}
            measured = await client.do("chain", tasks=scale.chain_tasks)
    return measured, settings


async def append(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """Events through the whole path, in batches on one work stream and one event stream."""
    layout = Layout(worker=BARE_WORKER, slots=500)
    async with running(layout) as (_, client):
        await client.do("large", tasks=scale.append_tasks // 10)
        for _ in range(scale.rounds):
            measured = await client.do("large", tasks=scale.append_tasks)
            yield (
                wanted[0],
                {"events_per_s": measured["events"] / measured["wall_s"]},
                {"tasks": scale.append_tasks, "worker_slots": layout.slots, "bodies": "none"},
            )


def say(line: str) -> None:
    """Progress, for people."""
    sys.stderr.write(f"{line}\n")
