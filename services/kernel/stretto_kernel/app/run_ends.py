"""The ends of many runs, for one who waits for them: named as they come, told as they end.

One structure for all names of a follower: a run in memory costs a future in its list, one that is
not is loaded by a single task, one after another. An end is told once it is committed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import NamedTuple

from stretto.run.v1 import run_pb2
from stretto_core.errors import Exhausted, Refusal, Unavailable
from stretto_core.ids import Namespace, RunId

from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.run_calls import RunCalls
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.domain.run.refusals import RunNotFound

UNANSWERED_MAX = 4_096
ENDS_PER_MESSAGE_MAX = 200
ENDS_BYTES_MAX = 2 * 1024 * 1024
"""A message is full beyond this; the last output in it may be as large as an output may be."""


class TooManyAwaited(Exhausted):
    """As many runs as a stream may wait for are unanswered: name it again once some are."""

    reason = "OVERLOADED"


class Named(NamedTuple):
    """A run as the follower named it; `refused` when the name is none."""

    name: str
    namespace: Namespace
    run_id: RunId
    refused: Refusal | None = None


class RunEnd(NamedTuple):
    """What is told of a name: the ended run and the position of its end, or why there is none."""

    name: str
    run: run_pb2.Run | None
    position: int
    refused: Refusal | None


class RunEnds:
    """What one follower waits for. Close it when the follower is gone."""

    def __init__(self, host: StreamHost, calls: RunCalls) -> None:
        self._host = host
        self._calls = calls
        self._waiting: dict[str, asyncio.Future[None] | None] = {}
        self._absent: deque[Named] = deque()
        self._ended_before: list[Named] = []
        self._ended: deque[Named] = deque()
        self._refused: deque[RunEnd] = deque()
        self._more = True
        self._failed: BaseException | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._loader: asyncio.Task[None] | None = None
        self._prover: asyncio.Task[None] | None = None

    def name(self, named: Named) -> None:
        """Wait for one more run; one that is waited for already is told once."""
        if named.name in self._waiting:
            return
        if named.refused is not None:
            self._refuse(named, named.refused)
        elif len(self._waiting) + len(self._refused) >= UNANSWERED_MAX:
            self._refuse(named, TooManyAwaited("the stream waits for as many runs as it may"))
        else:
            self._waiting[named.name] = None
            self._follow(named, self._host.find(named.run_id))

    async def until_room(self) -> None:
        """Return once so few refusals wait to be told that more names may come."""
        while len(self._refused) >= UNANSWERED_MAX:
            self._room.clear()
            await self._room.wait()

    def end_names(self, cause: BaseException | None = None) -> None:
        """No name comes any more; with a cause the whole wait fails."""
        self._more = False
        self._failed = self._failed or cause
        self._wake.set()

    async def next(self) -> list[RunEnd]:
        """Return the ends to tell next, at least one; [] when every name has been told of.

        Raises what ended the names, and the cause when the ownership of the partition is over.
        """
        while not (ends := self._take()):
            if self._failed is not None:
                raise self._failed
            if not self._more and not self._waiting:
                return []
            self._wake.clear()
            await self._wake.wait()
        return ends

    def close(self) -> None:
        """Let go of every run."""
        for task in (self._loader, self._prover):
            if task is not None:
                task.cancel()
        for future in self._waiting.values():
            if future is not None:
                future.cancel()
        self._waiting.clear()
        self._absent.clear()
        self._ended_before.clear()
        self._ended.clear()

    def _follow(self, named: Named, run: HostedRun | None) -> None:
        if run is None:
            self._absent.append(named)
            if self._loader is None:
                self._loader = asyncio.create_task(self._load(), name="run-ends-load")
        elif run.namespace != named.namespace:
            self._refuse(named, RunNotFound(named.run_id))
        elif run.has_ended:
            self._ended_before.append(named)
            if self._prover is None:
                self._prover = asyncio.create_task(self._prove(), name="run-ends-prove")
        else:
            future = self._host.until_end(run)
            self._waiting[named.name] = future
            future.add_done_callback(partial(self._over, named, run))

    def _over(self, named: Named, run: HostedRun, future: asyncio.Future[None]) -> None:
        """The run has ended as decided, or its memory is void."""
        if future.cancelled():
            return
        self._waiting[named.name] = None
        if run.has_ended and not run.dropped:
            self._tell_when_settled(named, run)
        else:
            self._look_again(named)

    def _tell_when_settled(self, named: Named, run: HostedRun) -> None:
        self._host.facts.when_settled(
            run, partial(self._committed, named), lambda _: self._look_again(named)
        )

    def _look_again(self, named: Named) -> None:
        if named.name in self._waiting:
            self._follow(named, None)

    def _committed(self, named: Named) -> None:
        self._ended.append(named)
        self._wake.set()

    def _refuse(self, named: Named, refusal: Refusal) -> None:
        self._waiting.pop(named.name, None)
        self._refused.append(RunEnd(named.name, None, 0, refusal))
        self._wake.set()

    def _take(self) -> list[RunEnd]:
        """Make the next message's parts: here, and not at each end, so that nothing piles up."""
        ends: list[RunEnd] = []
        bytes_left = ENDS_BYTES_MAX
        while self._refused and len(ends) < ENDS_PER_MESSAGE_MAX:
            ends.append(self._refused.popleft())
        self._room.set()
        while self._ended and len(ends) < ENDS_PER_MESSAGE_MAX and bytes_left > 0:
            named = self._ended.popleft()
            run = self._host.find(named.run_id)
            if named.name not in self._waiting:
                continue
            if run is None or not (run.has_ended and run.is_clean):
                # It left memory, or was opened again, before its end was told.
                self._follow(named, run)
                continue
            del self._waiting[named.name]
            shown = self._calls.show_end(run)
            bytes_left -= shown.ByteSize()
            ends.append(RunEnd(named.name, shown, run.position, None))
        return ends

    async def _prove(self) -> None:
        """Prove the ownership for ends older than the question.

        An end that comes after it is proven by its own commit; an older one may have been retried
        since under an owner that this one does not know of.
        """
        try:
            while names := self._ended_before:
                self._ended_before = []
                await self._host.facts.writer.barrier()
                for named in names:
                    run = self._host.find(named.run_id)
                    if run is not None and run.has_ended:
                        self._tell_when_settled(named, run)
                    else:
                        self._look_again(named)
        except Refusal as error:
            self.end_names(error)  # The ownership is over: the follower names them again.
        finally:
            self._prover = None

    async def _load(self) -> None:
        try:
            while self._absent:
                named = self._absent.popleft()
                try:
                    run = await self._calls.find(named.namespace, named.run_id)
                except Refusal as refusal:
                    # Of this name alone: it is not there, or what is stored of it is damaged.
                    if isinstance(refusal, Unavailable) or refusal is self._host.facts.closed_by:
                        raise
                    self._refuse(named, refusal)
                else:
                    self._follow(named, run)
        except Exception as error:
            # The ownership is over, or the store does not answer: the follower names them again.
            self.end_names(error)
        finally:
            self._loader = None
