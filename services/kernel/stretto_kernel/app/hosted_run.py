"""A run in memory, and who follows it: plain values for `stream_host`, which alone changes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stretto.common.v1.principal_pb2 import Principal
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.ids import Namespace, RunId, StreamId, TaskName

from stretto_kernel.app.data_key import DataKey
from stretto_kernel.app.hosted_stream import HostedStream, stand, succeed
from stretto_kernel.app.snapshots import FoundRun
from stretto_kernel.domain.run import RunState, Touched, new_run
from stretto_kernel.domain.run.blackboard_state import BoardEntry

WAITING_WRITES_MAX = 1_000
WAITING_BYTES_MAX = 16 * 1024 * 1024
"""So many writes, or bytes in them, wait for one who follows a blackboard; then it is cut off."""
WATCHERS_MIN = 32
"""Fewer are not worth looking through."""


class RunWatch:
    """What changed of a run since it was last looked at, for one who follows it."""

    def __init__(self) -> None:
        self.tasks: dict[TaskName, None] = {}
        self.run_wide = False
        self._changed = asyncio.Event()

    def note(self, touched: Touched) -> None:
        """Add what a fact touched; called for each fact, for each who follows."""
        if not self.run_wide:  # Else all of it is looked at anyway.
            tasks = self.tasks
            for name in touched.tasks:
                tasks[name] = None
            self.run_wide = touched.run_wide
        if not self._changed.is_set():
            self._changed.set()

    def void(self) -> None:
        """The run's memory is void: look at all of it again."""
        self.run_wide = True
        self._changed.set()

    @property
    def is_noted(self) -> bool:
        """Whether something changed that `changed` has not returned yet."""
        return self._changed.is_set()

    async def changed(self) -> Touched:
        """Wait for a change; return and forget what was touched."""
        await self._changed.wait()
        self._changed.clear()
        touched = Touched(tuple(self.tasks), self.run_wide)
        self.tasks, self.run_wide = {}, False
        return touched


class BoardWatch:
    """What changed on a run's blackboard since it was last taken, for one who follows it."""

    def __init__(self) -> None:
        self._writes: deque[tuple[BoardEntry, ...]] = deque()
        self._size_bytes = 0
        self._changed = asyncio.Event()
        self.too_slow = False
        """More came than it keeps, and was left out."""

    def note(self, changes: tuple[BoardEntry, ...], size_bytes: int = 0) -> None:
        """A fact changed these entries, of that size; () = something else is to be looked at."""
        if changes and not self.too_slow:
            self.too_slow = (
                len(self._writes) >= WAITING_WRITES_MAX or self._size_bytes >= WAITING_BYTES_MAX
            )
            if not self.too_slow:
                self._writes.append(changes)
                self._size_bytes += size_bytes
        self._changed.set()

    async def take(self) -> list[tuple[BoardEntry, ...]]:
        """Wait until there is something to look at; return the writes since, oldest first."""
        await self._changed.wait()
        self._changed.clear()
        writes = list(self._writes)
        self._writes.clear()
        self._size_bytes = 0
        return writes


@dataclass(slots=True, eq=False)
class HostedRun(HostedStream[RunState]):
    """A run in memory.

    creator: who started it.
    """

    creator: Principal | None = None
    watches: list[RunWatch] = field(default_factory=list)
    end_watchers: list[asyncio.Future[None]] = field(default_factory=list)
    end_watchers_kept: int = WATCHERS_MIN
    board_watches: tuple[BoardWatch, ...] = ()
    run_id: RunId = field(init=False)
    _board_keys: tuple[int, Sequence[str]] = (0, ())

    def __post_init__(self) -> None:
        """Its id is its stream's."""
        self.run_id = RunId(self.stream)

    @property
    def has_ended(self) -> bool:
        """Whether a terminal fact was decided."""
        return self.state.end is not None

    def watch_end(self, watcher: asyncio.Future[None]) -> None:
        """Let `watcher` be told of the run's end; costs the same for any number of watchers.

        Those that are done are let go of when there are twice as many as were left the last time.
        """
        watchers = self.end_watchers
        if len(watchers) >= 2 * self.end_watchers_kept:
            watchers[:] = [each for each in watchers if not each.done()]
            self.end_watchers_kept = max(len(watchers), WATCHERS_MIN)
        watchers.append(watcher)

    @property
    def is_shredded(self) -> bool:
        """Whether its key is destroyed, or about to be: it never gets the key of a blob again."""
        return self.state.shredding is not None

    def board_keys(self) -> Sequence[str]:
        """The keys of the blackboard in order; sorted once after a change, when they are asked."""
        board = self.state.board
        if board is None or not board.newest:
            return [] if board is None else sorted(board.entries)
        revision = board.newest[0].revision
        if self._board_keys[0] != revision:
            self._board_keys = (revision, sorted(board.entries))
        return self._board_keys[1]

    def instant_ns(self, now_ns: int) -> int:
        """`now_ns`, or the time of the newest fact when the wall clock was set back since."""
        return max(now_ns, self.state.time_ns)


def unfolded(run_id: RunId, first: RecordedEvent) -> HostedRun:
    """Return the empty run that `first`, its first event, begins."""
    namespace = Namespace(first.namespace)
    return HostedRun(
        StreamId(run_id), new_run(run_id, namespace), namespace, creator=first.principal
    )


def give_key(run: HostedRun, key: DataKey | None) -> None:
    """Let an empty run's facts be encrypted with the key, and its digests be made with it."""
    assert run.decided == 0, "a run has its key from its first fact on"
    run.key = key
    run.state.digest_key = b"" if key is None else key.digest_key


def refolded(found: FoundRun) -> HostedRun:
    """Return the run that a snapshot holds, as if its events had been folded."""
    envelope = found.decoded.envelope
    run = HostedRun(
        StreamId(found.state.run_id),
        found.state,
        Namespace(envelope.namespace),
        creator=found.first.principal,
    )
    stand(run, found.newest, found.decoded)
    return run


def void_watchers(run: HostedRun) -> None:
    """Tell everybody who follows the run that its memory is void."""
    for watch in run.watches:
        watch.void()
    for board_watch in run.board_watches:
        board_watch.note(())
    release(run.end_watchers)


def tell_board(run: HostedRun, after_version: int) -> None:
    """Tell those who follow the blackboard what facts after that version changed, or of the end."""
    board = run.state.board
    changes = () if board is None else board.newest
    fresh = changes if changes and changes[0].revision > after_version else ()
    if fresh or run.has_ended:
        size_bytes = sum(entry.size_bytes for entry in fresh)
        for watch in run.board_watches:
            watch.note(fresh, size_bytes)


def release(watchers: list[asyncio.Future[None]]) -> None:
    """Let everybody in the list go on, and empty it."""
    for watcher in watchers:
        succeed(watcher)
    watchers.clear()
