"""Which blobs a value, a plan or a fact names: what has to be there, and what has to stay.

A blob is named by digest and size. Details of heartbeats and failures are always inline, and what
the kernel composes names nothing that another fact does not name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf.message import Message
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as pb


class BlobName(NamedTuple):
    """A blob as a command names it. digest: SHA-256, 32 bytes."""

    digest: bytes
    size_bytes: int


def blob_name(blob: BlobRef) -> BlobName:
    """Return the blob as a name."""
    return BlobName(blob.digest, blob.size_bytes)


def in_payload(payload: Payload | None) -> Iterator[BlobName]:
    """Yield the blob that a value is."""
    if payload is not None and payload.HasField("blob"):
        yield blob_name(payload.blob)


def in_tasks(tasks: Iterable[pb.TaskSpec]) -> Iterator[BlobName]:
    """Yield the blobs that tasks have as literal inputs."""
    for task in tasks:
        for binding in task.inputs.values():
            yield from _in_binding(binding)


def in_graph(graph: pb.TaskGraph) -> Iterator[BlobName]:
    """Yield the blobs that a plan names."""
    yield from in_tasks(graph.tasks)
    yield from _in_binding(graph.output)


def in_artifacts(artifacts: Iterable[Artifact]) -> Iterator[BlobName]:
    """Yield the blobs of artifacts."""
    for artifact in artifacts:
        yield blob_name(artifact.blob)


def in_event(event: Message) -> Iterator[BlobName]:
    """Yield the blobs that a fact names: they stay as long as it does."""
    match event:
        case ev.RunStarted():
            yield from in_graph(event.plan)
            yield from in_payload(event.input)
        case ev.TasksAdded() | ev.TasksSpawned():
            yield from in_tasks(event.tasks)
        case ev.AttemptSucceeded():
            yield from in_payload(event.result)
            yield from in_tasks(event.spawned)
            yield from in_artifacts(event.artifacts)
        case ev.BoardEntriesWritten():
            for entry in event.entries:
                yield from in_payload(entry.value)
        case ev.RunSucceeded():
            yield from in_payload(event.output)


def _in_binding(binding: pb.Binding) -> Iterator[BlobName]:
    if binding.HasField("literal"):
        yield from in_payload(binding.literal)
