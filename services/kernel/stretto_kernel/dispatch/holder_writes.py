"""What lease holders write: renewals, outcomes, spawns. Each is fenced, decided and answered.

Owns the way of a write from its token to its receipt; `holder_commands` says what it means. A
receipt of facts leaves when they are committed; a refusal or a repeat leaves when a commit or probe
after it succeeded. What is dropped is decided again, three times, then answered UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import NamedTuple

import structlog
from google.rpc import status_pb2
from stretto.common.v1 import lease_pb2
from stretto.work.v1 import work_pb2
from stretto_core.errors import InvalidArgument, NotFound, Refusal, Unavailable
from stretto_core.eventlog.codec import Cause
from stretto_core.ids import Namespace, RunId, TaskName

from stretto_kernel.app.fact_writer import DECIDE_AGAIN_MAX, StoreUnsettled
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.dispatch.assignments import parse_work_item
from stretto_kernel.dispatch.holder_commands import outcome_command, spawn_command
from stretto_kernel.dispatch.holder_fence import check_genuine, is_genuine
from stretto_kernel.dispatch.holder_payloads import blobs_in_outcome, check_details
from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.dispatch.shared import Shared
from stretto_kernel.dispatch.takers import Holder
from stretto_kernel.domain.run import commands
from stretto_kernel.domain.run.blob_names import BlobName, in_tasks
from stretto_kernel.domain.run.refusals import LeaseLost

ToStatus = Callable[[Refusal], status_pb2.Status]
RequireBlobs = Callable[[Namespace, frozenset[BlobName], int], Awaitable[None]]
"""Of a namespace, for a run with that data key; 0 = without."""


_CommandOf = Callable[[TaskName, Lease | None], commands.Command]


class _Write(NamedTuple):
    """One write on its way to its receipt.

    command: what it asks for, of its task and what is known of the lease; or raises a refusal.
    again: what to do when what it was decided on is dropped; None = decide the command again.
    """

    holder: Holder
    token: lease_pb2.LeaseToken
    kind: work_pb2.ReceiptKind.ValueType
    run_id: RunId
    task: TaskName
    command: _CommandOf
    request_id: str = ""
    again: Callable[[], None] | None = None


class HolderWriter:
    """Takes holders' writes for one host.

    to_status: how a refusal is written into a receipt. require_blobs: renews those that a write
    names, and refuses it when one is missing.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        to_status: ToStatus,
        require_blobs: RequireBlobs,
    ) -> None:
        self._require_blobs = require_blobs
        self._host = shared.host
        self._clock = shared.clock
        self._keys = shared.keys
        self._own = shared.own
        self._leases = shared.leases
        self._to_status = to_status
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused_count = 0
        self._log = structlog.get_logger("stretto.kernel.dispatch")

    def report(self, holder: Holder, outcome: work_pb2.Outcome) -> None:
        """See `HolderWrites`."""
        self._begin(
            holder,
            outcome.token,
            work_pb2.RECEIPT_KIND_OUTCOME,
            lambda task, lease: outcome_command(outcome, task, lease, self._clock.now_ns()),
            blobs=blobs_in_outcome(outcome),
        )

    def spawn(self, holder: Holder, spawn: work_pb2.Spawn) -> None:
        """See `HolderWrites`."""
        self._begin(
            holder,
            spawn.token,
            work_pb2.RECEIPT_KIND_SPAWN,
            lambda task, _: spawn_command(spawn, task, self._clock.now_ns()),
            request_id=spawn.request_id,
            blobs=frozenset(in_tasks(spawn.tasks)),
        )

    def renew(self, holder: Holder, renewal: work_pb2.Renewal) -> None:
        """See `HolderWrites`. An accepted renewal is not answered; a cancel is told again."""
        token = renewal.token
        named = parse_work_item(token.work_item)
        lease = None if named is None else self._leases.find((named[1], named[2]), token.epoch)
        if lease is None or not is_genuine(self._keys, token):
            if named is not None and self._host.find(named[1]) is None:
                self._later(self._load_and_renew(holder, renewal, named[1]))
            else:
                self._refuse_renewal(holder, renewal)
            return
        now_mono_ns = self._clock.mono_ns()
        self._leases.renew(lease, now_mono_ns)
        holder.renewed(lease)
        if renewal.HasField("details"):
            self._note_details(holder, lease, renewal, now_mono_ns)

    def close(self) -> None:
        """Forget what waits."""
        for task in self._tasks:
            task.cancel()

    def _begin(
        self,
        holder: Holder,
        token: lease_pb2.LeaseToken,
        kind: work_pb2.ReceiptKind.ValueType,
        command: _CommandOf,
        *,
        request_id: str = "",
        again: Callable[[], None] | None = None,
        blobs: frozenset[BlobName] = frozenset(),
    ) -> None:
        named = parse_work_item(token.work_item)
        if named is None:
            refusal = InvalidArgument("the token's work item is no task", field="token.work_item")
            self._answer(holder, token, kind, request_id, refusal)
            return
        write = _Write(holder, token, kind, named[1], named[2], command, request_id, again)
        run = self._host.find(write.run_id)
        if blobs and is_genuine(self._keys, token):  # Else it is refused, and learns no more.
            self._later(self._require_and_take(write, named[0], blobs))
        elif run is not None:
            self._take(write, run, 0)
        else:
            self._later(self._load_and_take(write, 0))

    def _take(self, write: _Write, run: HostedRun, tries: int) -> None:
        """Decide a write on its run in memory; its receipt follows when it may leave."""
        lease = self._leases.find((write.run_id, write.task), write.token.epoch)
        refusal: Refusal | None = None
        try:
            check_genuine(self._keys, run, write.task, write.token)
            if lease is not None:
                lease.acknowledged = lease.reclaimed = True
                lease.reported = write.kind == work_pb2.RECEIPT_KIND_OUTCOME
            if self._host.take(run, write.command(write.task, lease), self._cause(write, run)):
                self._host.facts.when_settled(
                    run,
                    partial(self._answered, write, None),
                    partial(self._dropped, write, tries),
                )
                return
        except Refusal as refused:
            refusal = refused
            self._note_refused(write, run, refused)
        if lease is not None and refusal is not None:
            lease.reported = False
        self._later(self._answer_settled(write, run, refusal, tries))

    async def _answer_settled(
        self, write: _Write, run: HostedRun, refusal: Refusal | None, tries: int
    ) -> None:
        try:
            await self._host.facts.answered(run, run.decided, own_facts=False)
        except DecidedAgain as cause:
            self._dropped(write, tries, cause)
        except Refusal as closed:
            self._answered(write, closed)
        else:
            self._answered(write, refusal)
        write.holder.flush()

    def _dropped(self, write: _Write, tries: int, cause: Exception) -> None:
        if not isinstance(cause, DecidedAgain):
            return  # The ownership is over and the stream ends with it.
        if write.again is not None:
            write.again()
        elif tries >= DECIDE_AGAIN_MAX:
            self._answered(write, StoreUnsettled("the facts could not be stored"))
        else:
            self._later(self._load_and_take(write, tries + 1))

    async def _require_and_take(
        self, write: _Write, namespace: Namespace, blobs: frozenset[BlobName]
    ) -> None:
        """Renew what the write names before it is decided: from here on nothing sweeps it."""
        try:
            run = await self._host.load(write.run_id)
            if not run.is_shredded:
                await self._require_blobs(namespace, blobs, run.state.key_id)
        except NotFound:
            await self._load_and_take(write, 0)  # Refused there.
        except Refusal as refusal:
            self._answered(write, refusal)
            write.holder.flush()
        else:
            await self._load_and_take(write, 0)

    async def _load_and_take(self, write: _Write, tries: int) -> None:
        try:
            run = await self._host.load(write.run_id)
        except NotFound:
            refusal = LeaseLost("there is no such run", current_epoch="0")
            self._answered(write, refusal)
        except Refusal as refusal:
            self._answered(write, refusal)
        else:
            self._take(write, run, tries)
        write.holder.flush()

    def _answered(self, write: _Write, refusal: Refusal | None) -> None:
        self._answer(write.holder, write.token, write.kind, write.request_id, refusal)

    def _answer(
        self,
        holder: Holder,
        token: lease_pb2.LeaseToken,
        kind: work_pb2.ReceiptKind.ValueType,
        request_id: str,
        refusal: Refusal | None,
    ) -> None:
        receipt = work_pb2.Receipt(
            token=lease_pb2.LeaseToken(work_item=token.work_item, epoch=token.epoch),
            request_id=request_id,
            kind=kind,
            status=status_pb2.Status() if refusal is None else self._to_status(refusal),
        )
        holder.answer(receipt)

    def _note_refused(self, write: _Write, run: HostedRun, refusal: Refusal) -> None:
        record = run.state.tasks.get(write.task)
        passed_on = record is None or record.epoch != write.token.epoch
        if write.kind == work_pb2.RECEIPT_KIND_RENEWAL and not passed_on:
            return  # It crossed the receipt that ended its lease: normal, and no stale holder.
        self.refused_count += 1
        self._log.info(
            "write.refused",
            run_id=write.run_id,
            task=write.task,
            epoch=write.token.epoch,
            reason=refusal.reason_word,
            worker_id=write.holder.worker_id,
        )
        if isinstance(refusal, LeaseLost) and is_genuine(self._keys, write.token):
            command = commands.RecordRefusal(
                now_ns=self._clock.now_ns(), task=write.task, epoch=write.token.epoch
            )
            self._own.record_refusal(run, command)

    async def _load_and_renew(
        self, holder: Holder, renewal: work_pb2.Renewal, run_id: RunId
    ) -> None:
        try:
            run = await self._host.load(run_id)
        except Unavailable as cause:
            holder.renewal_unknown(renewal.token, cause)
            return
        except Refusal as refusal:
            kind = work_pb2.RECEIPT_KIND_RENEWAL
            self._answer(
                holder, renewal.token, kind, "", LeaseLost(str(refusal), current_epoch="0")
            )
            holder.flush()
            return
        if run.has_ended:
            self._refuse_renewal(holder, renewal)
        else:
            self.renew(holder, renewal)

    def _refuse_renewal(self, holder: Holder, renewal: work_pb2.Renewal) -> None:
        """Answer a renewal of a lease that is not open, once it is sure that it is not.

        When the fact that ended the lease is dropped, the lease may stand and is renewed after all.
        """
        kind = work_pb2.RECEIPT_KIND_RENEWAL

        def command(task: TaskName, _: Lease | None) -> commands.Command:
            raise LeaseLost("the lease is over", task=task, current_epoch=str(self._epoch(named)))

        named = parse_work_item(renewal.token.work_item)
        self._begin(
            holder,
            renewal.token,
            kind,
            command,
            again=lambda: self.renew(holder, renewal),
        )

    def _epoch(self, named: tuple[Namespace, RunId, TaskName] | None) -> int:
        run = None if named is None else self._host.find(named[1])
        record = None if run is None or named is None else run.state.tasks.get(named[2])
        return 0 if record is None else record.epoch

    def _note_details(
        self, holder: Holder, lease: Lease, renewal: work_pb2.Renewal, now_mono_ns: int
    ) -> None:
        try:
            check_details(renewal.details)
        except Refusal as refusal:
            self._answer(holder, renewal.token, work_pb2.RECEIPT_KIND_RENEWAL, "", refusal)
            return
        run = self._host.find(lease.run_id)
        if self._leases.note_details(lease, renewal.details, now_mono_ns) and run is not None:
            self._own.record_progress(run, lease)

    def _cause(self, write: _Write, run: HostedRun) -> Cause:
        return Cause(
            namespace=run.namespace,
            principal=write.holder.principal,
            causation_id=run.last_event_id,
            correlation_id=run.correlation_id,
            traceparent=write.holder.traceparent,
        )

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours: the write has no receipt, and is said again on the next stream.
            self._log.error("write.failed", exc_info=error)
