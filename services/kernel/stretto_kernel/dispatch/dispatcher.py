"""The dispatcher: what the facts of the runs in memory mean for queues, leases, timers and workers.

Follows the host. After each decided fact it looks at the tasks the fact touched, offers what is
ready, and leases it at once to a session with credit, so that the lease is stored in the same
group. What follows from a fact for a worker (assignment, signal) leaves only when the fact is
committed. Everything here is derived: when a run's memory is void it is forgotten and looked at
anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import run_pb2
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_MS
from stretto_core.errors import Refusal
from stretto_core.ids import RunId, TaskName

from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.dispatch.assignments import (
    build_assignment,
    build_revocation,
    build_signal,
    work_item_name,
)
from stretto_kernel.dispatch.later_looks import LaterLooks
from stretto_kernel.dispatch.lease_table import RECLAIM_NS_MAX, Lease, LeaseKey
from stretto_kernel.dispatch.queue_gates import Shut
from stretto_kernel.dispatch.ready_bucket import ready_item
from stretto_kernel.dispatch.ready_queues import Grant
from stretto_kernel.dispatch.shared import Shared
from stretto_kernel.dispatch.takers import Taker
from stretto_kernel.dispatch.work_polls import WorkPolls
from stretto_kernel.dispatch.work_streams import WorkStreams
from stretto_kernel.domain.run import Touched, commands, queries
from stretto_kernel.timers.durable import RUN_ITSELF, DurableTimers
from stretto_kernel.timers.heap import TimerHeap

GRANTS_PER_STRETCH_MAX = 25
LARGE_FACT_TASKS = 50
"""A fact that touches more was a stretch of its own: what it made ready is leased in the next."""
DUE_PER_STRETCH_MAX = 50
OFFER_AGAIN_NS = 100 * NS_PER_MS
_WAIT_REASONS = {
    None: run_pb2.WAIT_REASON_UNSPECIFIED,
    Shut.PAUSED: run_pb2.WAIT_REASON_QUEUE_PAUSED,
    Shut.LIMIT: run_pb2.WAIT_REASON_QUEUE_LIMIT,
    Shut.RATE: run_pb2.WAIT_REASON_QUEUE_RATE,
}


class Dispatcher:
    """Connects one host's runs with those who take work.

    Everything is made by the caller and belongs to the same ownership of the partition.
    fold_again: told of runs whose memory is void; closed: of the end of the ownership; armed: that
    something may have become due earlier.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        streams: WorkStreams,
        polls: WorkPolls,
        fold_again: Callable[[RunId], None],
        closed: Callable[[Refusal], None],
        armed: Callable[[], None],
    ) -> None:
        self._host = shared.host
        self._clock = shared.clock
        self._keys = shared.keys
        self._own = shared.own
        self._queues = shared.queues
        self._leases = shared.leases
        self._streams = streams
        self._polls = polls
        self._fold_again = fold_again
        self._closed = closed
        self._armed = armed
        self.timers = DurableTimers()
        self._later = LaterLooks(self._look_again, self._queues.offer_again, self._looked_later)
        self._not_before: TimerHeap[LeaseKey, None] = TimerHeap()
        self._granted: dict[RunId, list[tuple[Taker, str]]] = {}
        self._pumping = self._pump_posted = False
        self._granting = True
        self._log = structlog.get_logger("stretto.kernel.dispatch")

    def run_changed(self, run: HostedRun, touched: Touched) -> None:
        """See `HostListener`."""
        if run.has_ended:
            self._forget(run)
        else:
            self._look_at_tasks(run, touched.tasks)
            if touched.run_wide:
                self._look_at_run(run)
        pump = self._post_pump if len(touched.tasks) > LARGE_FACT_TASKS else self.pump
        pump()

    def run_folded(self, run: HostedRun) -> None:
        """See `HostListener`."""
        open_tasks = set()
        for lease in queries.every_open_lease(run.state):
            open_tasks.add(lease.task)
            self._look_at_lease(run, lease, folded=True)
        for known in self._leases.of_run(run.run_id):
            if known.task not in open_tasks:
                self._close_lease(run, known.task)
        self._later.add(run.run_id, list(run.state.open_tasks))
        self._queues.hold_run(run.run_id, held=queries.is_held(run.state))
        self.timers.arm(run.run_id, RUN_ITSELF, queries.run_due(run.state))
        self._queues.gates.unblock(run.run_id)
        self.pump()
        self._armed()

    def _looked_later(self) -> None:
        self.pump()
        self._armed()

    def run_dropped(self, run: HostedRun) -> None:
        """See `HostListener`. Leases stay in the table: the fold will say which were real."""
        self._queues.forget_run(run.run_id)
        self._later.forget_run(run.run_id)
        # Which slots it holds as committed is not known before the fold: none is given meanwhile.
        self._queues.gates.block_limited(run.run_id)
        self.timers.forget_run(run.run_id)
        for lease in self._leases.of_run(run.run_id):
            if not lease.told:
                # Its grant was never stored: the epoch will be another lease's.
                self._leases.close(lease.key)
        for taker, queue in self._granted.pop(run.run_id, ()):
            taker.return_credit()
            self._queues.gates.give_back_token(queue)
        self._fold_again(run.run_id)

    def commits_done(self) -> None:
        """See `HostListener`."""
        self._streams.flush()
        self._armed()

    def partition_closed(self, cause: Refusal) -> None:
        """See `HostListener`."""
        self._closed(cause)

    def pump(self) -> None:
        """Lease ready items to free credits until nothing matches, a bounded part a stretch."""
        if self._pumping or self._pump_posted or not self._granting:
            return
        self._pumping = True
        now_mono_ns = self._clock.mono_ns()
        try:
            for _ in range(GRANTS_PER_STRETCH_MAX):
                grant = self._queues.next_grant(now_mono_ns)
                if grant is None:
                    if self._queues.looks_on:
                        self._post_pump()
                    return
                self._lease(grant)
            self._post_pump()
        finally:
            self._pumping = False
            if self._queues.gates.next_due_ns() is not None:
                self._armed()

    def _post_pump(self) -> None:
        if not self._pump_posted:
            self._pump_posted = True
            asyncio.get_running_loop().call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pump_posted = False
        self.pump()

    def stop_granting(self) -> None:
        """Lease nothing any more: the kernel drains."""
        self._granting = False

    def wait_reason(self, run: HostedRun, task: TaskName) -> run_pb2.WaitReason.ValueType:
        """Why a ready task is not leased right now; UNSPECIFIED for nothing in particular."""
        item = queries.offer(run.state, task)
        if item is None or item.not_before_ns > run.instant_ns(self._clock.now_ns()):
            return run_pb2.WAIT_REASON_UNSPECIFIED
        if self._queues.waits_for_worker(ready_item(run.run_id, item)):
            return run_pb2.WAIT_REASON_NO_WORKER
        return _WAIT_REASONS[self._queues.gates.shut(item.queue, self._clock.mono_ns())]

    def _lease(self, grant: Grant) -> None:
        item = grant.item
        taker = self._streams.by_key(grant.session) or self._polls.by_key(grant.session)
        run = self._host.find(item.run_id)
        if run is None or taker is None:
            self._queues.withdraw_item(item.run_id, item.task)
            self._queues.gates.give_back_token(item.queue)
            return
        taker.reserve_credit()
        now_ns = self._clock.now_ns()
        command = commands.Lease(
            now_ns=run.instant_ns(now_ns),
            task=item.task,
            worker_id=taker.hello.worker_id,
            session_id=taker.hello.session_id,
            request_id=taker.request_id,
        )
        try:
            self._host.take(run, command, self._host.facts.kernel_cause(run))
        except Refusal as refusal:
            # The run stopped dispatching since it was offered, or the writer is full.
            self._log.debug("lease.refused", run_id=run.run_id, reason=refusal.reason_word)
            self._queues.withdraw_item(item.run_id, item.task)
            self._not_before.arm((run.run_id, item.task), now_ns + OFFER_AGAIN_NS, None)
        lease = queries.open_lease(run.state, item.task)
        if lease is None or lease.session_id != taker.hello.session_id:
            taker.return_credit()
            self._queues.gates.give_back_token(item.queue)
            return
        assignment = build_assignment(run.state, lease, self._keys)
        self._granted.setdefault(run.run_id, []).append((taker, item.queue))
        self._host.facts.when_settled(run, partial(self._assign, run, lease, taker, assignment))

    def _assign(
        self,
        run: HostedRun,
        lease: queries.OpenLease,
        taker: Taker,
        assignment: work_pb2.Assignment,
    ) -> None:
        granted = self._granted[run.run_id]
        granted.remove((taker, lease.queue))
        if not granted:
            del self._granted[run.run_id]
        known = self._leases.find((run.run_id, lease.task), lease.epoch)
        if known is None:
            # It ended before its holder heard of it.
            taker.return_credit()
            return
        known.told = True
        taker.assign(known, assignment, self._clock.mono_ns())

    def _look_at_run(self, run: HostedRun) -> None:
        """A fact about the whole run: its hold, its timers, what its lease holders must hear."""
        state = run.state
        held = queries.is_held(state)
        if self._queues.hold_run(run.run_id, held=held):
            self._later.add_kept_back(run.run_id)
            self._look_at_every_task(run)
        self.timers.arm(run.run_id, RUN_ITSELF, queries.run_due(state))
        for lease in self._leases.of_run(run.run_id):
            if queries.open_lease(state, lease.task) is None:
                self._look_at_task(run, lease.task, folded=False)
            else:
                self._signal_stop(run, lease)

    def _look_at_every_task(self, run: HostedRun) -> None:
        # Those that a hold keeps back as well: their timers may run on.
        self._later.add(run.run_id, list(run.state.open_tasks))
        for lease in self._leases.of_run(run.run_id):
            self.timers.arm(run.run_id, lease.task, queries.task_due(run.state, lease.task))

    def _look_at_tasks(self, run: HostedRun, tasks: tuple[TaskName, ...]) -> None:
        """Look at what a fact touched: at leases at once, at the rest of a large fact in parts."""
        if len(tasks) <= LARGE_FACT_TASKS:
            for task in tasks:
                self._look_at_task(run, task, folded=False)
            return
        leased = run.state.leased_tasks
        ready = []
        for task in tasks:
            if task in leased or self._leases.is_open((run.run_id, task)):
                self._look_at_task(run, task, folded=False)
            else:
                ready.append(task)
        self._later.add(run.run_id, ready)

    def _look_again(self, run_id: RunId, task: TaskName) -> None:
        run = self._host.find(run_id)
        # A task that was spawned by facts that were dropped is not there any more.
        if run is not None and not run.has_ended and task in run.state.tasks:
            self._look_at_task(run, task, folded=False)

    def _look_at_task(self, run: HostedRun, task: TaskName, *, folded: bool) -> None:
        lease = queries.open_lease(run.state, task)
        if lease is not None:
            self._look_at_lease(run, lease, folded=folded)
            return
        self._close_lease(run, task)
        self.timers.arm(run.run_id, task, queries.task_due(run.state, task))
        item = queries.offer(run.state, task)
        if item is None:
            self._queues.withdraw_item(run.run_id, task)
        elif item.not_before_ns > run.instant_ns(self._clock.now_ns()):
            self._queues.withdraw_item(run.run_id, task)
            self._not_before.arm((run.run_id, task), item.not_before_ns, None)
        else:
            self._queues.offer_item(ready_item(run.run_id, item))

    def _look_at_lease(self, run: HostedRun, lease: queries.OpenLease, *, folded: bool) -> None:
        self._queues.note_leased(run.run_id, lease.task, lease.queue)
        self.timers.arm(run.run_id, lease.task, queries.task_due(run.state, lease.task))
        known = self._leases.find((run.run_id, lease.task), lease.epoch)
        if known is not None and known.session_id == lease.session_id:
            if folded:
                known.reported = False
                self._leases.postpone(known, known.expires_mono_ns)
        else:
            # Opened under an earlier owner: its holder must name it soon. By us: a whole TTL.
            ttl_ns = min(lease.ttl_ns, RECLAIM_NS_MAX) if folded else lease.ttl_ns
            known = Lease(
                run_id=run.run_id,
                task=lease.task,
                epoch=lease.epoch,
                worker_id=lease.worker_id,
                session_id=lease.session_id,
                ttl_ns=lease.ttl_ns,
                expires_mono_ns=self._clock.mono_ns() + ttl_ns,
                reclaimed=not folded,
                told=folded,
                request_id=lease.request_id,
            )
            self._leases.open(known)
        if folded:
            self._streams.lease_folded(known)
            self._polls.lease_folded(known)
        self._signal_stop(run, known)

    def _signal_stop(self, run: HostedRun, lease: Lease) -> None:
        stop = queries.stop_signal(run.state, lease.task)
        if stop is None:
            return
        signal = build_signal(run.namespace, run.run_id, work_pb2.SIGNAL_KIND_CANCEL, stop)
        if signal == lease.stop:
            return
        self._host.facts.when_settled(run, partial(self._ask_to_stop, lease, signal))

    def _ask_to_stop(self, lease: Lease, signal: work_pb2.Signal) -> None:
        lease.stop = signal  # From here on each renewal hears it again.
        self._streams.signal(lease, signal)

    def _close_lease(self, run: HostedRun, task: TaskName) -> None:
        lease = self._leases.close((run.run_id, task))
        if lease is None:
            return
        work_item = work_item_name(run.namespace, run.run_id, task)
        self._streams.lease_closed(lease, work_item)
        if lease.told and not lease.reported:
            revocation = build_revocation(run.namespace, run.run_id, task, lease.epoch)
            self._tell_holder(run, lease, revocation)

    def _tell_holder(self, run: HostedRun, lease: Lease, signal: work_pb2.Signal) -> None:
        self._host.facts.when_settled(run, partial(self._streams.signal, lease, signal))

    def _forget(self, run: HostedRun) -> None:
        for lease in self._leases.of_run(run.run_id):
            self._close_lease(run, lease.task)
        self._queues.forget_run(run.run_id)
        self._later.forget_run(run.run_id)
        self.timers.forget_run(run.run_id)

    def next_due_ns(self) -> int | None:
        """When the next durable timer or backoff is due, UTC nanoseconds."""
        dues = (self.timers.next_due_ns(), self._not_before.next_due())
        return min((due for due in dues if due is not None), default=None)

    def ring(self) -> None:
        """Do what is due by now, a bounded part of it."""
        now_ns, now_mono_ns = self._clock.now_ns(), self._clock.mono_ns()
        if not self._host.facts.writer.is_settling:
            for lease in self._leases.take_expired(now_mono_ns, DUE_PER_STRETCH_MAX):
                self._streams.lease_expired(lease)
                self._polls.lease_expired(lease)
                self._expire(lease)
            for run_id, timer in self.timers.take_due(now_ns, DUE_PER_STRETCH_MAX):
                self._own.fire(run_id, timer)
        for (run_id, task), _ in self._not_before.take_due(now_ns, DUE_PER_STRETCH_MAX):
            self._look_again(run_id, task)
        # Also while nothing is granted (a drain, unknown settings), or the alarm rings for ever.
        self._queues.gates.ring(now_mono_ns)
        self.pump()

    def _expire(self, lease: Lease) -> None:
        if not lease.reclaimed:
            self._own.lose(lease, ev.LOSS_CAUSE_NOT_RECLAIMED)
        elif lease.acknowledged:
            self._own.lose(lease, ev.LOSS_CAUSE_EXPIRED)
        else:
            # Its holder is stuck and has likely not begun: waiting for a worker consumes no try.
            self._own.release(lease, ev.RELEASE_CAUSE_NOT_ACKNOWLEDGED)
