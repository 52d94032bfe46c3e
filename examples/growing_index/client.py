"""client.py: a plan that grows: what comes next is decided by what the first task found.

python examples/growing_index/worker.py &
python examples/growing_index/client.py docs
"""

from __future__ import annotations

import asyncio
import json
import sys

from stretto_sdk import Client, Plan, Run

DIRECTORIES_MAX = 100
"""As many inputs a task may have."""


async def first_result(client: Client, run: Run, task: str) -> object:
    """Return a task's result, as soon as it is there."""
    async for change in client.watch(run, tasks=True):
        for each in change.tasks:
            if each.name == task and each.state.value == "SUCCEEDED":
                return each.result
    raise SystemExit(f"the run ended before {task!r} did")


async def main(directory: str) -> None:
    plan = Plan("growing index", growing=True, run_timeout="10m")
    plan.task(
        "scan", executor="python", function="scan", queue="index", inputs={"directory": directory}
    )
    async with Client() as client:
        run = await client.start(plan)
        directories = await first_result(client, run, "scan")
        assert isinstance(directories, list)
        more = Plan()
        indexed = {
            f"d{number}": more.task(
                f"index-{number}",
                executor="python",
                function="index",
                queue="index",
                after=["scan"],
                inputs={"directory": each},
                timeouts={"heartbeat": "5s"},
            )
            for number, each in enumerate(directories[:DIRECTORIES_MAX])
        }
        more.task(
            "merge",
            executor="python",
            function="merge",
            queue="index",
            after=list(indexed.values()),
            inputs={name: task.output() for name, task in indexed.items()},
        )
        await client.add_tasks(run, more, sealed=True)
        ended = await client.wait(run)
        merged = {task.name: task for task in await client.tasks(ended)}["merge"]
        print(json.dumps({"state": ended.state, "index": merged.result}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "docs"))
