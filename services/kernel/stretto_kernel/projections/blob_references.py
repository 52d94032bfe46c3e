"""The view `blob_references`: which blobs the facts of a partition name. The sweep reads it.

Pure: events in, new rows out; a row is never taken back, since facts are for ever. Nothing is
folded: each event says all by itself.
"""

from __future__ import annotations

from typing import NamedTuple

from stretto.run.v1 import events_pb2 as ev
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Namespace

from stretto_kernel.domain.run.blob_names import in_event

BLOB_REFERENCES = "blob_references_v1"
"""The follower's name in the tracking table; a new version of the view is a new follower."""
NAMING_TYPES = frozenset(
    event.DESCRIPTOR.full_name
    for event in (
        ev.RunStarted,
        ev.TasksAdded,
        ev.TasksSpawned,
        ev.AttemptSucceeded,
        ev.RunSucceeded,
    )
)
"""The facts that can name a blob; others are not even decoded."""


class BlobReference(NamedTuple):
    """A fact of the namespace names the blob."""

    namespace: Namespace
    digest: bytes


class BlobReferencesFold:
    """Collects what events name."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._rows: dict[BlobReference, None] = {}

    def forget_all(self) -> None:
        """Forget what was collected and not stored."""
        self._rows.clear()

    def missing_after(self, stored: StoredEvent) -> int | None:
        """Nothing that comes before an event is needed to read it."""
        return None

    def apply(self, stored: StoredEvent) -> None:
        """Collect what the event names."""
        if stored.type not in NAMING_TYPES:
            return
        decoded = self._codec.decode(stored.stored_bytes)
        namespace = Namespace(decoded.envelope.namespace)
        for blob in in_event(decoded.recorded.event):
            self._rows[BlobReference(namespace, blob.digest)] = None

    def take_rows(self) -> list[BlobReference]:
        """Return what was collected since the last call."""
        rows, self._rows = list(self._rows), {}
        return rows
