"""What simulated workers run, whatever carries their words: bodies, and a ledger of them.

Bodies do what their task's arguments say, drawn per lease, so that a second attempt may go
otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, Payload
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto_core.errors import Refusal
from stretto_core.testing.log_watch import InvariantBroken
from stretto_sdk.worker import effects

from tests.simulation.board_hands import BoardHands
from tests.simulation.random_plans import EXECUTOR

LARGE_BYTES = b'{"n": 0}'
"""A result that is a blob; every simulated store has it."""
LARGE = BlobRef(digest=hashlib.sha256(LARGE_BYTES).digest(), size_bytes=len(LARGE_BYTES))
LARGE_SHARE = 0.15


@dataclass(slots=True)
class Ledger:
    """What bodies did, by lease: compared with what the log accepted.

    on_broken: told when a lease starts a second body.
    """

    on_broken: Callable[[InvariantBroken], None]
    started: set[effects.LeaseKey] = field(default_factory=set)
    reported: dict[effects.LeaseKey, effects.Ending] = field(default_factory=dict)

    def start(self, key: effects.LeaseKey) -> None:
        """A body of this lease begins."""
        if key in self.started:
            self.on_broken(InvariantBroken(f"3: the body of {key} is started twice"))
        self.started.add(key)


class Body:
    """One body: waits, reports, spawns, and ends as its task's arguments say."""

    def __init__(
        self,
        key: effects.LeaseKey,
        assignment: work_pb2.Assignment,
        draws: random.Random,
        spawn: Callable[[Body, list[plan_pb2.TaskSpec]], None],
        heartbeat: Callable[[Body, Payload], None],
        board: BoardHands,
    ) -> None:
        self._board = board
        self.key = key
        self.task: asyncio.Task[None] | None = None
        self._assignment = assignment
        self._draws = draws
        self._spawn = spawn
        self._heartbeat = heartbeat
        self._does: dict[str, Any] = json.loads(assignment.arguments_json or "{}")
        self._stopped = asyncio.Event()
        self._spawned: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def stop(self, kind: effects.StopKind) -> None:
        """It is asked to stop; a deaf body only hears that its lease is gone."""
        if kind is effects.StopKind.REVOKE or not self._does.get("deaf"):
            self._stopped.set()

    def spawn_answered(self, reason: str) -> None:
        """Its spawn was committed or refused."""
        if not self._spawned.done():
            self._spawned.set_result(reason)

    async def run(self) -> effects.Ending:
        """Return how it ended."""
        does = self._does
        hangs = self._draws.random() < does.get("hangs", 0)
        takes_s = self._draws.uniform(0, does.get("takes_ms", 0)) / 1_000
        if does.get("reports"):
            self._heartbeat(self, Payload(json=json.dumps({"epoch": self.key.epoch})))
        if does.get("writes"):
            with suppress(Refusal):  # Its lease is over, or the run is.
                token = self._assignment.token
                await self._board.write_some(self._assignment.run, self._assignment.task, token)
        if await self._is_stopped_within(3_600.0 if hangs else takes_s):
            return effects.Stopped()
        children = self._children()
        if children and does.get("spawns_early"):
            self._spawn(self, children)
            await self._wake_by_spawn_or_stop()
            children = []
        if self._stopped.is_set():
            return effects.Stopped()
        drawn = self._draws.random()
        if drawn < does.get("releases", 0):
            return effects.Released("not now")
        if drawn < does.get("fails", 0):
            failure = Failure(reason="BODY_FAILED", message="as told", retryable=does["retryable"])
            if later_ms := does.get("retry_after_ms"):
                failure.retry_after.FromMilliseconds(later_ms)
            return effects.Failed(failure)
        result = {"epoch": self.key.epoch, "inputs": sorted(self._assignment.inputs)}
        if self._draws.random() < LARGE_SHARE:
            left = (Artifact(name="left", blob=LARGE),)
            stored = Payload(blob=LARGE, content_type="application/json")
            return effects.Succeeded(stored, tuple(children), left)
        return effects.Succeeded(Payload(json=json.dumps(result)), tuple(children))

    async def _wake_by_spawn_or_stop(self) -> None:
        stopped = asyncio.create_task(self._stopped.wait(), name="stopped")
        answered: asyncio.Future[Any] = self._spawned
        await asyncio.wait((answered, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def _is_stopped_within(self, span_s: float) -> bool:
        try:
            async with asyncio.timeout(span_s):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True

    def _children(self) -> list[plan_pb2.TaskSpec]:
        children: list[plan_pb2.TaskSpec] = []
        for number in range(self._does.get("spawns", 0)):
            child = plan_pb2.TaskSpec(name=f"c{number}", executor=EXECUTOR)
            child.arguments_json = json.dumps({"takes_ms": 100, "fails": 0.1, "retryable": True})
            child.retry.max_attempts = 3
            child.retry.initial_interval.FromMilliseconds(200)
            child.timeouts.heartbeat.FromSeconds(5)
            if children:
                child.dependencies.add(task=children[-1].name)
            children.append(child)
        return children
