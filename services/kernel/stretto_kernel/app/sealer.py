"""Writes the seals of one ownership of a partition, from what is committed.

The writer tells of every committed event, with its hash, in the order of the log: sealing reads
nothing while the ownership goes on. What was committed and not sealed before it is read once, as
is everything since the newest seal when a seal itself was not stored. Positions may have holes,
and none is ever filled: whoever draws one holds the log's lock until it commits, and an earlier
owner is fenced before this one reads.

A crash anywhere loses at most a seal that was not stored; the next owner goes on from the newest
that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.errors import FailedPrecondition, Refusal, Unavailable
from stretto_core.eventlog.chain import HASH_BYTES, UnreadableEvent, chain_hash
from stretto_core.eventlog.codec import Cause, Codec
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import NewEvent, Page, StoredEvent
from stretto_core.eventlog.seals import AUDIT_NAMESPACE, SealKey, is_signed, seals_stream
from stretto_core.ids import EventId

from stretto_kernel.app.asking import Decided, ask
from stretto_kernel.app.fact_writer import KERNEL_PRINCIPAL, Decider, FactWriter, Overloaded
from stretto_kernel.app.hosted_stream import HostedStream
from stretto_kernel.app.resident_stream import ResidentStream
from stretto_kernel.app.unsealed import Unsealed
from stretto_kernel.domain.seals import SealLog, SealsState, decide, evolve

READ_EVENTS = 1_000
READ_AGAIN_S = 0.2
FAILED_AGAIN_S = 10.0


class SealingStopped(FailedPrecondition):
    """An event could not be read, or sealing itself failed: nothing from there on is sealed."""

    reason = "SEALING_STOPPED"


class NotSealedYet(FailedPrecondition):
    """There is nothing that a seal could cover."""

    reason = "NOT_SEALED_YET"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealLimits:
    """When a seal is due: after so many events, or so long after the first of them."""

    events_max: int = 1_000
    interval_ns: int = 10 * NS_PER_S


class Ports(Protocol):
    """What is needed of the kernel's ports."""

    @property
    def log(self) -> EventLog:
        """The record."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...


class Sealer:
    """Seals one partition for as long as it is owned; `start` when it can be written to.

    armed: is told when `next_due_mono_ns` may be earlier than it was; call `ring` then.
    """

    def __init__(
        self, ports: Ports, facts: FactWriter, limits: SealLimits, *, armed: Callable[[], None]
    ) -> None:
        self._log = ports.log
        self._clock = ports.clock
        self._facts = facts
        self._limits = limits
        self._armed = armed
        self._name = seals_stream(ports.log.partition)
        self._stream: ResidentStream[SealsState] = ResidentStream(
            ports.log,
            facts,
            Decider(Codec([LogSealed]), decide, evolve, newest_says_all=True),
            stream=self._name,
            namespace=AUDIT_NAMESPACE,
            new_state=partial(SealsState, ports.log.partition),
            voided=self._begin,
        )
        self._key: SealKey | None = None
        self._unsealed = self._nothing_after(0)
        self._told: list[tuple[int, NewEvent]] | None = []
        """What was committed since the last read began; None once reading is over."""
        self._read_position = 0
        """What lies up to there was read; the writer may tell of it a moment later."""
        self._following = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._due_mono_ns: int | None = None
        self._sealed_count = 0
        self._closed_by: Refusal | None = None
        self.stop: SealingStopped | None = None
        """Why nothing is sealed now."""
        self.newest: LogSealed | None = None
        """The newest seal that is on disk."""
        self.warning = ""
        """What was odd when this ownership began: no seal, in a log that must have had some."""
        self._logger = structlog.get_logger("stretto.kernel.seals")
        facts.follow_commits(self._follow)

    def start(self) -> None:
        """Read what is not sealed yet, then seal whatever is committed."""
        self._begin()

    def close(self, cause: Refusal) -> None:
        """Seal nothing more; who waits for a seal is told the cause."""
        self._closed_by = cause
        if self._reading is not None:
            self._reading.cancel()
        self._stream.close()
        self._following.set()

    @property
    def unsealed_count(self) -> int:
        """Committed events under no committed seal, those of seals among them, as far as read."""
        return self._unsealed.event_count - self._sealed_count

    def next_due_mono_ns(self) -> int | None:
        """When a seal is due, if nothing makes it due earlier."""
        return self._due_mono_ns

    def ring(self) -> None:
        """Seal what is due."""
        if self._due_mono_ns is not None and self._clock.mono_ns() >= self._due_mono_ns:
            self._unsealed.cut()
            self._seal_cuts()

    async def key(self) -> SealKey:
        """Return the partition's key. Raises StoreDown."""
        if self._key is None:
            self._key = await self._log.seal_key()
        return self._key

    async def seal_now(self) -> LogSealed:
        """Seal everything committed before this call; return the newest seal, committed.

        Behind it may lie seals, and what was committed meanwhile. Without anything to seal it is
        the one there was. Raises NotSealedYet (nothing was ever recorded), SealingStopped,
        Unavailable.
        """
        await self._facts.writer.barrier()  # Then what was committed before has been told.
        answered = await ask(self._stream, self._find, self._seal_rest)
        if answered.answer is None:
            raise NotSealedYet("nothing is recorded yet")
        return answered.answer

    async def ready(self) -> None:
        """Return once what is public here is known. Raises the end of the ownership."""
        while not self._following.is_set():  # It may be over again before this goes on.
            await self._following.wait()
        if self._closed_by is not None:
            raise self._closed_by

    async def _find(self, _: int) -> HostedStream[SealsState]:
        await self.ready()
        if self.stop is not None:
            raise self.stop.with_traceback(None)
        hosted = self._stream.in_memory
        assert hosted is not None, "who follows has folded"
        return hosted

    def _seal_rest(self, hosted: HostedStream[SealsState]) -> Decided[LogSealed | None]:
        version = hosted.decided
        self._unsealed.cut()
        self._seal_cuts()
        if self._closed_by is not None:
            raise self._closed_by
        if self._unsealed.cuts:
            raise Overloaded("too many facts wait for the disk")
        return Decided(hosted.state.newest, own_facts=hosted.decided > version)

    # -- what is committed -------------------------------------------------------------------------

    def _follow(self, positions: Sequence[int], events: Sequence[NewEvent]) -> None:
        """See `CommitFollower`."""
        if self.stop is not None:
            return
        if self._told is not None:
            self._told += zip(positions, events, strict=True)
            return
        self._add(zip(positions, events, strict=True))
        if self._unsealed.cuts:
            self._seal_cuts()
        elif self._unsealed.has_news and self._due_mono_ns is None:
            self._arm()

    def _add(self, told: Iterable[tuple[int, NewEvent]]) -> None:
        add, read_position = self._unsealed.add, self._read_position
        for position, event in told:
            if position > read_position:
                add(position, event.stream, event.chain_hash, event.event_id)

    def _arm(self) -> None:
        self._due_mono_ns = self._clock.mono_ns() + self._limits.interval_ns
        self._armed()

    def _seal_cuts(self) -> None:
        """Decide a seal for each cut, while the writer has room; others when it tells of more."""
        self._due_mono_ns = None
        hosted, cuts = self._stream.in_memory, self._unsealed.cuts
        assert hosted is not None and self._key is not None, "they are read before anything is cut"
        while cuts and self._facts.writer.has_room and self._closed_by is None:
            covered, event_id = cuts.popleft()
            cause = Cause(
                namespace=AUDIT_NAMESPACE, principal=KERNEL_PRINCIPAL, causation_id=event_id
            )
            try:
                self._stream.take(hosted, SealLog(covered=covered, key=self._key), cause)
            except Refusal as refusal:
                self._closed_by = refusal  # The writer is closing: the next owner seals the rest.
                return
            self._facts.when_settled(hosted, partial(self._sealed, hosted.state.newest))
        if self._unsealed.has_news:
            self._arm()

    def _sealed(self, seal: LogSealed | None) -> None:
        assert seal is not None, "it was just decided"
        self.newest = seal
        self._sealed_count += seal.event_count

    # -- what was committed before -----------------------------------------------------------------

    def _begin(self) -> None:
        """Forget what was told, and read it: at first, and when seals were not stored."""
        if self._closed_by is not None or self.stop is not None:
            return
        if self._reading is not None:
            self._reading.cancel()
        self._following.clear()
        self._told = []
        self._due_mono_ns = None
        self._reading = asyncio.create_task(self._read_until_done(), name="read-unsealed")

    async def _read_until_done(self) -> None:
        while True:
            try:
                await self._read()
                return
            except Unavailable as refusal:
                if self._facts.closed_by is not None:
                    return
                self._logger.info("seal.postponed", reason=refusal.reason_word)
                await asyncio.sleep(READ_AGAIN_S)
            except UnreadableEvent as refusal:
                # Sealed over, it would look like what was recorded.
                self._stop(
                    SealingStopped(f"nothing is sealed: {refusal.message}", **refusal.metadata)
                )
                self._logger.error("seal.stopped", message=str(refusal))
                return
            except Exception:
                if self._facts.closed_by is not None:
                    return
                # A bug of ours. Who waits is refused, status shows it, and it is tried again.
                self._stop(
                    SealingStopped(
                        "nothing is sealed: the kernel met an error of its own, which its log "
                        "shows (seal.failed); it tries again"
                    )
                )
                self._logger.error("seal.failed", exc_info=True)
                await asyncio.sleep(FAILED_AGAIN_S)
                self.stop = None
                self._following.clear()

    def _stop(self, cause: SealingStopped) -> None:
        self.stop = cause
        self._told = []
        self._due_mono_ns = None
        self._following.set()

    async def _read(self) -> None:
        key = await self.key()
        hosted = await self._stream.fold()
        newest = self.newest = hosted.state.newest
        if newest is not None and (newest.public_key != key.public_bytes or not is_signed(newest)):
            # What follows would be bound to what somebody else says is sealed.
            raise UnreadableEvent(
                "the newest seal is not what this partition's key signed",
                stream=self._name,
                version=str(hosted.decided),
                position=str(hosted.position),
            )
        unsealed = self._unsealed = self._nothing_after(hosted.state.position)
        self._sealed_count = 0
        told = self._told = []
        more = True
        while more:
            told.clear()  # Before the read: what commits from here on is read, told, or both.
            page = await self._log.read_all(after_position=unsealed.position, limit=READ_EVENTS)
            is_first = newest is None and not unsealed.event_count
            for stored in page.events:
                unsealed.add(stored.position, stored.stream, *_hash_and_id(stored))
            if is_first:
                self._warn_of_missing(page)
            self._seal_cuts()
            more = page.more
        self._read_position, self._told = unsealed.position, None
        self._add(told)
        self._seal_cuts()
        self._following.set()

    def _warn_of_missing(self, page: Page) -> None:
        """Say it if a log without seals must have had some, by its first events.

        Nothing else shows that all were taken away: a log without seals is sealed from its first
        event, as one is that was never sealed.
        """
        if self.warning or not page.events:
            return
        first, last = (
            RecordedEvent.FromString(page.events[index].stored_bytes).time for index in (0, -1)
        )
        is_old = last.ToNanoseconds() - first.ToNanoseconds() > self._limits.interval_ns
        if not is_old and (len(page.events) < self._limits.events_max or not page.more):
            return
        self.warning = (
            f"no seal was there, though the log has events since {first.ToJsonString()}: seals "
            "were taken away, unless none was ever made; all is sealed anew from the first event"
        )
        self._logger.error("seal.missing", message=self.warning)

    def _nothing_after(self, position: int) -> Unsealed:
        return Unsealed(self._name, position, events_max=self._limits.events_max)


def _hash_and_id(stored: StoredEvent) -> tuple[bytes, EventId]:
    """Return the hash of a stored event by its own word, and its id. Raises UnreadableEvent."""
    place = {"position": str(stored.position), "stream": stored.stream}
    try:
        envelope = RecordedEvent.FromString(stored.stored_bytes)
    except DecodeError as error:
        raise UnreadableEvent("the stored bytes are not a recorded event", **place) from error
    if len(envelope.previous_hash) != HASH_BYTES:
        raise UnreadableEvent("the stored bytes bear no previous hash", **place)
    return chain_hash(envelope.previous_hash, stored.stored_bytes), EventId(envelope.event_id)
