"""Settings streams as views read them: fact by fact, each checked like the events of a run.

No state is kept but where each stream ends; what is not known of that is read from the log.
"""

from __future__ import annotations

from stretto_core.eventlog.chain import (
    EMPTY_HEAD,
    UnreadableEvent,
    chain_hash,
    check_envelope,
    check_link,
    head_of,
)
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent, StreamHead
from stretto_core.ids import StreamId

from stretto_kernel.projections.view import Step


class SettingsReading:
    """Where the streams of a partition are."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._heads: dict[StreamId, StreamHead] = {}

    async def read(self, stored: StoredEvent, codec: Codec) -> Step:
        """Return a stream's next fact. Raises UnreadableEvent, Unavailable."""
        decoded = codec.decode(stored.stored_bytes)
        check_envelope(stored, decoded.envelope)
        head = self._heads.get(stored.stream, EMPTY_HEAD)
        if head.version != stored.version - 1:
            head = await self._head_before(stored)
        check_link(stored, decoded.envelope, head.chain_hash)
        newest_hash = chain_hash(head.chain_hash, stored.stored_bytes)
        time_ns = decoded.recorded.time_ns
        self._heads[stored.stream] = StreamHead(stored.version, newest_hash, time_ns)
        return Step(decoded.envelope, decoded.recorded)

    async def _head_before(self, stored: StoredEvent) -> StreamHead:
        if stored.version == 1:
            return EMPTY_HEAD
        before = stored.version - 1
        page = await self._log.read_stream(stored.stream, after_version=before - 1, limit=1)
        if not page.events or page.events[0].version != before:
            raise UnreadableEvent(
                f"there is no version {before} before it",
                stream=stored.stream,
                version=str(stored.version),
            )
        return head_of(page.events[0].stored_bytes)
