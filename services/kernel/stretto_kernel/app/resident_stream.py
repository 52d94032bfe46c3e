"""A small stream that is in memory for as long as the partition is owned.

For an aggregate that is needed whole before anything else goes on, and whose facts are few: it is
folded when the ownership begins, and at once again when facts of it were not stored. The same
guarantees as for a run hold (`fact_writer`); only finding it is simpler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from stretto_core.errors import Refusal, Unavailable
from stretto_core.eventlog.chain import UnreadableEvent
from stretto_core.eventlog.codec import Cause
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, StreamId

from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.hosted_stream import HostedStream, advance, stand

State = TypeVar("State")

FOLD_PAGE_EVENTS = 1_000
FOLD_SLICE_EVENTS = 200
FOLD_AGAIN_S = 0.1
FOLD_FAILED_AGAIN_S = 5.0


class ResidentStream(Generic[State]):
    """One stream of a partition; `fold` first.

    new_state: makes the state before the first event. changed: told of the state after a fold and
    after each decided fact, inside the call. voided: told that facts were not stored: nothing that
    followed from the state counts until `changed` is called again, by itself.
    """

    def __init__(
        self,
        log: EventLog,
        facts: FactWriter,
        decider: Decider,
        *,
        stream: StreamId,
        namespace: Namespace,
        new_state: Callable[[], State],
        changed: Callable[[State], None] = lambda _: None,
        voided: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self.facts = facts
        self.decider = decider
        self._stream = stream
        self._namespace = namespace
        self._new_state = new_state
        self._changed = changed
        self._voided = voided
        self._hosted: HostedStream[State] | None = None
        self._folding: asyncio.Task[HostedStream[State]] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._logger = structlog.get_logger("stretto.kernel.streams")
        facts.add_keeper(self)

    @property
    def in_memory(self) -> HostedStream[State] | None:
        """The stream as decided; None while it is being folded."""
        return self._hosted

    async def fold(self) -> HostedStream[State]:
        """Return the stream, folded from the log if need be. Raises StoreDown, the owner's end."""
        if self.facts.closed_by is not None:
            raise self.facts.closed_by
        if self._hosted is not None:
            return self._hosted
        if self._folding is None:
            self._folding = asyncio.create_task(self._fold(), name=f"fold-{self._stream}")
            self._folding.add_done_callback(self._folded)
        return await asyncio.shield(self._folding)

    def take(self, hosted: HostedStream[State], command: object, cause: Cause) -> bool:
        """Decide `command`; see `FactWriter.take`."""
        if not self.facts.take(self, hosted, command, cause):
            return False
        self._changed(hosted.state)
        return True

    def close(self) -> None:
        """Fold no more."""
        for task in (self._folding, self._restoring):
            if task is not None:
                task.cancel()

    def refused_empty(self, _: HostedStream[State]) -> bool:
        """See `Host`: no facts yet is an answer too, and another owner may know better."""
        return False

    def stream_committed(self, hosted: HostedStream[State]) -> None:
        """See `StreamKeeper`."""

    def stream_dropped(self, hosted: HostedStream[State]) -> None:
        """See `StreamKeeper`."""
        self._hosted = None
        self._voided()
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(self._restore(), name=f"restore-{self._stream}")

    def partition_closed(self, cause: Refusal) -> None:
        """See `StreamKeeper`."""
        self.close()

    def _folded(self, folding: asyncio.Task[HostedStream[State]]) -> None:
        if folding is self._folding:
            self._folding = None
        if not folding.cancelled():
            folding.exception()  # Whoever asked may be gone; that is no one's error.

    async def _restore(self) -> None:
        """Have the stream in memory again; who asks for it meanwhile hears why it is not."""
        while self.facts.closed_by is None and self._hosted is None:
            try:
                await self.fold()
            except Unavailable as refusal:
                self._logger.info("fold.postponed", stream=self._stream, reason=refusal.reason_word)
                await asyncio.sleep(FOLD_AGAIN_S)
            except Exception:
                # Damage, or a bug of ours. What waits for the state stands still until it is back.
                self._logger.error("fold.failed", stream=self._stream, exc_info=True)
                await asyncio.sleep(FOLD_FAILED_AGAIN_S)

    async def _fold(self) -> HostedStream[State]:
        hosted = HostedStream(self._stream, self._new_state(), self._namespace)
        await self._pass_over(hosted)
        after_version, more = hosted.decided, True
        while more:
            page = await self._log.read_stream(
                self._stream, after_version=after_version, limit=FOLD_PAGE_EVENTS
            )
            for index, stored in enumerate(page.events, start=1):
                decoded = self.decider.codec.decode(stored.stored_bytes)
                advance(hosted, stored, decoded, self.decider.evolve)
                if index % FOLD_SLICE_EVENTS == 0:
                    await asyncio.sleep(0)
            after_version, more = hosted.decided, page.more
        hosted.committed = hosted.decided
        self._hosted = hosted
        self._changed(hosted.state)
        return hosted

    async def _pass_over(self, hosted: HostedStream[State]) -> None:
        """Stand at the event before the newest, when that one says all."""
        if not self.decider.newest_says_all:
            return
        head = (await self._log.stream_heads([self._stream])).get(self._stream)
        if head is None or head.version == 1:
            return
        page = await self._log.read_stream(self._stream, after_version=head.version - 2, limit=1)
        before = page.events[0] if page.events else None
        if before is None or before.version != head.version - 1:
            raise UnreadableEvent(
                f"version {head.version - 1} of {self._stream} is not there",
                stream=self._stream,
                version=str(head.version - 1),
            )
        stand(hosted, before, self.decider.codec.decode(before.stored_bytes))
