"""Procrastinate: a queue in PostgreSQL, its worker woken by NOTIFY. `worker` or `client`, then DSN.

It has no call that waits for a job, so the client looks at the job's row as often as it can, and
nothing that makes one job wait for others. The worker polls every 20 ms besides, not every 5 s: a
notification that comes while it reads is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import uvloop
from procrastinate import App, PsycopgConnector

from tests.bench.peers.driving import a_moment, measure

SLOTS = 64
POLL_S = 0.02


def make_app(dsn: str) -> App:
    """The application, with its one task."""
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=4, max_size=16))

    @app.task(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
    async def noop(n: int) -> int:
        return n

    return app


class Procrastinate:
    """Its client."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._noop = app.tasks["noop"]

    async def submit(self, n: int) -> int:
        """See `Peer`."""
        job: int = await self._noop.defer_async(n=n)
        return job

    async def all_ended(self, submitted: Sequence[int]) -> None:
        """See `Peer`: nothing else is in the table."""
        left = "SELECT count(*) AS count FROM procrastinate_jobs WHERE status <> 'succeeded'"
        while (await self._app.connector.execute_query_one_async(left))["count"]:
            await a_moment()

    async def run(self, n: int) -> None:
        """See `Peer`."""
        job = await self.submit(n)
        while str((await self._app.job_manager.get_job_status_async(job)).value) != "succeeded":
            pass  # Each look is a round trip to the database.


async def main(role: str, dsn: str) -> None:
    """Work until killed, or be the client."""
    app = make_app(dsn)
    async with app.open_async():
        if role == "worker":
            await app.schema_manager.apply_schema_async()
            print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
            await app.run_worker_async(
                concurrency=SLOTS,
                fetch_job_polling_interval=POLL_S,
                install_signal_handlers=False,
            )
        else:
            await measure(Procrastinate(app))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
