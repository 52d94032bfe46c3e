"""A real HTTP server that keeps what it was asked, and answers what a test told it to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpServer:
    """Answers by path; a path nobody set answers 200 with what it was asked."""

    origin: str = ""
    asked: list[Asked] = field(default_factory=list)
    handlers: dict[str, Handler] = field(default_factory=dict)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, path: str, status: int = 200, text: str = "null", **headers: str) -> None:
        """Answer a path so; header names are given with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def handler(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=text, headers=named)

        self.handlers[path] = handler

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.answer(path, status, "", Location=to)

    async def hang(self, _: web.Request) -> web.StreamResponse:
        """Never answer; note when the caller is gone."""
        try:
            await asyncio.Event().wait()
        finally:
            self.lost.set()
        raise AssertionError

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): text for name, text in request.headers.items()}
        body = await request.read()
        self.asked.append(Asked(request.method, request.path_qs, headers, body))
        handler = self.handlers.get(request.path)
        if handler is not None:
            return await handler(request)
        return web.json_response(
            {"path": request.path_qs, "headers": headers, "body": body.decode()},
            headers={"ETag": '"v1"', "X-Echo": headers.get("authorization", "")},
        )


@asynccontextmanager
async def http_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpServer]:
    """Serve on a free port of 127.0.0.1."""
    server = HttpServer()
    application = web.Application(client_max_size=1 << 24)
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        server.origin = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield server
    finally:
        await runner.cleanup()
