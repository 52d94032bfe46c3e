"""A run in memory: its state as decided, how much of it is committed, and who waits for what.

Plain values for `stream_host`, which alone changes them; and the steps of a fold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stretto.common.v1.principal_pb2 import Principal
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.eventlog.chain import EMPTY_HEAD, chain_hash
from stretto_core.eventlog.codec import Decoded
from stretto_core.eventlog.recorded import StoredEvent, StreamHead
from stretto_core.ids import Namespace, RunId, TaskName

from stretto_kernel.domain.run import RunState, Touched, evolve, new_run


class DecidedAgain(Exception):
    """What was decided is not stored and never will be: decide on the fresh fold."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who is told when `version` is committed, or why it will not be."""

    version: int
    committed: Callable[[], None]
    dropped: Callable[[Exception], None]


class RunWatch:
    """What changed of a run since it was last looked at, for one who follows it."""

    def __init__(self) -> None:
        self.tasks: dict[TaskName, None] = {}
        self.run_wide = False
        self._changed = asyncio.Event()

    def note(self, touched: Touched) -> None:
        """Add what a fact touched."""
        self.tasks.update(dict.fromkeys(touched.tasks))
        self.run_wide = self.run_wide or touched.run_wide
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


@dataclass(slots=True, eq=False)
class HostedRun:
    """A run in memory.

    head: the end of the stream as decided; `committed` is the version known to be on disk.
    position: where the newest committed fact lies in the partition's log.
    dropped: facts of it were not stored; this object is history and the run is folded anew.
    """

    run_id: RunId
    state: RunState
    namespace: Namespace
    head: StreamHead = EMPTY_HEAD
    committed: int = 0
    position: int = 0
    creator: Principal | None = None
    last_event_id: str = ""
    correlation_id: str = ""
    dropped: bool = False
    waiters: deque[Waiter] = field(default_factory=deque)
    watches: list[RunWatch] = field(default_factory=list)
    end_watchers: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def decided(self) -> int:
        """The version the state is at."""
        return self.head.version

    @property
    def has_ended(self) -> bool:
        """Whether a terminal fact was decided."""
        return self.state.end is not None

    def instant_ns(self, now_ns: int) -> int:
        """`now_ns`, or the time of the newest fact when the wall clock was set back since."""
        return max(now_ns, self.state.time_ns)

    @property
    def is_clean(self) -> bool:
        """Whether everything decided is committed."""
        return self.committed == self.head.version


def unfolded(run_id: RunId, first: RecordedEvent) -> HostedRun:
    """Return the empty run that `first`, its first event, begins."""
    namespace = Namespace(first.namespace)
    return HostedRun(run_id, new_run(run_id, namespace), namespace, creator=first.principal)


def advance(run: HostedRun, stored: StoredEvent, decoded: Decoded) -> None:
    """Apply the next stored event to a run being folded."""
    envelope = decoded.envelope
    evolve(run.state, decoded.recorded)
    run.head = StreamHead(
        envelope.version,
        chain_hash(envelope.previous_hash, stored.stored_bytes),
        decoded.recorded.time_ns,
    )
    run.last_event_id = envelope.event_id
    run.correlation_id = envelope.correlation_id
    run.position = stored.position


def drop_waiters(run: HostedRun, cause: Exception) -> None:
    """Tell everybody who waits for a commit of the run that there will be none."""
    waiters = list(run.waiters)
    run.waiters.clear()
    for waiter in waiters:
        waiter.dropped(cause)


def void_watchers(run: HostedRun) -> None:
    """Tell everybody who follows the run that its memory is void."""
    for watch in run.watches:
        watch.void()
    release(run.end_watchers)


def release(watchers: list[asyncio.Future[None]]) -> None:
    """Let everybody in the list go on, and empty it."""
    for watcher in watchers:
        succeed(watcher)
    watchers.clear()


def succeed(future: asyncio.Future[None]) -> None:
    """Set a future's result unless it is done."""
    if not future.done():
        future.set_result(None)


def fail(future: asyncio.Future[None], cause: Exception) -> None:
    """Set a future's exception unless it is done."""
    if not future.done():
        future.set_exception(cause)
