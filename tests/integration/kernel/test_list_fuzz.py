"""Tokens of the right form with odd contents, valid filters with odd values: never our bug.

What random messages hardly ever reach: behind the parsing, in SQL and in its arithmetic.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from stretto.blackboard.v1 import blackboard_service_pb2 as board_pb
from stretto.blackboard.v1.blackboard_service_pb2_grpc import BlackboardServiceStub
from stretto.common.v1.as_of_pb2 import AsOf
from stretto.common.v1.lease_pb2 import Position
from stretto.queue.v1 import queue_service_pb2 as queue_pb
from stretto.queue.v1.queue_service_pb2_grpc import QueueServiceStub
from stretto.registry.v1 import worker_registry_service_pb2 as registry_pb
from stretto.registry.v1.worker_registry_service_pb2_grpc import WorkerRegistryServiceStub
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import Internal, Unavailable
from stretto_core.rpc.status import from_rpc_error
from stretto_kernel.servicers.page_tokens import encode_token

from tests.integration.kernel.serving import Served, StreamWorker, task
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("projector")

ROUNDS = 60
NUMBERS = (0, 1, 2, 3, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 63) - 2, (1 << 63) - 1)
BEYOND = (1 << 63, 10**30)
TEXTS = ("", "a", "%", "'", "\\", "é" * 300, "context/x", "p0-" + "f" * 32, "\x7f", "\0")
INSTANTS = (
    "0001-01-01T00:00:00Z",
    "1677-09-21T00:12:40Z",
    "2026-01-31T00:00:00+23:59",
    "2262-04-11T23:47:16.854775808Z",
    "9999-12-31T23:59:59.999999999Z",
)

Choice = TypeVar("Choice")


class Odd:
    """Makes requests of lists that are well formed and mean odd things."""

    def __init__(self, seed: int, run: str) -> None:
        self._random = random.Random(seed)
        self.run = run

    def some(self, *choices: Choice) -> Choice:
        return self._random.choice(choices)

    def number(self) -> int:
        return self.some(*NUMBERS)

    def quoted(self, *texts: str) -> str:
        text = self.some(*texts).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'

    def terms(self, *terms: str) -> str:
        return " AND ".join(term for term in terms if self.some(True, False))

    def token(self, kind: str, form: str) -> str:
        """A token whose parts are numbers (n) and texts (t)."""
        parts = (
            str(self.some(*NUMBERS, *BEYOND)) if part == "n" else self.some(*TEXTS) for part in form
        )
        return self.some("", encode_token(kind, *parts))

    def as_of(self) -> AsOf:
        seconds, nanos = self.some(0, 9_223_372_037, 253_402_300_799), self.some(0, 999_999_999)
        return self.some(
            AsOf(),
            AsOf(version=self.number()),
            AsOf(position=Position(number=self.number())),
            AsOf(time=Timestamp(seconds=seconds, nanos=nanos)),
        )

    def runs(self) -> pb.ListRunsRequest:
        filter_ = self.terms(
            f"state = {self.some(*run_pb2.RunState.keys()[1:])}",
            f"display_name = {self.quoted(*TEXTS)}",
            f"create_time >= {self.quoted(*INSTANTS)}",
            f"create_time < {self.quoted(*INSTANTS)}",
            f"labels.a = {self.quoted(*TEXTS)}",
        )
        order = self.some("", "create_time")
        token = self.token("oldest runs" if order else "runs", "nt")
        return pb.ListRunsRequest(filter=filter_, order_by=order, page_token=token)

    def tasks(self) -> pb.ListTasksRequest:
        filter_ = self.terms(
            f"state = {self.some(*run_pb2.TaskState.keys()[1:])}",
            f"queue = {self.quoted(*TEXTS[1:])}",
            f"executor = {self.quoted(*TEXTS[1:])}",
            "clean_up = true",
        )
        token = self.some(self.token("tasks then", "nnn"), self.token("tasks", "n"))
        return pb.ListTasksRequest(
            parent=self.run,
            filter=filter_,
            order_by=self.some("", "creation desc"),
            page_token=token,
            as_of=self.as_of(),
        )

    def changes(self) -> pb.ListRunChangesRequest:
        return pb.ListRunChangesRequest(
            parent=self.run,
            after_version=self.number(),
            until_version=self.number(),
            page_token=self.token("changes", "nnn"),
        )

    def attempts(self) -> pb.ListAttemptsRequest:
        return pb.ListAttemptsRequest(parent=self.run, page_token=self.token("attempts", "n"))

    def artifacts(self) -> pb.ListArtifactsRequest:
        return pb.ListArtifactsRequest(parent=self.run, page_token=self.token("artifacts", "tnt"))

    def entries(self) -> board_pb.ListEntriesRequest:
        token = self.some(self.token("entries", "t"), self.token("entries then", "nt"))
        return board_pb.ListEntriesRequest(run=self.run, page_token=token, as_of=self.as_of())


async def test_no_list_stumbles_over_what_a_token_a_filter_or_a_moment_says(
    kernel: Served,
) -> None:
    started = await kernel.start(task("a"), task("b"), labels={"a": "a"}, display_name="a")
    worker = StreamWorker(kernel.channel)
    await until(lambda: len(worker.assignments) == 2)
    worker.succeed(worker.assignments[0].token)
    odd = Odd(7, started.run.name)
    boards, queues = BlackboardServiceStub(kernel.channel), QueueServiceStub(kernel.channel)
    registry = WorkerRegistryServiceStub(kernel.channel)
    calls: list[tuple[Callable[[Any], Awaitable[Any]], Callable[[], Any]]] = [
        (kernel.runs.ListRuns, odd.runs),
        (kernel.runs.ListTasks, odd.tasks),
        (kernel.runs.ListRunChanges, odd.changes),
        (kernel.runs.ListAttempts, odd.attempts),
        (kernel.runs.ListArtifacts, odd.artifacts),
        (kernel.runs.GetRun, lambda: pb.GetRunRequest(name=odd.run, as_of=odd.as_of())),
        (boards.ListEntries, odd.entries),
        (
            queues.ListQueues,
            lambda: queue_pb.ListQueuesRequest(
                page_token=odd.token("queues", "t"), with_history=True
            ),
        ),
        (
            registry.ListWorkers,
            lambda: registry_pb.ListWorkersRequest(
                page_token=odd.token("workers", "t"), with_history=True
            ),
        ),
    ]
    bugs: list[tuple[Any, Exception]] = []
    answered = dict.fromkeys(range(len(calls)), 0)

    async def ask(number: int) -> None:
        call, make = calls[number]
        request = make()
        try:
            await call(request)
            answered[number] += 1
        except grpc.aio.AioRpcError as error:
            refusal = from_rpc_error(error)
            if isinstance(refusal, Internal | Unavailable):
                bugs.append((request, refusal))

    for _ in range(ROUNDS):
        await asyncio.gather(*map(ask, range(len(calls))))
    assert bugs == []
    assert all(answered.values()), "what is wrong is refused, and not everything is wrong"
    await worker.cut()
