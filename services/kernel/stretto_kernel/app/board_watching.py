"""Following a blackboard: every change once, in order, only what is committed.

What was written before the watch began comes from the log, what comes after it from the run in
memory: the two meet at the version that was decided when the watch joined, so nothing is missing
and nothing comes twice. A change costs one append per watcher and no read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple

from stretto.run.v1 import events_pb2 as ev
from stretto_core.errors import Exhausted, OutOfRange
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Namespace, RunId

from stretto_kernel.app.board_calls import entries_of
from stretto_kernel.app.hosted_run import BoardWatch, HostedRun
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX
from stretto_kernel.app.run_calls import RunCalls
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.domain.run.blackboard_state import BoardEntry, changes_of

WATCHERS_MAX = 1_000
"""Of one run."""
CATCH_UP_EVENTS_MAX = 10_000
CATCH_UP_PAGE_EVENTS = 500
UNTOLD_EVENTS_MAX = 1_000
"""Who is told of nothing for so long, since nothing is of the prefix, is told how far that is."""
PART_ENTRIES_MAX = 500
"""Of a message: to make one holds up everybody else."""
SHOWN_BESIDE_BYTES = 256
"""What a message says of an entry besides, at most: its run, its revision, its time."""
_BOARD_TYPES = frozenset(
    kind.DESCRIPTOR.full_name for kind in (ev.BoardEntriesWritten, ev.BoardEntriesDeleted)
)


class Compacted(OutOfRange):
    """Too much has happened since the revision to tell every change: begin anew."""

    reason = "COMPACTED"


class WatcherTooSlow(Exhausted):
    """Changes came faster than they were taken: resume from the last revision."""

    reason = "SUBSCRIBER_TOO_SLOW"


class TooManyWatchers(Exhausted):
    """The blackboard has its most watchers."""

    reason = "OVERLOADED"


class BoardChange(NamedTuple):
    """What one or more facts changed. revision: resume from here; 0 = not yet. ended: the run."""

    entries: Sequence[BoardEntry]
    revision: int
    ended: bool = False


class BoardWatching:
    """The watches on blackboards of one ownership of a partition."""

    def __init__(self, host: StreamHost, runs: RunCalls, log: EventLog) -> None:
        self._host = host
        self._runs = runs
        self._log = log

    async def watch(
        self, namespace: Namespace, run_id: RunId, prefix: str, after_revision: int | None
    ) -> AsyncGenerator[BoardChange]:
        """Yield changes of entries whose keys begin with `prefix`; the last has `ended`.

        after_revision: None = first the entries as they are. Raises RunNotFound, OutOfRange,
        Compacted, TooManyWatchers, WatcherTooSlow.
        """
        while True:
            run = await self._runs.find(namespace, run_id)
            if len(run.board_watches) >= WATCHERS_MAX:
                raise TooManyWatchers("too many watchers", watchers_max=str(WATCHERS_MAX))
            watch = BoardWatch()
            run.board_watches = (*run.board_watches, watch)
            try:
                async with aclosing(self._follow(run, watch, prefix, after_revision)) as changes:
                    async for change in changes:
                        yield change
                        after_revision = change.revision or after_revision
                return
            except DecidedAgain:
                continue  # Nothing of it was told: go on from the last that was, on the fresh fold.
            finally:
                run.board_watches = tuple(each for each in run.board_watches if each is not watch)

    async def _follow(
        self, run: HostedRun, watch: BoardWatch, prefix: str, after_revision: int | None
    ) -> AsyncGenerator[BoardChange]:
        """Yield as `watch` does until the run has ended. Raises DecidedAgain."""
        head, newest = run.decided, _newest_revision(run)
        # As of now: while the answer is awaited they go on.
        listed = _listed(run, prefix) if after_revision is None else []
        await self._host.facts.answered(run, head, own_facts=False)
        if after_revision is None:
            for part, is_last in _parts(listed):
                yield BoardChange(part, head if is_last else 0)
        else:
            self._check_start(after_revision, head, newest)
            async for change in self._caught_up(run, prefix, after_revision, newest):
                yield change
            if head - after_revision > UNTOLD_EVENTS_MAX:
                yield BoardChange((), head)
        told = head
        watch.note(())  # The run may have ended before this joined.
        while True:
            writes = await watch.take()
            if run.dropped:
                raise DecidedAgain
            if self._host.facts.closed_by is not None:
                raise self._host.facts.closed_by
            ended, too_slow, version = run.has_ended, watch.too_slow, run.decided
            last = version if ended else writes[-1][0].revision if writes else 0
            await self._host.facts.answered(run, last, own_facts=True)
            for part, _ in _parts(_matching(writes, prefix)):
                if part:
                    told = part[-1].revision
                    yield BoardChange(part, told)
            if last - told > UNTOLD_EVENTS_MAX and not ended:
                told = last
                yield BoardChange((), told)
            if too_slow:
                raise WatcherTooSlow("changes came faster than they were taken")
            if ended:
                yield BoardChange((), version, ended=True)
                return

    def _check_start(self, after_revision: int, head: int, newest: int) -> None:
        if after_revision > head:
            raise OutOfRange(
                f"the run has no revision {after_revision}: its newest is {head}",
                revision=str(after_revision),
                newest=str(head),
            )
        if newest - after_revision > CATCH_UP_EVENTS_MAX:
            raise Compacted(
                f"the newest change comes more than {CATCH_UP_EVENTS_MAX} events of the run later: "
                "watch without a revision",
                revision=str(after_revision),
                events_max=str(CATCH_UP_EVENTS_MAX),
            )

    async def _caught_up(
        self, run: HostedRun, prefix: str, after: int, newest: int
    ) -> AsyncGenerator[BoardChange]:
        while after < newest:
            page = await self._log.read_stream(
                run.stream, after_version=after, limit=CATCH_UP_PAGE_EVENTS
            )
            writes = [
                self._changes(stored)
                for stored in page.events
                if stored.type in _BOARD_TYPES and stored.version <= newest
            ]
            for part, _ in _parts(_matching(writes, prefix)):
                if part:
                    yield BoardChange(part, part[-1].revision)
            after = page.events[-1].version

    def _changes(self, stored: StoredEvent) -> tuple[BoardEntry, ...]:
        recorded = self._host.decider.codec.decode(stored.stored_bytes).recorded
        event = recorded.event
        assert isinstance(event, ev.BoardEntriesWritten | ev.BoardEntriesDeleted)
        return changes_of(event, recorded.version, recorded.time_ns)


def _newest_revision(run: HostedRun) -> int:
    """Return the revision of the newest change as decided; 0 when nothing was ever written."""
    board = run.state.board
    return board.newest[0].revision if board is not None and board.newest else 0


def _listed(run: HostedRun, prefix: str) -> list[tuple[BoardEntry, ...]]:
    """Return the entries that are there, by key, each as if one write had made it."""
    entries = entries_of(run)
    return [(entries[key],) for key in sorted(entries) if key.startswith(prefix)]


def _matching(
    writes: Iterable[tuple[BoardEntry, ...]], prefix: str
) -> list[tuple[BoardEntry, ...]]:
    if not prefix:
        return list(writes)
    return [tuple(entry for entry in write if entry.key.startswith(prefix)) for write in writes]


def _parts(
    writes: Sequence[tuple[BoardEntry, ...]],
) -> Iterable[tuple[list[BoardEntry], bool]]:
    """Cut into messages, never within a write; each with whether it is the last. At least one."""
    part: list[BoardEntry] = []
    size_bytes = 0
    for write in writes:
        write_bytes = sum(map(_shown_bytes, write))
        is_full = len(part) + len(write) > PART_ENTRIES_MAX
        if part and (is_full or size_bytes + write_bytes > PAGE_BYTES_MAX):
            yield part, False
            part, size_bytes = [], 0
        part.extend(write)
        size_bytes += write_bytes
    yield part, True


def _shown_bytes(entry: BoardEntry) -> int:
    return entry.size_bytes + entry.writer.ByteSize() + SHOWN_BESIDE_BYTES
