"""The part of the client that reads and stores what is too large for a fact, artifacts included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import InvalidArgument

from stretto_sdk.artifacts import TaskArtifact
from stretto_sdk.blobs import BlobClient
from stretto_sdk.client_logs import AnyRun, LogReading
from stretto_sdk.client_pages import Pages
from stretto_sdk.runs import value_of
from stretto_sdk.values import Blob, fetched, has_large_literals, store_literals, stored


class BlobReading(LogReading):
    """What a client reads of blobs and artifacts; `Client` has it all."""

    pages: Pages
    _namespace: str

    async def artifacts(self, run: AnyRun, filter: str = "") -> AsyncGenerator[TaskArtifact, None]:
        """Yield the files that a run left behind, by task and name, or those a filter admits.

        >>> async for found in client.artifacts(run, 'task = "render"'):
        ...     print(found.name, found.size_bytes)

        filter: of task = "TEXT", name = "TEXT", content_type = "TEXT", joined by AND. What was
        acknowledged before is in it. Raises NotFound, InvalidArgument (a filter it cannot read).
        """
        async with aclosing(self.pages.all_artifacts(self._name_of(run), filter)) as found:
            async for artifact in found:
                yield artifact

    async def fetch(self, value: object) -> object:
        """Return a value whole: what a Blob stands for, anything else as it is.

        >>> tasks = await client.tasks(run)
        >>> result = await client.fetch(tasks[0].result)

        Raises NotFound, InvalidArgument (INPUT_TOO_LARGE: more than 256 MiB; use `read_blob`).
        """
        if not isinstance(value, Blob):
            return value
        payload = await fetched(self._calls.blobs, self._namespace, value._payload)
        return await asyncio.to_thread(value_of, payload)

    async def read_blob(self, sha256: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a blob or an artifact, named by its digest in hexadecimal, in parts.

        >>> async for part in client.read_blob(artifact.sha256):
        ...     file.write(part)

        Raises NotFound, InvalidArgument (that is no digest).
        """
        try:
            digest = bytes.fromhex(sha256)
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise InvalidArgument(f"{sha256!r} is no digest: 64 hexadecimal digits")
        async with aclosing(self._calls.blobs.stream(self._namespace, digest)) as parts:
            async for part in parts:
                yield part


async def store_large(
    blobs: BlobClient, namespace: str, request: pb.StartRunRequest | pb.AddTasksRequest
) -> None:
    """Put what is too large in a request, which is changed: its input, literals of its tasks."""
    match request:
        case pb.StartRunRequest():
            tasks = request.task_graph.tasks
            if request.HasField("input"):
                request.input.CopyFrom(await stored(blobs, namespace, request.input))
        case pb.AddTasksRequest():
            tasks = request.tasks
    if has_large_literals(tasks):
        await store_literals(blobs, namespace, tasks)
