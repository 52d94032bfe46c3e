"""Celery on Redis that syncs each write, acknowledged late. `worker` or `client`, then the URL.

Its client has no asyncio: submits run in as many threads as calls are outstanding. Its own way to
wait for results is made for one thread, so the client looks for them as often as it can.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop
from celery import Celery, chain, chord, group
from celery.signals import worker_ready

from tests.bench.peers.driving import a_moment, measure

SLOTS = 64

app = Celery("peer")
app.conf.update(
    broker_pool_limit=SLOTS,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    result_persistent=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)


@app.task(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
def noop(n: int) -> int:
    """Return what came in."""
    return n


@app.task(name="count")  # type: ignore[untyped-decorator,unused-ignore]
def count(results: list[int]) -> int:
    """Return how many came in."""
    return len(results)


class OnRedis:
    """Its client."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SLOTS)

    async def submit(self, n: int) -> Any:
        """See `Peer`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, noop.delay, n)

    async def all_ended(self, submitted: Sequence[Any]) -> None:
        """See `Peer`."""
        keys = [app.backend.get_key_for_task(each.id) for each in submitted]
        while app.backend.client.exists(*keys) < len(keys):
            await a_moment()

    async def run(self, n: int) -> None:
        """See `Peer`."""
        self._see_end(noop.delay(n))

    async def fan(self, tasks: int) -> None:
        """See `Composing`."""
        self._see_end(chord(group(noop.s(n) for n in range(tasks)))(count.s()))

    async def chain(self, tasks: int) -> None:
        """See `Composing`."""
        self._see_end(chain(noop.s(1), *(noop.s() for _ in range(tasks - 1))).apply_async())

    def _see_end(self, submitted: Any) -> None:
        key = app.backend.get_key_for_task(submitted.id)
        while not app.backend.client.exists(key):
            pass  # Each look is a round trip to the server.


@worker_ready.connect  # type: ignore[untyped-decorator,unused-ignore]
def _say_ready(**_: object) -> None:
    print("ready", flush=True)  # noqa: T201 - whoever started it waits for this


def main(role: str, url: str) -> None:
    """Work until killed, or be the client."""
    app.conf.update(broker_url=url, result_backend=url)
    if role == "worker":
        app.worker_main(["worker", "--pool=threads", f"--concurrency={SLOTS}", "--loglevel=ERROR"])
    else:
        uvloop.run(measure(OnRedis()))


if __name__ == "__main__":
    main(*sys.argv[1:])
