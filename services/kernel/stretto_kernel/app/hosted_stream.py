"""A stream in memory: its state as decided, how much of it is committed, and who waits for what.

The same for every kind of aggregate; `fact_writer` alone changes the values here, but for a fold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from stretto_core.eventlog.chain import (
    EMPTY_HEAD,
    HASH_BYTES,
    UnreadableEvent,
    chain_hash,
    check_envelope,
    check_link,
)
from stretto_core.eventlog.codec import Decoded
from stretto_core.eventlog.recorded import Recorded, StoredEvent, StreamHead
from stretto_core.ids import Namespace, StreamId

from stretto_kernel.app.data_key import DataKey

State = TypeVar("State")


class DecidedAgain(Exception):
    """What was decided is not stored and never will be: decide on the fresh fold."""


class Waiter(NamedTuple):
    """Who is told when `version` is committed, or why it will not be."""

    version: int
    committed: Callable[[], None]
    dropped: Callable[[Exception], None]


@dataclass(slots=True, eq=False)
class HostedStream(Generic[State]):
    """A stream in memory.

    head: the end of the stream as decided; `committed` is the version known to be on disk.
    position: where the newest committed fact lies in the partition's log.
    dropped: facts of it were not stored; this object is history and the stream is folded anew.
    key: what its facts leave the kernel encrypted with; None = clear, or destroyed.
    """

    stream: StreamId
    state: State
    namespace: Namespace
    head: StreamHead = EMPTY_HEAD
    committed: int = 0
    position: int = 0
    last_event_id: str = ""
    correlation_id: str = ""
    dropped: bool = False
    key: DataKey | None = None
    waiters: deque[Waiter] = field(default_factory=deque)

    @property
    def decided(self) -> int:
        """The version the state is at."""
        return self.head.version

    @property
    def is_clean(self) -> bool:
        """Whether everything decided is committed."""
        return self.committed == self.head.version


def advance(
    hosted: HostedStream[State],
    stored: StoredEvent,
    decoded: Decoded,
    evolve: Callable[[State, Recorded[Any]], None],
) -> None:
    """Apply the next stored event to a stream being folded.

    Raises UnreadableEvent, with nothing changed, when it does not follow from the one before it:
    nothing may be decided on what nobody recorded.
    """
    check_envelope(stored, decoded.envelope)
    check_link(stored, decoded.envelope, hosted.head.chain_hash)
    evolve(hosted.state, decoded.recorded)
    stand(hosted, stored, decoded)


def stand(hosted: HostedStream[Any], stored: StoredEvent, decoded: Decoded) -> None:
    """The event is the newest that the stream's state holds. Raises UnreadableEvent."""
    envelope = decoded.envelope
    if len(envelope.previous_hash) != HASH_BYTES:
        raise UnreadableEvent(
            "the stored bytes bear no previous hash",
            stream=stored.stream,
            version=str(stored.version),
            position=str(stored.position),
        )
    hosted.head = StreamHead(
        envelope.version,
        chain_hash(envelope.previous_hash, stored.stored_bytes),
        decoded.recorded.time_ns,
    )
    hosted.last_event_id = envelope.event_id
    hosted.correlation_id = envelope.correlation_id
    hosted.position = stored.position


def drop_waiters(hosted: HostedStream[Any], cause: Exception) -> None:
    """Tell everybody who waits for a commit of the stream that there will be none."""
    waiters = list(hosted.waiters)
    hosted.waiters.clear()
    for waiter in waiters:
        waiter.dropped(cause)


def succeed(future: asyncio.Future[None]) -> None:
    """Set a future's result unless it is done."""
    if not future.done():
        future.set_result(None)


def fail(future: asyncio.Future[None], cause: Exception) -> None:
    """Set a future's exception unless it is done."""
    if not future.done():
        future.set_exception(cause)
