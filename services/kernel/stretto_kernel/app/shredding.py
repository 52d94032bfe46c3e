"""Shredding: a run's key is destroyed, and that it was is a fact of the run.

The order is what makes it safe. The key is marked, on disk; the fact is decided and committed; the
run in memory, clear as it is, is let go of; the copies of blobs' keys and the key are destroyed.
What has begun is carried out whether its caller waits for it or not, and as often as the store
needs. A crash before the commit leaves a mark without a fact, one after it a mark with it: whoever
owns the partition next carries out the second and lifts the first (`settle_marks`), before any call
is taken. Whoever asks again meanwhile destroys again, which changes nothing.
"""

from __future__ import annotations

import asyncio

import structlog
from stretto.run.v1 import events_pb2, run_pb2
from stretto_core.errors import Unavailable
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, RunId, StreamId, partition_of

from stretto_kernel.app.asking import Answered
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.run_calls import Caller, RunCalls
from stretto_kernel.app.run_keys import RunKeys
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.domain.run.commands import Command

DESTROY_AGAIN_S = 0.2
SHREDDED_TYPE = events_pb2.RunShredded.DESCRIPTOR.full_name


class Shredder:
    """Shreds runs of one ownership of a partition."""

    def __init__(self, host: StreamHost, calls: RunCalls, keys: RunKeys, blobs: BlobCalls) -> None:
        self._host = host
        self._calls = calls
        self._keys = keys
        self._blobs = blobs
        self._shreddings: set[asyncio.Task[Answered[run_pb2.Run]]] = set()
        self._log = structlog.get_logger("stretto.kernel.shredding")

    async def shred_run(
        self, namespace: Namespace, run_id: RunId, command: Command, caller: Caller
    ) -> Answered[run_pb2.Run]:
        """Forget what the run carried; it is gone when this returns. Idempotent.

        A caller who leaves ends nothing. Raises RunNotFound, RunNotEnded, RunNotEncrypted,
        Unavailable (ask again).
        """
        shredding = asyncio.create_task(
            self._shred_run(namespace, run_id, command, caller), name=f"shred-{run_id}"
        )
        self._shreddings.add(shredding)
        shredding.add_done_callback(self._ended)
        return await asyncio.shield(shredding)

    def _ended(self, shredding: asyncio.Task[Answered[run_pb2.Run]]) -> None:
        self._shreddings.discard(shredding)
        if not shredding.cancelled():
            shredding.exception()  # Whoever asked may be gone; that is no one's error.

    async def _shred_run(
        self, namespace: Namespace, run_id: RunId, command: Command, caller: Caller
    ) -> Answered[run_pb2.Run]:
        key_id = (await self._calls.find(namespace, run_id)).state.key_id
        if key_id:  # Also of a run that goes on: it may end before this is decided.
            await self._keys.mark(key_id)
        _, position = await self._calls.steer_run(namespace, run_id, command, caller)
        run = self._host.find(run_id)
        if run is not None and run.key is not None:
            self._host.forget(run)
        await self._destroy(key_id)
        self._log.info(
            "run.shredded", run_id=run_id, key_id=key_id, principal=caller.principal.name
        )
        shown, _ = await self._calls.get_run(namespace, run_id)
        return Answered(shown, position)

    async def _destroy(self, key_id: int) -> None:
        """Return once the key is destroyed. Raises the end of the ownership: the next one does."""
        while True:
            try:
                return await destroy(self._keys, self._blobs, key_id)
            except Unavailable as refusal:
                self._log.warning("run.shredding_postponed", reason=refusal.reason_word)
            if (closed := self._host.facts.closed_by) is not None:
                raise closed
            await asyncio.sleep(DESTROY_AGAIN_S)


async def settle_marks(log: EventLog, keys: RunKeys, blobs: BlobCalls) -> None:
    """Carry out what a crash left of shreddings. Before any call is taken. Raises Unavailable."""
    for key_id, run_id in await keys.marked():
        if partition_of(run_id) != log.partition:
            continue  # Its owner does it.
        if await _is_shredded(log, run_id):
            await destroy(keys, blobs, key_id)
        else:
            await keys.unmark(key_id)


async def destroy(keys: RunKeys, blobs: BlobCalls, key_id: int) -> None:
    """Destroy what opens a run's values: the mark lies with the last of it. Idempotent."""
    await blobs.forget_keys(key_id)
    await keys.destroy(key_id)


async def _is_shredded(log: EventLog, run_id: RunId) -> bool:
    """Whether the run's last fact says so: none follows it."""
    stream = StreamId(run_id)
    head = (await log.stream_heads([stream])).get(stream)
    if head is None:
        return False
    page = await log.read_stream(stream, after_version=head.version - 1, limit=1)
    return bool(page.events) and page.events[0].type == SHREDDED_TYPE
