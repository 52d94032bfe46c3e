"""The sweep: deletes blobs that nobody touched for a day and that no fact names.

A command touches the blobs it names and is appended within moments, so every command that touched a
blob last before a day ago is in the log by now, and its reference is in a view that has read as far
as the log goes now. A command that comes while the sweep looks touches the blob again, and the
deletion, which names the touch it looked at, then changes nothing; or it comes after the deletion
and is refused. Instants are UTC nanoseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

import structlog
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.ids import Namespace, Partition

from stretto_kernel.app.blob_store import SweptBlobs, Untouched
from stretto_kernel.app.run_key_sweep import RunKeySweep

KEPT_NS = 24 * 3600 * NS_PER_S
UPLOAD_SILENT_NS = 600 * NS_PER_S
"""An upload silent for so long has no kernel any more: one that lives is cut much sooner."""
INTERVAL_S = 3_600.0
PAGE_BLOBS = 500
PATIENCE_S = 60.0
ASK_AGAIN_S = 0.2


LogEnds = Mapping[Partition, int]
"""The newest position of each partition's log."""


class References(NamedTuple):
    """Which blobs facts name. complete: every partition's view has read up to the end named."""

    complete: bool
    named: frozenset[tuple[Namespace, bytes]]


class BlobReferences(Protocol):
    """The reference views of all partitions."""

    async def ends(self) -> LogEnds:
        """Return where the logs end. Raises Unavailable."""
        ...

    async def of(self, blobs: Collection[Untouched], ends: LogEnds) -> References:
        """Return which of the blobs facts name: at least by what the logs held at their ends.

        Raises Unavailable.
        """
        ...


async def sweep(
    blobs: SweptBlobs,
    references: BlobReferences,
    *,
    now_ns: int,
    patience_s: float = PATIENCE_S,
) -> int:
    """Delete what may go, and return how many blobs that were. Raises Unavailable.

    patience_s: how long the views have to read what the logs held.
    """
    await blobs.delete_uploads(before_ns=now_ns - UPLOAD_SILENT_NS)
    deleted_count = 0
    last: Untouched | None = None
    while True:
        page = await blobs.untouched(before_ns=now_ns - KEPT_NS, count_max=PAGE_BLOBS, after=last)
        if not page:
            return deleted_count
        # Asked after the touches were read: what relied on them is in the log by now.
        found = await _read_up_to(await references.ends(), page, references, patience_s)
        if not found.complete:
            return deleted_count
        for blob in page:
            if (blob.namespace, blob.digest) not in found.named:
                deleted_count += await blobs.delete(blob)
        last = page[-1]


async def _read_up_to(
    ends: LogEnds, page: Collection[Untouched], references: BlobReferences, patience_s: float
) -> References:
    """Ask until the views have read so far: while much is recorded they are never quite there."""
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + patience_s
    while True:
        found = await references.of(page, ends)
        if found.complete or loop.time() >= give_up_s:
            return found
        await asyncio.sleep(min(ASK_AGAIN_S, patience_s))


async def sweep_all(
    blobs: SweptBlobs, references: BlobReferences, keys: RunKeySweep, clock: Clock
) -> None:
    """Sweep blobs, and data keys of runs that never were. Raises Unavailable."""
    deleted_count = await sweep(blobs, references, now_ns=clock.now_ns())
    if deleted_count:
        log = structlog.get_logger("stretto.kernel.blobs")
        log.info("blobs.swept", deleted_count=deleted_count)
    await keys.sweep()
