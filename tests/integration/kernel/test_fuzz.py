"""Random bytes and random messages at every method: refused clearly, and the kernel lives on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto_core.errors import Internal, Refusal
from stretto_core.rpc.status import from_rpc_error

from tests.integration.kernel.serving import IDS, Served, StreamWorker
from tests.waiting import until

SERVICES = (
    "stretto.blackboard.v1.BlackboardService",
    "stretto.blob.v1.BlobService",
    "stretto.eventlog.v1.EventLogService",
    "stretto.namespace.v1.NamespaceService",
    "stretto.projection.v1.ProjectionService",
    "stretto.queue.v1.QueueService",
    "stretto.registry.v1.WorkerRegistryService",
    "stretto.run.v1.RunService",
    "stretto.tasklog.v1.TaskLogService",
    "stretto.work.v1.WorkService",
)
ROUNDS = 20
AT_ONCE = 32
TIMEOUT_S = 0.5
DEPTH_MAX = 5
NUMBERS = (0, 1, 2, 3, 100, 1_001, -1, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, -(1 << 63))


class Fuzzer:
    """Makes messages of which some parts are right, so that what comes behind is reached too."""

    def __init__(self, seed: int, run: str, token: LeaseToken) -> None:
        self._random = random.Random(seed)
        self._token = token
        self._texts = (
            run,
            run.rpartition("/")[2],
            token.work_item,
            "namespaces/default",
            "default",
            "test.body",
            "a",
            "w1",
            '{"a": [1, 2]}',
            "[" * 600,
            "\0",
            "\u00e9\u4e2d" * 700,
            "..//..",
            "A_B",
            IDS.uuid7(),
            IDS.uuid7(),
        )
        self._bytes = (b"", b"\0\xff" * 16, bytes(32), b"x" * 70_000, token.secret)

    def noise(self) -> bytes:
        """Some bytes."""
        return self._random.randbytes(self._random.choice((1, 3, 10, 100, 5_000)))

    def message(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """Some message of that type."""
        made: Message = message_factory.GetMessageClass(descriptor)()
        if descriptor.full_name == LeaseToken.DESCRIPTOR.full_name and self._random.random() < 0.6:
            made.CopyFrom(self._token)
            return made
        share = self._random.choice((0.2, 0.6, 0.95))
        for field in descriptor.fields:
            if self._random.random() < share:
                self._fill(made, field, depth)
        return made

    def _fill(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        kind = field.message_type
        if kind is not None and depth >= DEPTH_MAX:
            return
        if kind is not None and kind.GetOptions().map_entry:
            self._fill_map(getattr(made, field.name), kind, depth)
        elif field.is_repeated:
            values = getattr(made, field.name)
            for _ in range(self._random.choice((1, 1, 2, 5))):
                if kind is None:
                    values.append(self._scalar(field))
                else:
                    values.add().CopyFrom(self.message(kind, depth + 1))
        elif kind is not None:
            getattr(made, field.name).CopyFrom(self.message(kind, depth + 1))
        else:
            setattr(made, field.name, self._scalar(field))

    def _fill_map(self, values: object, entry: Descriptor, depth: int) -> None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self._random.choice((1, 3))):
            if value.message_type is None:
                values[self._scalar(key)] = self._scalar(value)  # type: ignore[index]
            else:
                made = self.message(value.message_type, depth + 1)
                values[self._scalar(key)].CopyFrom(made)  # type: ignore[index]

    def _scalar(self, field: FieldDescriptor) -> object:
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                some = self._bytes if field.type == FieldDescriptor.TYPE_BYTES else self._texts
                return self._random.choice(some)
            case FieldDescriptor.CPPTYPE_BOOL:
                return self._random.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                assert field.enum_type is not None
                return self._random.choice((*field.enum_type.values_by_number, 99))
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return self._random.choice((0.0, 1.5, -1.0, 1e308, float("nan"), float("inf")))
            case kind:
                bits = 32 if kind in _NARROW else 64
                signed = kind in _SIGNED
                low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, 1 << bits)
                return self._random.choice([each for each in NUMBERS if low <= each <= high - 1])


_NARROW = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32}
_SIGNED = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    pool = descriptor_pool.Default()
    for service in SERVICES:
        for method in pool.FindServiceByName(service).methods:
            yield f"/{service}/{method.name}", method


async def called(
    channel: Any, path: str, method: MethodDescriptor, requests: list[bytes]
) -> Refusal | None:
    """Make one call of raw messages and return what refused it."""

    async def outgoing() -> AsyncIterator[bytes]:
        for request in requests:
            yield request

    try:
        if method.client_streaming:
            if method.server_streaming:
                async for _ in channel.stream_stream(path)(outgoing(), timeout=TIMEOUT_S):
                    pass
            else:
                await channel.stream_unary(path)(outgoing(), timeout=TIMEOUT_S)
        elif method.server_streaming:
            async for _ in channel.unary_stream(path)(requests[0], timeout=TIMEOUT_S):
                pass
        else:
            await channel.unary_unary(path)(requests[0], timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    return None


async def test_no_input_is_our_bug_and_none_ends_the_kernel(kernel: Served) -> None:
    started = await kernel.start()
    worker = StreamWorker(kernel.channel, worker_id="w0")
    await until(lambda: len(worker.assignments) == 1)
    fuzzer = Fuzzer(7, started.run.name, worker.assignments[0].token)
    gate = asyncio.Semaphore(AT_ONCE)
    bugs: list[tuple[str, Refusal, list[bytes]]] = []

    async def throw(path: str, method: MethodDescriptor, requests: list[bytes]) -> None:
        async with gate:
            refused = await called(kernel.channel, path, method, requests)
        if isinstance(refused, Internal):  # What gRPC calls UNKNOWN is one, too.
            bugs.append((path, refused, requests))

    calls = []
    for number in range(ROUNDS):
        for path, method in methods():
            count = 3 if method.client_streaming else 1
            made = [
                fuzzer.noise()
                if number % 5 == 0
                else fuzzer.message(method.input_type).SerializeToString()
                for _ in range(count)
            ]
            calls.append(throw(path, method, made))
    await asyncio.gather(*calls)
    assert bugs == []
    await worker.cut()
    assert (await kernel.get(started.run.name)).run.name == started.run.name
