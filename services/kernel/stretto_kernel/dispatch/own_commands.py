"""What the kernel decides by itself: a lease that is over, a timer that is due.

Nobody waits for the answer. A command whose facts are dropped is not repeated: the fold of its run
shows again what made it necessary. Commands on runs out of memory wait for the fold.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog
from stretto.run.v1 import events_pb2 as ev
from stretto_core.clock import Clock
from stretto_core.errors import NotFound, Refusal, Unavailable
from stretto_core.ids import RunId

from stretto_kernel.app.fact_writer import Overloaded
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.domain.run.commands import (
    Command,
    Lose,
    Progress,
    RecordRefusal,
    Release,
    Timer,
    TimerFired,
)

RETRY_S = 0.1
DECIDED_PER_STRETCH_MAX = 50
"""Others run after so many: a stretch on the loop is bounded."""


class OwnCommands:
    """Decides the kernel's own commands on the runs of a host."""

    def __init__(self, host: StreamHost, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._later: set[asyncio.Task[None]] = set()
        self._closed = False
        self._waiting: deque[tuple[RunId, Command]] = deque()
        self._decided_count = 0
        self._log = structlog.get_logger("stretto.kernel.dispatch")

    def lose(self, lease: Lease, cause: ev.LossCause.ValueType) -> None:
        """The lease ended without its holder's word."""
        self._log.info(
            "attempt.lost",
            run_id=lease.run_id,
            task=lease.task,
            epoch=lease.epoch,
            cause=ev.LossCause.Name(cause),
        )
        command = Lose(
            now_ns=self._clock.now_ns(),
            task=lease.task,
            epoch=lease.epoch,
            cause=cause,
            details=lease.details,
        )
        self._decide(lease.run_id, command)

    def release(self, lease: Lease, cause: ev.ReleaseCause.ValueType) -> None:
        """The lease is given back for its holder; consumes no try."""
        command = Release(
            now_ns=self._clock.now_ns(),
            task=lease.task,
            epoch=lease.epoch,
            cause=cause,
            details=lease.details,
        )
        self._decide(lease.run_id, command)

    def fire(self, run_id: RunId, timer: Timer) -> None:
        """A timer of the run is due."""
        self._decide(run_id, TimerFired(now_ns=self._clock.now_ns(), timer=timer))

    def record_progress(self, run: HostedRun, lease: Lease) -> None:
        """Newest details of a running attempt are due to be recorded."""
        assert lease.details is not None, "there is something to record"
        command = Progress(
            now_ns=self._clock.now_ns(),
            task=lease.task,
            epoch=lease.epoch,
            details=lease.details,
        )
        self._take(run, command)

    def record_refusal(self, run: HostedRun, command: RecordRefusal) -> None:
        """A holder with a stale epoch was refused."""
        self._take(run, command)

    def close(self) -> None:
        """Forget what waits."""
        self._closed = True
        self._waiting.clear()
        for task in self._later:
            task.cancel()

    def _decide(self, run_id: RunId, command: Command) -> None:
        """Decide now, or, when many come at once (a worker with many leases died), in its turn."""
        if self._closed:
            return
        if self._waiting or self._decided_count >= DECIDED_PER_STRETCH_MAX:
            self._waiting.append((run_id, command))
        else:
            self._begin(run_id, command)

    def _begin(self, run_id: RunId, command: Command) -> None:
        if self._decided_count == 0:
            asyncio.get_running_loop().call_soon(self._next_stretch)
        self._decided_count += 1
        self._decide_now(run_id, command)

    def _next_stretch(self) -> None:
        self._decided_count = 0
        while self._waiting and self._decided_count < DECIDED_PER_STRETCH_MAX:
            self._begin(*self._waiting.popleft())

    def _decide_now(self, run_id: RunId, command: Command) -> None:
        run = self._host.find(run_id)
        if run is not None:
            self._take(run, command)
            return
        task = asyncio.create_task(self._decide_later(run_id, command), name="own-command")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _decide_later(self, run_id: RunId, command: Command) -> None:
        while True:
            try:
                run = await self._host.load(run_id)
            except NotFound:
                return
            except Unavailable:
                await asyncio.sleep(RETRY_S)
            except Refusal as refusal:  # It is damaged: nothing is decided on it.
                self._log_refused(run_id, command, refusal)
                return
            else:
                self._take(run, command)
                return

    def _take(self, run: HostedRun, command: Command) -> None:
        try:
            self._host.take(run, command, self._host.facts.kernel_cause(run))
        except Overloaded:
            # What is due stays due: nobody else will ask for it again.
            asyncio.get_running_loop().call_later(RETRY_S, self._decide, run.run_id, command)
        except Refusal as refusal:  # It came too late.
            self._log_refused(run.run_id, command, refusal)

    def _log_refused(self, run_id: RunId, command: Command, refusal: Refusal) -> None:
        self._log.info(
            "command.refused",
            run_id=run_id,
            command=type(command).__name__,
            reason=refusal.reason_word,
        )
