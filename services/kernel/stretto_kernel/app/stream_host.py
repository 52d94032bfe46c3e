"""The runs in memory: decide at once, commit in groups, answer only what is committed.

Owns the folded runs of one ownership of a partition. Each run has a decided head and a committed
version. Commands are decided on the decided state and evolved at once (speculation); the group
writer makes them durable. Whatever was decided at a version (facts, none, a refusal, a read) may
leave the process only after `answered`, which returns when that version is committed and a commit
or an ownership probe that began after the question has succeeded. When a group is not stored,
every run with uncommitted facts leaves memory and its questions are asked again on the fresh
fold.

May not do I/O but through the log port; knows no gRPC and no worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from google.protobuf.message import Message
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_KERNEL, Principal
from stretto_core.clock import Clock
from stretto_core.errors import Exhausted, NotFound, Refusal, Unavailable
from stretto_core.eventlog.codec import Cause, Codec, next_head
from stretto_core.eventlog.group_writer import GroupWriter
from stretto_core.eventlog.port import EventLog, OwnedLog
from stretto_core.eventlog.recorded import NewEvent, Recorded
from stretto_core.eventlog.writer import Committed, WriterLimits
from stretto_core.ids import EventId, IdSource, Namespace, RunId, StreamId

from stretto_kernel.app.ended_runs import EndedRuns
from stretto_kernel.app.fact_bytes import check_fact_bytes
from stretto_kernel.app.hosted_run import (
    DecidedAgain,
    HostedRun,
    Waiter,
    advance,
    drop_waiters,
    fail,
    release,
    succeed,
    unfolded,
    void_watchers,
)
from stretto_kernel.domain.run import Touched, decide, evolve, new_run
from stretto_kernel.domain.run.commands import Command

FOLD_PAGE_EVENTS = 1_000
FOLD_SLICE_EVENTS = 200
"""A fold lets others run after so many events: a synchronous stretch stays under 20 ms."""
FOLD_EVENT_BYTES = 500
"""A larger event counts as so many more: it adds tasks, and costs by them."""
DECIDE_AGAIN_MAX = 3
WATCHERS_COMPACT = 64

KERNEL_PRINCIPAL = Principal(kind=PRINCIPAL_KIND_KERNEL, name="kernel")
"""Who causes what timers, dispatch and recovery decide."""


class StoreUnsettled(Unavailable):
    """The facts were decided several times and never stored: send the same request again."""

    reason = "STORE_DOWN"


class Overloaded(Exhausted):
    """More facts wait for the disk than the limit allows."""

    reason = "OVERLOADED"


@dataclass(frozen=True, slots=True)
class _Batch:
    run: HostedRun
    version: int


class HostListener(Protocol):
    """Who follows the runs in memory; called on the loop, inside the host's calls."""

    def run_changed(self, run: HostedRun, touched: Touched) -> None:
        """Facts were decided that touched this much of the state."""
        ...

    def run_folded(self, run: HostedRun) -> None:
        """A run that has not ended came into memory: look at all of it."""
        ...

    def run_dropped(self, run: HostedRun) -> None:
        """The run's memory is void: forget what was derived from it. It will be folded again."""
        ...

    def commits_done(self) -> None:
        """A group is on disk and everybody was told."""
        ...

    def partition_closed(self, cause: Refusal) -> None:
        """Nothing can be appended any more."""
        ...


class _Nobody:
    """Listens until somebody follows."""

    def run_changed(self, run: HostedRun, touched: Touched) -> None:
        pass

    def run_folded(self, run: HostedRun) -> None:
        pass

    def run_dropped(self, run: HostedRun) -> None:
        pass

    def commits_done(self) -> None:
        pass

    def partition_closed(self, cause: Refusal) -> None:
        pass


class StreamHost:
    """The runs of one ownership of a partition.

    Make it on a running loop; it starts the partition's group writer.
    """

    def __init__(
        self,
        log: EventLog,
        owned: OwnedLog,
        codec: Codec,
        clock: Clock,
        ids: IdSource,
        *,
        ended_runs_max: int,
        writer_limits: WriterLimits | None = None,
    ) -> None:
        self._log = log
        self._codec = codec
        self._clock = clock
        self._ids = ids
        self._runs: dict[RunId, HostedRun] = {}
        self._ended = EndedRuns(ended_runs_max)
        self._folding: dict[RunId, asyncio.Task[HostedRun]] = {}
        self._batches: dict[int, _Batch] = {}
        self._listener: HostListener = _Nobody()
        self._closed_by: Refusal | None = None
        self.writer = GroupWriter(owned, self, limits=writer_limits)
        self.last_commit_mono_ns = clock.mono_ns()
        """When the write path was last seen to work."""

    def follow(self, listener: HostListener) -> None:
        """Tell `listener` of every change from now on."""
        self._listener = listener

    def note_proven(self) -> None:
        """A probe has just shown that the write path works."""
        self.last_commit_mono_ns = self._clock.mono_ns()

    def find(self, run_id: RunId) -> HostedRun | None:
        """The run if it is in memory."""
        return self._runs.get(run_id)

    @property
    def run_count(self) -> int:
        """How many runs are in memory."""
        return len(self._runs)

    async def load(self, run_id: RunId) -> HostedRun:
        """Return the run, folded from the log if it is not in memory. Raises NotFound.

        Callers continue in the order they asked.
        """
        if self._closed_by is not None:
            raise self._closed_by
        run = self._runs.get(run_id)
        if run is not None:
            return run
        folding = self._folding.get(run_id)
        if folding is None:
            folding = asyncio.create_task(self._fold(run_id), name=f"fold-{run_id}")
            self._folding[run_id] = folding
            folding.add_done_callback(partial(self._folded, run_id))
        return await asyncio.shield(folding)  # One caller's deadline must not end it for others.

    def create(self, run_id: RunId, namespace: Namespace, creator: Principal) -> HostedRun:
        """Return an empty run under `run_id`; the caller decides its start at once."""
        assert run_id not in self._runs, "a run in memory is not created again"
        run = HostedRun(run_id, new_run(run_id, namespace), namespace, creator=creator)
        self._runs[run_id] = run
        return run

    def forget_empty(self, run: HostedRun) -> None:
        """Take a created run without facts out of memory again."""
        if run.decided == 0:
            self._runs.pop(run.run_id, None)

    def take(self, run: HostedRun, command: Command, cause: Cause) -> bool:
        """Decide `command`, evolve the run by its facts and hand them to the writer, all at once.

        Returns whether there were facts. Raises what `decide` refuses, FactTooLarge and Overloaded.
        """
        assert not run.dropped, "a dropped run decides nothing"
        if not self.writer.has_room:
            raise Overloaded("too many facts wait for the disk")
        events = decide(run.state, command)
        if not events:
            return False
        check_fact_bytes(events)
        try:
            recorded = self._record(run, events, cause)
        except BaseException:
            # A bug of ours: what was evolved is not stored, and going on would leave a gap.
            self._void(run)
            raise
        number = self.writer.submit(recorded)
        self._batches[number] = _Batch(run, run.decided)
        touched = run.state.take_touched()
        for watch in run.watches:
            watch.note(touched)
        if run.has_ended:
            release(run.end_watchers)
        else:
            self._ended.forget(run.run_id)  # A retried one goes on.
        self._listener.run_changed(run, touched)
        return True

    def kernel_cause(self, run: HostedRun) -> Cause:
        """The cause of what the kernel does by itself: the run's newest fact."""
        return Cause(
            namespace=run.namespace,
            principal=KERNEL_PRINCIPAL,
            causation_id=run.last_event_id,
            correlation_id=run.correlation_id,
        )

    def when_settled(
        self,
        run: HostedRun,
        committed: Callable[[], None],
        dropped: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Call `committed` once what is decided now is on disk, or `dropped` with why it is not.

        Either is called inside the writer's news, in the order asked, and must not raise.
        """
        if run.is_clean:
            committed()
        elif self._closed_by is not None:
            dropped(self._closed_by)
        else:
            run.waiters.append(Waiter(run.decided, committed, dropped))

    def until_end(self, run: HostedRun) -> asyncio.Future[None]:
        """Return a future that is done when the run has ended as decided, or its memory is void."""
        future = asyncio.get_running_loop().create_future()
        if run.has_ended or run.dropped or self._closed_by is not None:
            future.set_result(None)  # Nobody would tell of an end any more: look again.
            return future
        if len(run.end_watchers) > WATCHERS_COMPACT:
            run.end_watchers[:] = [watcher for watcher in run.end_watchers if not watcher.done()]
        run.end_watchers.append(future)
        return future

    async def answered(self, run: HostedRun, version: int, *, own_facts: bool) -> None:
        """Return when what was decided at `version` may leave the process.

        own_facts: the answer is about facts this call made true. Otherwise (a read, a refusal, a
        repeated command) a commit or probe that began after the question must succeed as well, or
        an owner that was replaced without knowing would answer from the past.
        Raises DecidedAgain when the version was dropped, the writer's cause when the ownership is
        over.
        """
        if not own_facts:
            await self.writer.barrier()
        if run.committed >= version:
            return
        if run.dropped:
            raise DecidedAgain
        if self._closed_by is not None:
            raise self._closed_by
        future = asyncio.get_running_loop().create_future()
        run.waiters.append(Waiter(version, partial(succeed, future), partial(fail, future)))
        await future

    def batches_committed(self, commits: Sequence[Committed]) -> None:
        """See `WriterOwner`."""
        self.last_commit_mono_ns = self._clock.mono_ns()
        for commit in commits:
            batch = self._batches.pop(commit.batch)
            run = batch.run
            run.committed = batch.version
            run.position = commit.position
            while run.waiters and run.waiters[0].version <= run.committed:
                run.waiters.popleft().committed()
            if run.is_clean and run.has_ended and not run.dropped:
                self._retire(run)
        self._listener.commits_done()

    def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
        """See `WriterOwner`."""
        runs = [self._batches.pop(number).run for number in batches]
        self._void(*dict.fromkeys(run for run in runs if not run.dropped))

    def writer_closed(self, cause: Refusal) -> None:
        """See `WriterOwner`."""
        self._closed_by = cause
        for run in self._runs.values():
            drop_waiters(run, cause)
            void_watchers(run)
        self._batches.clear()
        self._listener.partition_closed(cause)

    def _void(self, *runs: HostedRun) -> None:
        """Forget the runs: all memory is void before anybody decides again."""
        for run in runs:
            run.dropped = True
            self._runs.pop(run.run_id, None)
            self._ended.forget(run.run_id)
            void_watchers(run)
            self._listener.run_dropped(run)
        for run in runs:
            drop_waiters(run, DecidedAgain())

    def _record(
        self, run: HostedRun, events: Sequence[Message], cause: Cause
    ) -> tuple[NewEvent, ...]:
        """Encode the facts as the next of the run's stream and evolve the run by each."""
        time_ns = max(self._clock.now_ns(), run.head.time_ns)
        encoded = []
        for event in events:
            new = self._codec.encode(
                event,
                stream=StreamId(run.run_id),
                head=run.head,
                event_id=EventId(self._ids.uuid7()),
                time_ns=time_ns,
                cause=cause,
            )
            run.head = next_head(new, time_ns)
            run.last_event_id = new.event_id
            recorded = Recorded(event, new.version, time_ns, cause.request_id, cause.request_digest)
            evolve(run.state, recorded)
            encoded.append(new)
        run.correlation_id = cause.correlation_id
        return tuple(encoded)

    def _folded(self, run_id: RunId, folding: asyncio.Task[HostedRun]) -> None:
        self._folding.pop(run_id, None)
        if not folding.cancelled():
            folding.exception()  # Whoever asked may be gone; that is no one's error.

    async def _fold(self, run_id: RunId) -> HostedRun:
        run: HostedRun | None = None
        version, more, weight = 0, True, 0
        while more:
            page = await self._log.read_stream(
                StreamId(run_id), after_version=version, limit=FOLD_PAGE_EVENTS
            )
            for stored in page.events:
                decoded = self._codec.decode(stored.stored_bytes)
                if run is None:
                    run = unfolded(run_id, decoded.envelope)
                advance(run, stored, decoded)
                weight += 1 + len(stored.stored_bytes) // FOLD_EVENT_BYTES
                if weight >= FOLD_SLICE_EVENTS:
                    weight = 0
                    await asyncio.sleep(0)
            more = page.more
            version = 0 if run is None else run.decided
        if (begun := self._runs.get(run_id)) is not None:
            return begun  # It was started while this read the log.
        if self._closed_by is not None:
            raise self._closed_by  # Nobody would tell its followers of the end any more.
        if run is None:
            raise NotFound("no such run", run_id=run_id)
        run.committed = run.decided
        self._runs[run_id] = run
        run.state.take_touched()
        if run.has_ended:
            self._retire(run)
        else:
            self._listener.run_folded(run)
        return run

    def _retire(self, run: HostedRun) -> None:
        for old in self._ended.keep(run):
            if old.is_clean:  # Else it comes back here with its commit.
                self._runs.pop(old.run_id, None)
