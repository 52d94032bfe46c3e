"""The view `blob_references`: which blobs the facts of a partition name. The sweep reads it.

A row is never taken back, since facts are for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stretto.run.v1 import events_pb2 as ev
from stretto_core.ids import Namespace

from stretto_kernel.domain.run.blob_names import in_event
from stretto_kernel.projections.view import Step, View, names_of


class BlobReference(NamedTuple):
    """A fact of the namespace names the blob."""

    namespace: Namespace
    digest: bytes


def blobs_named(step: Step) -> Iterator[BlobReference]:
    """Yield what the event names."""
    namespace = Namespace(step.envelope.namespace)
    for blob in in_event(step.recorded.event):
        yield BlobReference(namespace, blob.digest)


BLOB_REFERENCES = View(
    name="blob_references",
    version=1,
    row=BlobReference,
    key_count=2,
    of_event=blobs_named,
    reads=names_of(
        *(ev.RunStarted, ev.TasksAdded, ev.TasksSpawned, ev.AttemptSucceeded, ev.RunSucceeded),
        ev.BoardEntriesWritten,
    ),
)
