"""The `http` executor: makes one request per attempt and turns its answer into the result.

The arguments are described in stretto_sdk/arguments/http.py, what an answer means in
domain/http_results.py. A stop closes the connection; whether the other side did what it was asked
by then nobody knows, as after any lost answer: the same Idempotency-Key on every try tells it.
Runs on the protocol's loop.
"""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.errors import Refusal
from stretto_sdk.arguments.http import Expect, parse_task
from stretto_sdk.arguments.secret_references import FindSecret, SecretUnavailable
from stretto_sdk.worker.context import idempotency_key
from stretto_sdk.worker.effects import Ending, LeaseKey, SpawnAnswered, Stop, key_of
from stretto_sdk.worker.endings import failed, value_of
from stretto_sdk.worker.ports import Reports

from stretto_worker.body_tasks import ending_of_task
from stretto_worker.domain.host_rules import HostRules
from stretto_worker.domain.http_request import request_of
from stretto_worker.domain.http_results import ending_of_answer
from stretto_worker.http.broken_call import CallBroken

if TYPE_CHECKING:
    from stretto_worker.http.client import HttpClient

LARGE_BYTES = 256 * 1024
"""An answer with more is read in a thread."""
_CLIENT = "stretto_worker.http.client"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """rules: whom tasks may call. authorities: certificates trusted besides the system's."""

    rules: HostRules
    authorities: Path | None = None


class HttpExecutor:
    """Runs the requests of http tasks, each a coroutine of the loop."""

    def __init__(self, settings: HttpSettings, *, find_secret: FindSecret, clock: Clock) -> None:
        self._settings = settings
        self._find_secret = find_secret
        self._clock = clock
        self._attempts: dict[LeaseKey, asyncio.Task[Ending]] = {}
        self._client: HttpClient | None = None
        self._opening = asyncio.Lock()
        self._reports: Reports | None = None

    def attach(self, reports: Reports) -> None:
        """Remember whom to report to."""
        self._reports = reports

    def begin(self, assignment: work_pb2.Assignment) -> None:
        """Start the request of an attempt."""
        key = key_of(assignment.token)
        attempt = asyncio.get_running_loop().create_task(self._run(assignment))
        self._attempts[key] = attempt
        attempt.add_done_callback(partial(self._ended, key))

    def stop(self, stop: Stop) -> None:
        """Give the request up."""
        attempt = self._attempts.get(stop.key)
        if attempt is not None:
            attempt.cancel()

    def spawn_answered(self, answer: SpawnAnswered) -> None:
        """Nothing: a request asks for no tasks."""

    async def close(self) -> None:
        """Give every request up and close the connections."""
        attempts = list(self._attempts.values())
        for attempt in attempts:
            attempt.cancel()
        if attempts:
            await asyncio.wait(attempts)
        if self._client is not None:
            await self._client.close()

    async def _run(self, assignment: work_pb2.Assignment) -> Ending:
        try:
            inputs = {
                name: value_of(payload, source=f"input {name}")
                for name, payload in assignment.inputs.items()
            }
            task = parse_task(assignment.arguments_json, inputs)
            key = idempotency_key(assignment.run, assignment.task, assignment.activation)
            request, redaction = request_of(task, self._find_secret, key)
        except Refusal as refusal:
            return failed("INVALID_ARGUMENTS", refusal.message)
        except SecretUnavailable as missing:
            return failed(missing.reason, missing.message)
        client = await self._opened()
        reads_body = task.answers.expect is not Expect.NOTHING
        try:
            answer = await client.call(request, task.limits, reads_body=reads_body)
        except CallBroken as broken:
            message = redaction.text(f"{request.shown}: {broken.message}")
            return failed(broken.reason, message, retryable=broken.retryable)
        now = datetime.fromtimestamp(self._clock.now_ns() / NS_PER_S, UTC)
        read = partial(ending_of_answer, answer, task.answers, request.shown, redaction, now)
        # What takes long to read must not keep leases from being renewed.
        return await asyncio.to_thread(read) if len(answer.body) > LARGE_BYTES else read()

    async def _opened(self) -> HttpClient:
        async with self._opening:
            if self._client is None:
                # In a thread: loading the library takes longer than the loop may stand still.
                module = await asyncio.to_thread(importlib.import_module, _CLIENT)
                self._client = module.HttpClient(self._settings.rules, self._settings.authorities)
            return self._client

    def _ended(self, key: LeaseKey, attempt: asyncio.Task[Ending]) -> None:
        del self._attempts[key]
        assert self._reports is not None, "attached before the first body"
        self._reports.ended(key, ending_of_task("http", key, attempt))
