"""Whether a run id is already taken, answered without a read in the common case.

Owns the ids of the runs started in the last 60 s under this ownership. A run id bears the time of
its request; if that lies in the window and after the ownership began, an id not seen here is new.
All other questions are looked up together, one statement a batch. A wrong guess (the client's
clock is off) is caught by the log's unique key, and the command is decided again after a real
look-up.
"""

from __future__ import annotations

import asyncio
from collections import deque

from stretto_core.clock import NS_PER_MS, NS_PER_S, Clock
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import RunId, StreamId, run_id_time_ms

WINDOW_NS = 60 * NS_PER_S
LOOKUP_BATCH_MAX = 1_000


class RunPresence:
    """Knows or finds out which run ids exist.

    Make it when the ownership begins.
    """

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._began_ms = -(-clock.now_ns() // NS_PER_MS) + 1
        self._recent: set[RunId] = set()
        self._order: deque[tuple[int, RunId]] = deque()
        self._asked: dict[RunId, asyncio.Future[bool]] = {}
        self._lookup: asyncio.Task[None] | None = None

    def note_started(self, run_id: RunId) -> None:
        """Remember an id taken under this ownership, also if its append fails later (harmless)."""
        now_ns = self._clock.mono_ns()
        if run_id not in self._recent:
            self._recent.add(run_id)
            self._order.append((now_ns, run_id))
        while self._order and now_ns - self._order[0][0] > WINDOW_NS:
            self._recent.discard(self._order.popleft()[1])

    def is_surely_new(self, run_id: RunId) -> bool:
        """Whether the id can be taken as new without a read."""
        now_ns = self._clock.now_ns()
        begin_ms = max(self._began_ms, (now_ns - WINDOW_NS) // NS_PER_MS)
        in_window = begin_ms < run_id_time_ms(run_id) <= now_ns // NS_PER_MS
        return in_window and run_id not in self._recent

    async def exists(self, run_id: RunId) -> bool:
        """Look the id up in the log, together with everybody else who asks now."""
        future = self._asked.get(run_id)
        if future is None:
            future = self._asked[run_id] = asyncio.get_running_loop().create_future()
            if self._lookup is None:
                self._lookup = asyncio.create_task(self._look_up(), name="run-presence")
        return await asyncio.shield(future)

    async def _look_up(self) -> None:
        try:
            while self._asked:
                batch = dict(list(self._asked.items())[:LOOKUP_BATCH_MAX])
                for run_id in batch:
                    del self._asked[run_id]
                await self._answer(batch)
        finally:
            self._lookup = None

    async def _answer(self, batch: dict[RunId, asyncio.Future[bool]]) -> None:
        try:
            found = await self._log.existing_streams([StreamId(run_id) for run_id in batch])
        except Exception as error:  # Each asker gets the store's refusal; the next batch may pass.
            for future in batch.values():
                future.set_exception(error)
                future.exception()
            return
        for run_id, future in batch.items():
            future.set_result(StreamId(run_id) in found)
