"""DBOS: durable workflows in PostgreSQL, taken from a queue by polling. `worker` or `client`, DSN.

The queue is polled every 20 ms and a result every 5 ms; the defaults are 1 s each.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from typing import Any

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
        options: Any = {"workflow_name": "noop", "queue_name": "noop"}
        return await self._client.enqueue_async(options, n)

    async def all_ended(self, submitted: Sequence[Any]) -> None:
        """See `Peer`."""
        open_states = ["ENQUEUED", "PENDING"]
        while await self._client.list_workflows_async(status=open_states, limit=1):
            await a_moment()

    async def run(self, n: int) -> None:
        """See `Peer`."""
        handle = await self.submit(n)
        await handle.get_result(polling_interval_sec=RESULT_POLL_S)


def work(dsn: str) -> None:
    """Work until killed."""
    DBOS(config={"name": "peer", "system_database_url": dsn, "run_admin_server": False})

    @DBOS.workflow(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
    async def noop(n: int) -> int:
        return n

    DBOS.launch()
    DBOS.register_queue("noop", worker_concurrency=SLOTS, polling_interval_sec=QUEUE_POLL_S)
    print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
    threading.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(sys.argv[2])
    else:
        asyncio.run(measure(Dbos(DBOSClient(system_database_url=sys.argv[2]))))
