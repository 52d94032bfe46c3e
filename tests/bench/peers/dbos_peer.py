"""DBOS: durable workflows in PostgreSQL, taken from a queue by polling. `worker` or `client`, DSN.

The queue is polled every 20 ms and a result every 5 ms; the defaults are 1 s each. The tasks of a
fan are on the queue too; those of a chain are child workflows that the parent calls.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from typing import Any

import uvloop
from dbos import DBOS, DBOSClient

from tests.bench.peers.driving import a_moment, measure

SLOTS = 64
QUEUE_POLL_S = 0.02
RESULT_POLL_S = 0.005


class Dbos:
    """Its client."""

    def __init__(self, client: DBOSClient) -> None:
        self._client = client

    async def submit(self, n: int) -> Any:
        """See `Peer`."""
        return await self._enqueue("noop", n)

    async def all_ended(self, submitted: Sequence[Any]) -> None:
        """See `Peer`."""
        open_states = ["ENQUEUED", "PENDING"]
        while await self._client.list_workflows_async(status=open_states, limit=1):
            await a_moment()

    async def run(self, n: int) -> None:
        """See `Peer`."""
        await self._result("noop", n)

    async def fan(self, tasks: int) -> None:
        """See `Composing`."""
        await self._result("fan", tasks)

    async def chain(self, tasks: int) -> None:
        """See `Composing`."""
        await self._result("chain", tasks)

    async def _enqueue(self, workflow: str, argument: int) -> Any:
        options: Any = {"workflow_name": workflow, "queue_name": "noop"}
        return await self._client.enqueue_async(options, argument)

    async def _result(self, workflow: str, argument: int) -> None:
        handle = await self._enqueue(workflow, argument)
        await handle.get_result(polling_interval_sec=RESULT_POLL_S)


def work(dsn: str) -> None:
    """Work until killed."""
    DBOS(
        config={
            "name": "peer",
            "system_database_url": dsn,
            "run_admin_server": False,
            "log_level": "WARNING",
        }
    )

    @DBOS.workflow(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
    async def noop(n: int) -> int:
        return n

    @DBOS.workflow(name="fan")  # type: ignore[untyped-decorator,unused-ignore]
    async def fan(tasks: int) -> int:
        handles = [await DBOS.enqueue_workflow_async("noop", noop, n) for n in range(tasks)]
        results = (each.get_result(polling_interval_sec=RESULT_POLL_S) for each in handles)
        return len(await asyncio.gather(*results))

    @DBOS.workflow(name="chain")  # type: ignore[untyped-decorator,unused-ignore]
    async def chain(tasks: int) -> int:
        last = 1
        for _ in range(tasks):
            last = await noop(last)
        return last

    DBOS.launch()
    DBOS.register_queue("noop", worker_concurrency=SLOTS, polling_interval_sec=QUEUE_POLL_S)
    print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
    threading.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(sys.argv[2])
    else:
        uvloop.run(measure(Dbos(DBOSClient(system_database_url=sys.argv[2]))))
