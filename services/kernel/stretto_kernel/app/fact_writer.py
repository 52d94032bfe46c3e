"""The facts of a partition: decided at once, committed in groups, answered only when committed.

Owns what every kind of stream shares. A command is decided on the decided state, which is evolved
at once (speculation); the group writer makes the facts durable. Whatever was decided at a version
(facts, none, a refusal, a read) may leave the process only after `answered`, which returns when
that version is committed and a commit or an ownership probe that began after the question has
succeeded. When a group is not stored, every stream with uncommitted facts is void: its keeper
forgets it, and its questions are asked again on the fresh fold.

What a stream means, and when it is folded, is its keeper's. May not do I/O but through the log
port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from google.protobuf.message import Message
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_KERNEL, Principal
from stretto_core.clock import Clock
from stretto_core.errors import Exhausted, Refusal, Unavailable
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.group_writer import GroupWriter
from stretto_core.eventlog.port import OwnedLog
from stretto_core.eventlog.recorded import NewEvent, Recorded
from stretto_core.eventlog.writer import Committed, WriterLimits
from stretto_core.ids import EventId, IdSource

from stretto_kernel.app.confidential import encrypted
from stretto_kernel.app.data_key import DataKey
from stretto_kernel.app.fact_bytes import check_fact_bytes
from stretto_kernel.app.hosted_stream import (
    DecidedAgain,
    HostedStream,
    Waiter,
    drop_waiters,
    fail,
    succeed,
)

DECIDE_AGAIN_MAX = 3

KERNEL_PRINCIPAL = Principal(kind=PRINCIPAL_KIND_KERNEL, name="kernel")
"""Who causes what timers, dispatch and recovery decide."""


class StoreUnsettled(Unavailable):
    """The facts were decided several times and never stored: send the same request again."""

    reason = "STORE_DOWN"


class Overloaded(Exhausted):
    """More facts wait for the disk than the limit allows."""

    reason = "OVERLOADED"


State = TypeVar("State")
Command = TypeVar("Command")


@dataclass(frozen=True, slots=True)
class Decider:
    """The rules of one kind of stream: pure functions on a state that `evolve` changes in place.

    conclude: what follows from the facts of a command once the state has them, in the same append;
    asked again until nothing does. newest_says_all: a state is the newest event's alone, so that
    only that one is read.
    """

    codec: Codec
    decide: Callable[[Any, Any], Sequence[Message]]
    evolve: Callable[[Any, Recorded[Any]], None]
    conclude: Callable[[Any], Sequence[Message]] = lambda _: ()
    newest_says_all: bool = False


class StreamKeeper(Protocol):
    """Who holds the streams of a kind in memory; called on the loop, must not raise."""

    @property
    def decider(self) -> Decider:
        """The rules of its streams."""
        ...

    def stream_committed(self, hosted: Any) -> None:
        """More of the stream is on disk, and who waited for that was told."""
        ...

    def stream_dropped(self, hosted: Any) -> None:
        """The stream's memory is void: forget it. Who waits is told when all such are forgotten."""
        ...

    def partition_closed(self, cause: Refusal) -> None:
        """Nothing can be appended any more."""
        ...


CommitFollower = Callable[[Sequence[int], Sequence[NewEvent]], None]
"""Told of every event committed under this ownership, with its position, in order, once: of those
that one append stored together."""


class _Batch(NamedTuple):
    keeper: StreamKeeper
    hosted: HostedStream[Any]
    version: int
    events: tuple[NewEvent, ...]


class FactWriter:
    """Makes the facts of one ownership of a partition durable, whatever their streams.

    commits_done: called when a group is on disk and everybody was told.
    Make it on a running loop; it starts the partition's group writer.
    """

    def __init__(
        self,
        owned: OwnedLog,
        clock: Clock,
        ids: IdSource,
        *,
        limits: WriterLimits | None = None,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._keepers: list[StreamKeeper] = []
        self._followers: list[CommitFollower] = []
        self._batches: dict[int, _Batch] = {}
        self.closed_by: Refusal | None = None
        self.writer = GroupWriter(owned, self, limits=limits)
        self.last_commit_mono_ns = clock.mono_ns()
        """When the write path was last seen to work."""
        self.commits_done: Callable[[], None] = _nothing

    def add_keeper(self, keeper: StreamKeeper) -> None:
        """Tell `keeper` of the end of the ownership."""
        self._keepers.append(keeper)

    def follow_commits(self, follower: CommitFollower) -> None:
        """Tell `follower` of every event committed from now on; it must not raise."""
        self._followers.append(follower)

    def note_proven(self) -> None:
        """A probe has just shown that the write path works."""
        self.last_commit_mono_ns = self._clock.mono_ns()

    def take(
        self, keeper: StreamKeeper, hosted: HostedStream[Any], command: object, cause: Cause
    ) -> bool:
        """Decide `command`, evolve the stream by its facts, hand them to the writer: all at once.

        Returns whether there were facts. Raises what `decide` refuses, FactTooLarge and Overloaded.
        """
        assert not hosted.dropped, "a dropped stream decides nothing"
        if not self.writer.has_room:
            raise Overloaded("too many facts wait for the disk")
        events = keeper.decider.decide(hosted.state, command)
        if not events:
            return False
        # What is encrypted is larger: readers get it as it is stored.
        leaving = _leaving(events, hosted.key)
        check_fact_bytes(leaving)
        try:
            recorded = self._record(keeper.decider, hosted, events, leaving, cause)
        except BaseException:
            # A bug of ours: what was evolved is not stored, and going on would leave a gap.
            self._void({hosted: keeper}.items())
            raise
        number = self.writer.submit(recorded)
        self._batches[number] = _Batch(keeper, hosted, hosted.decided, recorded)
        return True

    def kernel_cause(self, hosted: HostedStream[Any]) -> Cause:
        """The cause of what the kernel does by itself: the stream's newest fact."""
        return Cause(
            namespace=hosted.namespace,
            principal=KERNEL_PRINCIPAL,
            causation_id=hosted.last_event_id,
            correlation_id=hosted.correlation_id,
        )

    def when_settled(
        self,
        hosted: HostedStream[Any],
        committed: Callable[[], None],
        dropped: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Call `committed` once what is decided now is on disk, or `dropped` with why it is not.

        Either is called inside the writer's news, in the order asked, and must not raise.
        """
        if hosted.is_clean:
            committed()
        elif self.closed_by is not None:
            dropped(self.closed_by)
        else:
            hosted.waiters.append(Waiter(hosted.decided, committed, dropped))

    async def answered(self, hosted: HostedStream[Any], version: int, *, own_facts: bool) -> None:
        """Return when what was decided at `version` may leave the process.

        own_facts: the answer is about facts this call made true. Otherwise (a read, a refusal, a
        repeated command) a commit or probe that began after the question must succeed as well, or
        an owner that was replaced without knowing would answer from the past.
        Raises DecidedAgain when the version was dropped, the writer's cause when the ownership is
        over.
        """
        if not own_facts:
            await self.writer.barrier()
        if hosted.committed >= version:
            return
        if hosted.dropped:
            raise DecidedAgain
        if self.closed_by is not None:
            raise self.closed_by
        future = asyncio.get_running_loop().create_future()
        hosted.waiters.append(Waiter(version, partial(succeed, future), partial(fail, future)))
        await future

    def batches_committed(self, commits: Sequence[Committed]) -> None:
        """See `WriterOwner`."""
        self.last_commit_mono_ns = self._clock.mono_ns()
        positions: list[int] = []
        events: list[NewEvent] = []
        for commit in commits:
            batch = self._batches.pop(commit.batch)
            hosted = batch.hosted
            hosted.committed = batch.version
            hosted.position = commit.position
            while hosted.waiters and hosted.waiters[0].version <= hosted.committed:
                hosted.waiters.popleft().committed()
            batch.keeper.stream_committed(hosted)
            positions += commit.positions
            events += batch.events
        for follower in self._followers:
            follower(positions, events)
        self.commits_done()

    def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
        """See `WriterOwner`."""
        dropped = [self._batches.pop(number) for number in batches]
        self._void({one.hosted: one.keeper for one in dropped if not one.hosted.dropped}.items())

    def writer_closed(self, cause: Refusal) -> None:
        """See `WriterOwner`."""
        self.closed_by = cause
        for hosted in dict.fromkeys(batch.hosted for batch in self._batches.values()):
            drop_waiters(hosted, cause)
        self._batches.clear()
        for keeper in self._keepers:
            keeper.partition_closed(cause)

    def _void(self, streams: Iterable[tuple[HostedStream[Any], StreamKeeper]]) -> None:
        """Forget the streams: all memory is void before anybody decides again."""
        for hosted, keeper in streams:
            hosted.dropped = True
            keeper.stream_dropped(hosted)
        for hosted, _ in streams:
            drop_waiters(hosted, DecidedAgain())

    def _record(
        self,
        decider: Decider,
        hosted: HostedStream[Any],
        facts: Sequence[Message],
        leaving: Sequence[Message],
        cause: Cause,
    ) -> tuple[NewEvent, ...]:
        """Encode the facts as the next of the stream and evolve it by each, and what they conclude.

        leaving: the facts as they leave the kernel. What follows by itself is never as large as a
        fact may be.
        """
        time_ns = max(self._clock.now_ns(), hosted.head.time_ns)
        key = hosted.key
        key_id = 0 if key is None else key.key_id
        if key is not None and cause.request_digest:
            cause = cause._replace(request_digest=key.keyed(cause.request_digest))
        encoded = []
        while facts:
            for fact, stored in zip(facts, leaving, strict=True):
                new = decider.codec.encode(
                    stored,
                    stream=hosted.stream,
                    head=hosted.head,
                    event_id=EventId(self._ids.uuid7()),
                    time_ns=time_ns,
                    cause=cause,
                    key_id=key_id,
                )
                hosted.head = next_head(new, time_ns)
                hosted.last_event_id = new.event_id
                recorded = Recorded(
                    fact, new.version, time_ns, cause.request_id, cause.request_digest, key_id
                )
                decider.evolve(hosted.state, recorded)
                encoded.append(new)
            facts = decider.conclude(hosted.state)
            leaving = _leaving(facts, key)
        hosted.correlation_id = cause.correlation_id
        return tuple(encoded)


def _leaving(facts: Sequence[Message], key: DataKey | None) -> Sequence[Message]:
    return facts if key is None else [encrypted(fact, key) for fact in facts]


def _nothing() -> None:
    pass
