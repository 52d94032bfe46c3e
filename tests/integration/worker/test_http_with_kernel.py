"""http tasks of whole runs: a worker killed in mid-request, a server that says "later"."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from stretto_sdk import Client, Event

from tests.integration.kernel.serving import Served, served
from tests.integration.worker.http_server import HttpServer, http_server
from tests.integration.worker.test_with_kernel import PATIENCE_S, worker_service
from tests.waiting import until

TOKEN = "a-secret-of-the-worker"
SETTINGS = {"STRETTO_SECRET_API": TOKEN}


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database) as kernel:
        yield kernel


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as server:
        yield server


def plan_of(server: HttpServer, **more: Any) -> dict[str, Any]:
    headers = {"Authorization": {"secret": "API", "prefix": "Bearer "}}
    return {
        "tasks": [
            {
                "name": "pay",
                "executor": "http",
                "arguments": {"method": "POST", "url": f"{server.origin}/pay", "headers": headers},
                **more,
            }
        ],
        "output": {"from": "task", "task": "pay", "pointer": "/body"},
    }


def kinds(events: list[Event]) -> list[str]:
    return [event.type.rpartition(".")[2] for event in events]


async def test_a_request_whose_worker_was_killed_is_made_again_under_the_same_key(
    kernel: Served, server: HttpServer, tmp_path: Path
) -> None:
    async def hangs_at_first(request: web.Request) -> web.StreamResponse:
        if len(server.asked) == 1:
            return await server.hang(request)
        return web.json_response({"paid": True, "echo": request.headers["Authorization"]})

    server.handlers["/pay"] = hangs_at_first
    async with Client(kernel.address) as client:
        async with worker_service(kernel, "one", tmp_path, **SETTINGS) as one:
            run = await client.start(plan_of(server))
            await until(lambda: len(server.asked) == 1)
            async with worker_service(kernel, "two", tmp_path, **SETTINGS):
                os.kill(one, 9)
                output = await asyncio.wait_for(client.result(run), PATIENCE_S)
        events = [event async for event in client.events(run)]
    assert output == {"paid": True, "echo": "Bearer [secret]"}
    first, second = server.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert second.headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in json.dumps([event.body for event in events])


async def test_a_server_that_says_when_to_come_back_is_not_asked_before(
    kernel: Served, server: HttpServer, tmp_path: Path
) -> None:
    async def too_many_at_first(_: web.Request) -> web.StreamResponse:
        if len(server.asked) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"}, text=f"no, {TOKEN}")
        return web.json_response("welcome")

    server.handlers["/pay"] = too_many_at_first
    impatient = {"retry": {"max_attempts": 2, "initial_interval": "1ms"}}
    async with worker_service(kernel, "w", tmp_path, **SETTINGS), Client(kernel.address) as client:
        run = await client.start(plan_of(server, **impatient))
        assert await asyncio.wait_for(client.result(run), PATIENCE_S) == "welcome"
        events = [event async for event in client.events(run)]
    assert kinds(events)[1:4] == ["AttemptLeased", "AttemptFailed", "AttemptLeased"]
    failed, again = events[2], events[3]
    assert failed.time is not None and again.time is not None
    assert again.time - failed.time >= timedelta(seconds=1)
    assert TOKEN not in json.dumps([event.body for event in events])


async def test_a_secret_the_worker_does_not_have_fails_the_run_and_names_its_name(
    kernel: Served, server: HttpServer, tmp_path: Path
) -> None:
    async with worker_service(kernel, "w", tmp_path), Client(kernel.address) as client:
        ended = await asyncio.wait_for(client.wait(await client.start(plan_of(server))), PATIENCE_S)
    assert ended.failure is not None
    assert (ended.failure.reason, ended.failure.retryable) == ("SECRET_MISSING", False)
    assert not server.asked
