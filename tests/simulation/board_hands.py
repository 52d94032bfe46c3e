"""Hands on the blackboards of a simulated installation: clients' and lease holders'.

Every call is sent again under its request id until it is answered. What is heard is held against
the log: a write took effect at its revision, after it was asked and onto what it expected; a read
shows the board as of its revision, which is no older than what was committed before it was asked;
a refused comparison saw a revision that the entry had meanwhile. Together: the history of every
entry is that of a linearizable register with compare-and-set.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from stretto.blackboard.v1 import blackboard_service_pb2 as wire
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto_core.errors import Conflict, DeadlineExceeded, Exhausted, Refusal, Unavailable
from stretto_core.ids import IdSource, StreamId
from stretto_core.testing.log_watch import InvariantBroken, LogWatch
from stretto_core.testing.network import Network
from stretto_core.testing.process import Process

from tests.simulation.log_fold import LogFold

CALL_TIMEOUT_S = 3.0
PATHS = ("progress/percent", "result/answer", "context/goal")
Ask = Callable[[str, Message], Awaitable[Any]]
"""Sends a request again and again until it is answered or refused for good."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What is heard is held against. on_broken: told what does not hold."""

    watch: LogWatch
    fold: LogFold
    on_broken: Callable[[BaseException], None]


def insisting(
    network: Network, process: Process, addresses: Sequence[str], draws: random.Random
) -> Ask:
    """Return what sends a request of a process until it is answered or refused for good."""

    async def ask(method: str, request: Message) -> Any:
        while True:
            address = draws.choice(addresses)
            try:
                return await network.call(
                    process, address, method, request, timeout_s=CALL_TIMEOUT_S
                )
            except (Unavailable, DeadlineExceeded, Exhausted):
                await asyncio.sleep(draws.uniform(0.05, 1.0))

    return ask


class BoardHands:
    """Acts on boards over one client's or worker's calls."""

    def __init__(self, ask: Ask, ids: IdSource, draws: random.Random, judge: Judge) -> None:
        self._ask = ask
        self._ids = ids
        self._draws = draws
        self._watch = judge.watch
        self._fold = judge.fold
        self._on_broken = judge.on_broken

    async def write_some(self, run: str, scope: str = "", token: LeaseToken | None = None) -> None:
        """Write, read and delete a little. Raises the refusal that ends it, but of a comparison."""
        for _ in range(self._draws.randint(1, 3)):
            drawn = self._draws.random()
            if drawn < 0.6:
                await self._put(run, scope, token)
            elif drawn < 0.8:
                await self._delete(run, scope, token)
            else:
                await self._read(run, scope)

    async def _put(self, run: str, scope: str, token: LeaseToken | None) -> None:
        key = self._key(scope)
        expected = await self._expected(run, key)
        value = Payload(json=str(self._draws.randint(0, 9)))
        request = wire.PutEntriesRequest(
            run=run,
            writes=[wire.EntryWrite(key=key, value=value, expected_revision=expected)],
            token=token,
            request_id=self._ids.uuid7(),
        )
        if (revision := await self._written("PutEntries", run, request, key, expected)) is None:
            return
        entry = self._entry(run, key, revision)
        self._hold(entry == (revision, value), f"{key}: {entry} at {revision}, not {value}")

    async def _delete(self, run: str, scope: str, token: LeaseToken | None) -> None:
        key = self._key(scope)
        expected = await self._expected(run, key)
        request = wire.DeleteEntriesRequest(
            run=run,
            deletions=[wire.EntryDeletion(key=key, expected_revision=expected)],
            token=token,
            request_id=self._ids.uuid7(),
        )
        if revision := await self._written("DeleteEntries", run, request, key, expected):
            self._hold(self._entry(run, key, revision)[0] == 0, f"{key} is there when deleted")

    async def _written(
        self, method: str, run: str, request: Message, key: str, expected: int | None
    ) -> int | None:
        """Return the revision of a write that held, checked; None of a refused comparison."""
        floor = self._version(run)
        try:
            answer = await self._ask(method, request)
        except Conflict as refused:
            self._compared_rightly(run, key, floor, refused)
            return None
        revision: int = answer.revision
        if revision == 0:
            return 0
        self._watch.catch_up()
        self._hold(floor < revision <= self._version(run), f"{revision}: written when asked")
        before = self._entry(run, key, revision - 1)[0]
        self._hold(expected in (None, before), f"{key} had {before}, expected was {expected}")
        return revision

    async def _read(self, run: str, scope: str) -> None:
        floor = self._version(run)
        prefix = f"{scope}:" if scope else ""
        listing = wire.ListEntriesRequest(run=run, prefix=prefix, page_size=1_000)
        answer = await self._ask("ListEntries", listing)
        self._hold(answer.revision >= floor, f"a read of {answer.revision}, asked at {floor}")
        shown = {each.key: each.revision for each in answer.entries}
        board = self._fold.at(_run_id(run), answer.revision).board
        there = {} if board is None else board.entries
        expected = {key: entry.revision for key, entry in there.items() if key.startswith(prefix)}
        self._hold(shown == expected, f"the board of {run} at {answer.revision} is {expected}")

    async def _expected(self, run: str, key: str) -> int | None:
        """What the writer saw, or something it did not; None only where that is allowed."""
        if "result/" not in key and self._draws.random() < 0.3:
            return None
        if self._draws.random() < 0.2:
            return 0
        answer = await self._ask("GetEntries", wire.GetEntriesRequest(run=run, keys=[key]))
        return answer.entries[0].revision if answer.entries else 0

    def _compared_rightly(self, run: str, key: str, floor: int, refused: Refusal) -> None:
        current = int(refused.metadata["current_revision"])
        self._watch.catch_up()
        had = {
            self._entry(run, key, version)[0] for version in range(floor, self._version(run) + 1)
        }
        self._hold(current in had, f"{key} had {had} meanwhile, never {current}")

    def _entry(self, run: str, key: str, version: int) -> tuple[int, Payload | None]:
        board = self._fold.at(_run_id(run), version).board
        entry = None if board is None else board.entries.get(key)
        return (0, None) if entry is None else (entry.revision, entry.value)

    def _key(self, scope: str) -> str:
        path = self._draws.choice(PATHS)
        return f"{scope}:{path}" if scope else path

    def _version(self, run: str) -> int:
        return self._watch.version(StreamId(_run_id(run)))

    def _hold(self, holds: bool, law: str) -> None:
        if not holds:
            self._on_broken(InvariantBroken(f"9: {law}"))


def _run_id(run: str) -> str:
    return run.rpartition("/")[2]
