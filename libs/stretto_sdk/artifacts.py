"""Artifacts as plain frozen values: the files that attempts left behind."""

from __future__ import annotations

from dataclasses import dataclass

from stretto.common.v1 import payload_pb2
from stretto.run.v1 import run_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a task left behind. sha256: the digest of its bytes in hexadecimal."""

    name: str
    sha256: str
    size_bytes: int
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskArtifact(Artifact):
    """A file, and who left it: the attempt of a task under an epoch, as the run's version says."""

    task: str
    epoch: int
    version: int


def artifact_of(message: payload_pb2.Artifact) -> Artifact:
    """Return an artifact's message as a value."""
    return Artifact(
        name=message.name,
        sha256=message.blob.digest.hex(),
        size_bytes=message.blob.size_bytes,
        content_type=message.content_type or _BYTES,
    )


def task_artifact_of(message: run_pb2.TaskArtifact) -> TaskArtifact:
    """Return a listed artifact's message as a value."""
    file = message.artifact
    return TaskArtifact(
        task=message.task,
        epoch=message.epoch,
        version=message.version,
        name=file.name,
        sha256=file.blob.digest.hex(),
        size_bytes=file.blob.size_bytes,
        content_type=file.content_type or _BYTES,
    )


_BYTES = "application/octet-stream"
