"""Two tasks that hand a counter to and fro on the run's blackboard.

    python examples/relay_race/race.py

Each waits until the other has written its turn, adds one, and writes its own: `ping` the odd turns,
`pong` the even ones. The goal stands on the blackboard, too. Whoever is killed goes on where the
blackboard says, and what a stale one still writes is refused.
"""

from __future__ import annotations

import asyncio
import sys

from stretto_sdk import Client, Plan, TaskContext, Worker

worker = Worker(queues=["race"])


@worker.task
async def turns(ctx: TaskContext, other: str, first: bool, goal: int) -> int:
    board = ctx.blackboard
    mine = int(str(await board.get(":progress/turn", 0)))
    if first and not mine:
        mine = 1
        await board.put(":progress/turn", mine)
    async for entry in board.watch(f"{other}:progress/"):
        turn = int(str(entry.value))
        if turn >= goal:
            break
        if turn == mine + 1 or (turn == 1 and not mine):
            mine = turn + 1
            await board.put(":progress/turn", mine)
            if mine >= goal:
                break
    return mine


def race() -> Plan:
    """Return the plan; its tasks begin once the goal is set."""
    plan = Plan("relay race")
    goal = plan.board("context/goal")
    for name, other, first in (("ping", "pong", True), ("pong", "ping", False)):
        plan.task(
            name,
            executor="python",
            function="turns",
            queue="race",
            inputs={"other": other, "first": first, "goal": goal},
        )
    return plan


async def main(goal: int) -> None:
    """Start the race on hold, set its goal, let it run, and print who wrote what."""
    serving = asyncio.create_task(worker.serve())
    async with Client() as client:
        await client.update_queue("race", paused=True, reason="the goal is not set")
        run = await client.start(race())
        await client.blackboard(run).put("context/goal", goal, expected=0)
        await client.update_queue("race", paused=False)
        async for entry in client.blackboard(run).watch():
            print(entry.revision, entry.key, entry.value)
        print("won at", max(int(str(task.result)) for task in await client.tasks(run)))
    serving.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
