"""The group writer's asyncio shell: drives one partition's appends as `writer` decides.

Owns the order of appends of one partition: one call to the `OwnedLog` at a time, as many commands'
events in it as wait. Rules are in `writer.WriterMachine`; here are only the loop's timer, the one
task that awaits the log, and the calls back to the owner. Uses only the running loop's time, so it
runs unchanged on virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, assert_never

import structlog

from stretto_core.clock import NS_PER_S
from stretto_core.errors import Internal, Refusal, Unavailable
from stretto_core.eventlog.port import (
    AppendUnknown,
    OwnedLog,
    PartitionMoved,
    StoreDown,
    VersionConflict,
)
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.eventlog.writer import (
    Append,
    BarriersPassed,
    Closed,
    Committed,
    Dropped,
    News,
    Phase,
    Probe,
    Settle,
    Step,
    Wait,
    WriterLimits,
    WriterMachine,
)

_log = structlog.get_logger(__name__)
_SETTLE_DELAY_S = 0.02
_SETTLE_DELAY_S_MAX = 0.2


class WriterOwner(Protocol):
    """Who submitted the batches; called on the loop, in arrival order; must not raise."""

    def batches_committed(self, commits: Sequence[Committed]) -> None:
        """These batches are on disk: what was decided on them may leave the process."""
        ...

    def batches_dropped(self, batches: Sequence[int], cause: Refusal) -> None:
        """None of these batches is stored, nor will be; they are all that was not yet committed.

        Drop the memory of their streams, then decide their commands again, in this order. New
        batches may be submitted from inside this call.
        """
        ...

    def writer_closed(self, cause: Refusal) -> None:
        """Nothing can be appended any more (PartitionMoved, Internal); close and forget.

        Batches neither committed nor dropped before this call have an unknown fate.
        """
        ...


class GroupWriter:
    """Appends batches of one partition in groups; runs from its making to `close`.

    owned: the ownership it appends under; nothing else may use it meanwhile.
    limits: caps and linger; see `WriterLimits`.
    Make it on a running loop.
    """

    def __init__(
        self, owned: OwnedLog, owner: WriterOwner, *, limits: WriterLimits | None = None
    ) -> None:
        self._owned = owned
        self._owner = owner
        self._machine = WriterMachine(limits or WriterLimits())
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._barriers: dict[int, asyncio.Future[None]] = {}
        self._closing = False
        self._closed_by: Refusal | None = None
        self._owner_waits_for_close = True
        self._deciding_again = False
        self._runner = self._loop.create_task(self._run(), name="group-writer")

    @property
    def has_room(self) -> bool:
        """Whether another command should be decided now; when not, refuse it with Exhausted."""
        return self._machine.has_room

    @property
    def is_settling(self) -> bool:
        """Whether the fate of a group is being found out: nothing may be answered meanwhile."""
        return self._machine.phase is Phase.SETTLING

    def submit(self, events: Sequence[NewEvent]) -> int:
        """Queue one command's events (at least one) and return its batch number: 1, 2, 3 ...

        Returns at once. The owner is called back when the batch is committed or dropped. Raises
        the closing cause when the writer is closed.
        """
        self._refuse_when_closed()
        number = self._machine.submit(events, self._now_ns())
        self._wake.set()
        return number

    async def barrier(self) -> None:
        """Return once a commit or an ownership probe that began after this call has succeeded.

        Shared: one probe serves all who wait. Raises the closing cause when ownership is lost.
        """
        self._refuse_when_closed()
        number = self._machine.want_barrier()
        self._wake.set()
        future = self._barriers.get(number)
        if future is None:
            future = self._barriers[number] = self._loop.create_future()
        # Shielded: one waiter's deadline must not end the wait of the others.
        await asyncio.shield(future)

    async def close(self) -> None:
        """Append what is queued, then stop; later batches are refused. Idempotent."""
        self._closing = True
        self._machine.drain()
        self._wake.set()
        await asyncio.wait([self._runner])

    def abort(self) -> None:
        """Stop at once, as a crash would: what is queued or in flight has an unknown fate."""
        self._closing = True
        self._runner.cancel()

    async def _run(self) -> None:
        cause: Refusal = Unavailable("the partition's writer has stopped", reason="DRAINING")
        try:
            while self._machine.phase is not Phase.CLOSED:
                if self._closing and self._machine.is_drained and not self._barriers:
                    break
                self._wake.clear()  # Before looking: a submission in between must not be missed.
                await self._do(self._machine.tick(self._now_ns()))
        except Exception as error:
            # A bug of ours or of the owner's callbacks: memory and record may have parted, so stop.
            cause = Internal("the group writer failed")
            cause.__cause__ = error
            _log.error("log.writer_failed", exc_info=True)
        finally:
            self._tell(self._machine.close(cause))
            if self._owner_waits_for_close:  # A callback broke before it was told.
                self._close_for(self._closed_by or cause)

    async def _do(self, step: Step) -> None:
        match step:
            case Append(events=events):
                await self._append(events)
            case Probe():
                await self._probe()
            case Settle(events=events):
                await self._settle(events)
            case Wait(until_ns=until_ns):
                await self._wait(until_ns)
                return
            case _:
                assert_never(step)
        # Let the commands that waited for this call be decided, so that they join the next group.
        await asyncio.sleep(0)

    async def _append(self, events: tuple[NewEvent, ...]) -> None:
        try:
            positions = await self._owned.append(events)
        except (VersionConflict, PartitionMoved, StoreDown) as refusal:
            self._tell(self._machine.refused(refusal))
        except AppendUnknown as error:
            _log.warning("log.append_unknown", events=len(events), error=str(error))
            self._machine.lost()
        else:
            self._tell(self._machine.appended(positions))

    async def _probe(self) -> None:
        try:
            await self._owned.probe()
        except PartitionMoved as refusal:
            self._tell(self._machine.refused(refusal))
        except StoreDown as error:
            _log.warning("log.probe_failed", error=str(error))
            self._machine.lost()
        else:
            self._tell(self._machine.probed())

    async def _settle(self, events: tuple[NewEvent, ...]) -> None:
        delay_s = _SETTLE_DELAY_S
        while True:
            try:
                settlement = await self._owned.settle(events)
            except PartitionMoved as refusal:  # Released under us; the fate stays unknown.
                self._tell(self._machine.close(refusal))
                return
            except StoreDown:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _SETTLE_DELAY_S_MAX)
            else:
                _log.warning(
                    "log.append_settled", events=len(events), outcome=settlement.outcome.value
                )
                self._tell(self._machine.settled(settlement))
                return

    async def _wait(self, until_ns: int | None) -> None:
        if until_ns is None:
            await self._wake.wait()
            return
        timer = self._loop.call_at(until_ns / NS_PER_S, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _tell(self, news: list[News]) -> None:
        for one in news:
            if isinstance(one, Closed):
                self._closed_by = one.cause  # First: a callback may try to submit.
        for kind, group in groupby(news, type):
            if kind is Committed:
                self._owner.batches_committed([one for one in group if isinstance(one, Committed)])
                continue
            for one in group:
                match one:
                    case Dropped(batches=batches, cause=cause):
                        self._drop(batches, cause)
                    case BarriersPassed(number=number):
                        self._pass_barriers(number)
                    case Closed(cause=cause):
                        self._close_for(cause)

    def _drop(self, batches: tuple[int, ...], cause: Refusal) -> None:
        # What was taken before the writer began to close is finished, also when decided again.
        self._deciding_again = True
        try:
            self._owner.batches_dropped(batches, cause)
        finally:
            self._deciding_again = False

    def _pass_barriers(self, number: int) -> None:
        for asked in [asked for asked in self._barriers if asked <= number]:
            future = self._barriers.pop(asked)
            if not future.done():
                future.set_result(None)

    def _close_for(self, cause: Refusal) -> None:
        self._closed_by = cause
        self._owner_waits_for_close = False
        for future in self._barriers.values():
            if not future.done():
                future.set_exception(cause)
                future.exception()  # Its waiters may all be gone; that is no one's error.
        self._barriers.clear()
        self._owner.writer_closed(cause)

    def _refuse_when_closed(self) -> None:
        if self._closed_by is not None:
            raise self._closed_by
        if self._closing and not self._deciding_again:
            raise Unavailable("the partition's writer is stopping", reason="DRAINING")

    def _now_ns(self) -> int:
        return round(self._loop.time() * NS_PER_S)
