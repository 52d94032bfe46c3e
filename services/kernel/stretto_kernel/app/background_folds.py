"""Folds runs in the background: after a start, and those whose memory became void.

Owns which active runs are not in memory yet, in the order of their deadlines. A call on one of them
does not wait for its turn: it folds it itself. Uses a few tasks for any number of runs.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

import structlog
from stretto_core.errors import NotFound, Unavailable
from stretto_core.eventlog.chain import UnreadableEvent
from stretto_core.ids import RunId

from stretto_kernel.app.stream_host import StreamHost

FOLDERS_MAX = 4
RETRY_S = 0.1
NO_DEADLINE_NS = 1 << 63
DAMAGED_HELD_S = 15.0
"""As long as leases have to be named after a start: then nobody who lives holds one any more."""


class BackgroundFolds:
    """The active runs still to be folded.

    folded: told of each run that is in memory now, or turned out not to exist; of one that is
    damaged some time later, since nobody knows what it holds.
    """

    def __init__(self, host: StreamHost, folded: Callable[[RunId], None]) -> None:
        self._host = host
        self._folded = folded
        self._queue: list[tuple[int, RunId]] = []
        self._waiting: set[RunId] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._damaged: set[asyncio.TimerHandle] = set()
        self._log = structlog.get_logger("stretto.kernel.folds")
        self.damaged_count = 0
        """Active runs that cannot be folded: damaged, or written by a newer version."""

    @property
    def recovery_streams_left(self) -> int:
        """How many active runs are not in memory."""
        return len(self._waiting)

    def add(self, run_id: RunId, deadline_ns: int = NO_DEADLINE_NS) -> None:
        """Fold the run when its turn comes."""
        if run_id in self._waiting:
            return
        self._waiting.add(run_id)
        heapq.heappush(self._queue, (deadline_ns, run_id))
        if len(self._tasks) < FOLDERS_MAX:
            task = asyncio.create_task(self._work(), name="background-folds")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stop folding."""
        for task in self._tasks:
            task.cancel()
        for damaged in self._damaged:
            damaged.cancel()

    def _hold_damaged(self, run_id: RunId) -> None:
        def let_go() -> None:
            self._damaged.discard(timer)
            self._folded(run_id)

        timer = asyncio.get_running_loop().call_later(DAMAGED_HELD_S, let_go)
        self._damaged.add(timer)

    async def _work(self) -> None:
        while self._queue:
            _, run_id = heapq.heappop(self._queue)
            if await self._fold(run_id):
                self._waiting.discard(run_id)
                self._folded(run_id)

    async def _fold(self, run_id: RunId) -> bool:
        """Return whether nothing is left to do; False for a stream that cannot be folded."""
        while True:
            try:
                run = await self._host.load(run_id)
            except NotFound:
                return True  # Its start was never stored.
            except Unavailable as refusal:
                self._log.info("fold.postponed", run_id=run_id, reason=refusal.reason_word)
                await asyncio.sleep(RETRY_S)
            except UnreadableEvent as damage:
                # Nothing of it is leased any more, and its holders hear so with their next renewal.
                # So long queues with a limit wait for it, and no longer.
                self._log.error(
                    "fold.damaged", run_id=run_id, message=damage.message, **damage.metadata
                )
                self.damaged_count += 1
                self._hold_damaged(run_id)
                return False
            except Exception:
                # Others are not kept waiting by it; what it may hold stays counted as held.
                self._log.error("fold.failed", run_id=run_id, exc_info=True)
                return False
            else:
                if not run.dropped:  # Else it is void again before this heard of it.
                    return True
