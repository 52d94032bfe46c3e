"""Restate: a server in Rust that journals calls and pushes them to the worker over HTTP/2.

`worker` or `client`, then the URLs of ingress and admin with a comma between. Hypercorn serves the
worker with the settings that Restate's documentation has for production, on uvloop. A submit is a
call that answers once the handler has returned: asking for it and for its end in two calls, as one
may, takes a sixth more CPU time a task.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from typing import Any

import aiohttp
import restate
import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.bench.peers.driving import a_moment, measure

UNLIMITED = 2**31 - 1

service = restate.Service("peer")


@service.handler()  # type: ignore[untyped-decorator,unused-ignore]
async def noop(_context: Any, n: int) -> int:
    """Return what came in."""
    return n


@service.handler()  # type: ignore[untyped-decorator,unused-ignore]
async def fan(context: Any, tasks: int) -> int:
    """Call that many tasks at once and join them."""
    calls = [context.service_call(noop, arg=n) for n in range(tasks)]
    return len(await restate.gather(*calls))


@service.handler()  # type: ignore[untyped-decorator,unused-ignore]
async def chain(context: Any, tasks: int) -> int:
    """Call that many tasks, each with the result of the one before."""
    last = 1
    for _ in range(tasks):
        last = await context.service_call(noop, arg=last)
    return last


class Restate:
    """Its client."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def submit(self, n: int) -> None:
        """See `Peer`: it has also ended when this returns."""
        await self._call("noop", n)

    async def all_ended(self, submitted: Sequence[None]) -> None:
        """See `Peer`."""

    async def run(self, n: int) -> None:
        """See `Peer`."""
        await self._call("noop", n)

    async def fan(self, tasks: int) -> None:
        """See `Composing`."""
        await self._call("fan", tasks)

    async def chain(self, tasks: int) -> None:
        """See `Composing`."""
        await self._call("chain", tasks)

    async def _call(self, handler: str, argument: int) -> None:
        async with self._session.post(f"/peer/{handler}", json=argument) as answer:
            answer.raise_for_status()
            await answer.json()


async def work(ingress: str, admin: str) -> None:
    """Work until killed."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.loglevel = "ERROR"
    config.h2_max_concurrent_streams = UNLIMITED
    config.keep_alive_max_requests = UNLIMITED
    config.keep_alive_timeout = UNLIMITED
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(restate.app([service]), config))  # type: ignore[arg-type,unused-ignore]
        await _answered(f"{admin}/deployments", {"uri": f"http://127.0.0.1:{port}"})
        await _answered(f"{ingress}/peer/noop", 0)
        print("ready", flush=True)  # noqa: T201 - whoever started it waits for this


async def _answered(url: str, body: object) -> None:
    """Return once a server that is starting has taken it."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.post(url, json=body) as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientConnectionError:
                pass  # It does not listen yet.
            await a_moment()


async def main(role: str, urls: str) -> None:
    """Work until killed, or be the client."""
    ingress, admin = urls.split(",")
    if role == "worker":
        await work(ingress, admin)
        return
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(ingress, connector=connector) as session:
        await measure(Restate(session))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
