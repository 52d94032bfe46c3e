"""The runs in memory: folded when they are asked for, kept while they may go on.

Owns the folded runs of one ownership of a partition, and forgets those whose facts were not stored;
how facts are decided, stored and answered is `fact_writer`'s, for runs as for every stream.

May not do I/O but through the log port; knows no gRPC and no worker.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from stretto.common.v1.principal_pb2 import Principal
from stretto_core.errors import Refusal
from stretto_core.eventlog.chain import UnreadableEvent
from stretto_core.eventlog.codec import Cause, Codec
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace, RunId, StreamId

from stretto_kernel.app.confidential import decrypting
from stretto_kernel.app.data_key import DataKey
from stretto_kernel.app.ended_runs import EndedRuns
from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.hosted_run import (
    HostedRun,
    give_key,
    refolded,
    release,
    tell_board,
    unfolded,
    void_watchers,
)
from stretto_kernel.app.hosted_stream import advance
from stretto_kernel.app.in_parts import in_parts
from stretto_kernel.app.run_keys import RunKeyMissing, RunKeys
from stretto_kernel.app.snapshots import Snapshots
from stretto_kernel.domain.run import Touched, conclude, decide, evolve, new_run
from stretto_kernel.domain.run.commands import Command
from stretto_kernel.domain.run.judging import reading_ahead
from stretto_kernel.domain.run.refusals import RunNotFound

FOLD_PAGE_EVENTS = 1_000
FOLD_SLICE_EVENTS = 200
"""A fold lets others run after so many events: a synchronous stretch stays under 20 ms."""
READ_AHEAD_BYTES = 4 * 1024
"""Of an event that may bring many tasks: it is read in parts before the fold takes it in."""
FOLD_EVENT_BYTES = 500
"""A larger event counts as so many more, and one that adds tasks as these."""
FOLD_REOPENING_STEPS = 5
"""One that re-opens tasks counts as so many of its steps."""
DAMAGED_S = 5.0
"""So long the refusal of a run that cannot be read is the answer, before it is read again."""
DAMAGED_MAX = 1_000


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
    """The runs of one ownership of a partition."""

    def __init__(
        self,
        log: EventLog,
        facts: FactWriter,
        codec: Codec,
        keys: RunKeys,
        snapshots: Snapshots,
        *,
        ended_runs_max: int,
    ) -> None:
        self._log = log
        self._keys = keys
        self._snapshots = snapshots
        self._runs: dict[RunId, HostedRun] = {}
        self._ended = EndedRuns(ended_runs_max)
        self._folding: dict[RunId, asyncio.Task[HostedRun]] = {}
        self._damaged: dict[RunId, tuple[float, UnreadableEvent]] = {}
        self._listener: HostListener = _Nobody()
        self.decider = Decider(codec, decide, evolve, conclude)
        self.facts = facts
        facts.add_keeper(self)

    def follow(self, listener: HostListener) -> None:
        """Tell `listener` of every change from now on."""
        self._listener = listener
        self.facts.commits_done = listener.commits_done

    def find(self, run_id: RunId) -> HostedRun | None:
        """The run if it is in memory."""
        return self._runs.get(run_id)

    @property
    def run_count(self) -> int:
        """How many runs are in memory."""
        return len(self._runs)

    async def load(self, run_id: RunId) -> HostedRun:
        """Return the run, folded from the log if it is not in memory.

        Callers continue in the order they asked. Raises NotFound, and UnreadableEvent for a damaged
        one, which is read again some seconds later.
        """
        if self.facts.closed_by is not None:
            raise self.facts.closed_by
        run = self._runs.get(run_id)
        if run is not None:
            return run
        if run_id in self._damaged:
            until_s, damage = self._damaged[run_id]
            if asyncio.get_running_loop().time() < until_s:
                raise damage.with_traceback(None)
            del self._damaged[run_id]
        folding = self._folding.get(run_id)
        if folding is None:
            folding = asyncio.create_task(self._fold(run_id), name=f"fold-{run_id}")
            self._folding[run_id] = folding
            folding.add_done_callback(partial(self._folded, run_id))
        return await asyncio.shield(folding)  # One caller's deadline must not end it for others.

    def create(
        self,
        run_id: RunId,
        namespace: Namespace,
        creator: Principal,
        *,
        key: DataKey | None = None,
    ) -> HostedRun:
        """Return an empty run under `run_id`; the caller decides its start at once.

        key: what its facts are encrypted with, made for it before.
        """
        assert run_id not in self._runs, "a run in memory is not created again"
        run = HostedRun(StreamId(run_id), new_run(run_id, namespace), namespace, creator=creator)
        if key is not None:
            give_key(run, key)
        self._runs[run_id] = run
        return run

    def refused_empty(self, run: HostedRun) -> bool:
        """Whether a refusal came from a created run without facts; then it leaves memory again."""
        if run.decided == 0:
            self._runs.pop(run.run_id, None)
        return run.decided == 0

    def take(self, run: HostedRun, command: Command, cause: Cause) -> bool:
        """Decide `command` on the run, and tell who follows it; see `FactWriter.take`."""
        before = run.decided
        if not self.facts.take(self, run, command, cause):
            return False
        touched = run.state.take_touched()
        if touched.tasks or touched.run_wide:
            for watch in run.watches:
                watch.note(touched)
        if run.board_watches:
            tell_board(run, before)
        if run.has_ended:
            release(run.end_watchers)
        else:
            self._ended.forget(run.run_id)  # A retried one goes on.
        self._listener.run_changed(run, touched)
        return True

    def forget(self, run: HostedRun) -> None:
        """Let go of a clean, ended run: whoever follows it finds it as the log has it now."""
        assert run.is_clean and run.has_ended, "nothing of it is lost"
        if self._runs.get(run.run_id) is run:
            del self._runs[run.run_id]
            self._ended.forget(run.run_id)
        void_watchers(run)

    def until_end(self, run: HostedRun) -> asyncio.Future[None]:
        """Return a future that is done when the run has ended as decided, or its memory is void."""
        future = asyncio.get_running_loop().create_future()
        if run.has_ended or run.dropped or self.facts.closed_by is not None:
            future.set_result(None)  # Nobody would tell of an end any more: look again.
            return future
        run.watch_end(future)
        return future

    def stream_committed(self, run: HostedRun) -> None:
        """See `StreamKeeper`."""
        if run.is_clean and run.has_ended and not run.dropped:
            self._retire(run)

    def stream_dropped(self, run: HostedRun) -> None:
        """See `StreamKeeper`."""
        self._runs.pop(run.run_id, None)
        self._ended.forget(run.run_id)
        void_watchers(run)
        self._listener.run_dropped(run)

    def partition_closed(self, cause: Refusal) -> None:
        """See `StreamKeeper`."""
        for run in self._runs.values():
            void_watchers(run)
        self._listener.partition_closed(cause)

    def _folded(self, run_id: RunId, folding: asyncio.Task[HostedRun]) -> None:
        self._folding.pop(run_id, None)
        if folding.cancelled():
            return
        damage = folding.exception()  # Whoever asked may be gone; that is no one's error.
        if isinstance(damage, UnreadableEvent):
            while len(self._damaged) >= DAMAGED_MAX:
                del self._damaged[next(iter(self._damaged))]
            self._damaged[run_id] = (asyncio.get_running_loop().time() + DAMAGED_S, damage)

    async def _fold(self, run_id: RunId) -> HostedRun:
        run = await self._read(run_id, with_key=True)
        if run is not None and run.key is not None and run.state.shredding is not None:
            # The key outlived the fact by a crash: what it opened is forgotten all the same.
            run = await self._read(run_id, with_key=False)
        if (begun := self._runs.get(run_id)) is not None:
            return begun  # It was started while this read the log.
        if self.facts.closed_by is not None:
            raise self.facts.closed_by  # Nobody would tell its followers of the end any more.
        if run is None:
            raise RunNotFound(run_id)
        if run.state.key_id and run.key is None and run.state.shredding is None:
            raise RunKeyMissing("the run's data key is not in the database", run_id=run_id)
        run.committed = run.decided
        self._runs[run_id] = run
        run.state.take_touched()
        if run.has_ended:
            self._retire(run)
        else:
            self._listener.run_folded(run)
        return run

    async def _read(self, run_id: RunId, *, with_key: bool) -> HostedRun | None:
        """Fold the run from the log; None when there is none.

        with_key: decrypt it if its key is there; otherwise it is folded as it lies.
        """
        run: HostedRun | None = None
        version, more, weight = 0, True, 0
        while more:
            # A run of one page is folded as it is; whether there is more to save, the page says.
            limit = FOLD_PAGE_EVENTS if version else self._snapshots.events_min
            page = await self._log.read_stream(StreamId(run_id), after_version=version, limit=limit)
            if page.more and not version and (found := await self._snapshots.find(run_id)):
                run = refolded(found)
                version = run.decided
                continue
            for stored in page.events:
                if not self.decider.codec.knows(stored.type) and run is None:
                    break  # A stream that is no run.
                decoded = self.decider.codec.decode(stored.stored_bytes)
                if run is None:
                    run = unfolded(run_id, decoded.envelope)
                    if with_key and (key_id := decoded.envelope.key_id):
                        give_key(run, await self._keys.find(key_id))
                if run.key is not None:
                    await in_parts(decrypting(decoded.recorded.event, run.key))
                if len(stored.stored_bytes) > READ_AHEAD_BYTES:
                    await in_parts(reading_ahead(decoded.recorded.event))
                known_count, before = len(run.state.tasks), run.state.reopening
                advance(run, stored, decoded, evolve)
                added_count = len(run.state.tasks) - known_count
                weight += 1 + max(added_count, len(stored.stored_bytes) // FOLD_EVENT_BYTES)
                after = run.state.reopening
                if after is not before and (reopening := after or before) is not None:
                    weight += reopening.step_count // FOLD_REOPENING_STEPS
                if weight >= FOLD_SLICE_EVENTS:
                    weight = 0
                    await asyncio.sleep(0)
            more = page.more and run is not None
            version = 0 if run is None else run.decided
        return run

    def _retire(self, run: HostedRun) -> None:
        for old in self._ended.keep(run):
            if old.is_clean:  # Else it comes back here with its commit.
                self._runs.pop(old.run_id, None)
