"""The view `artifacts`: the files that attempts left behind, by run and task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stretto.run.v1 import events_pb2 as ev

from stretto_kernel.projections.view import Step, View, names_of


class ArtifactRow(NamedTuple):
    """One file of an attempt. version: of the event that says so."""

    run_id: str
    task: str
    epoch: int
    name: str
    namespace: str
    version: int
    digest: bytes
    size_bytes: int
    content_type: str


def artifacts_left(step: Step) -> Iterator[ArtifactRow]:
    """Yield the files that a result came with."""
    event, envelope = step.recorded.event, step.envelope
    assert isinstance(event, ev.AttemptSucceeded)
    for artifact in event.artifacts:
        yield ArtifactRow(
            run_id=envelope.stream,
            task=event.task,
            epoch=event.epoch,
            name=artifact.name,
            namespace=envelope.namespace,
            version=envelope.version,
            digest=artifact.blob.digest,
            size_bytes=artifact.blob.size_bytes,
            content_type=artifact.content_type,
        )


ARTIFACTS = View(
    name="artifacts",
    version=1,
    row=ArtifactRow,
    key_count=4,
    of_event=artifacts_left,
    reads=names_of(ev.AttemptSucceeded),
)
