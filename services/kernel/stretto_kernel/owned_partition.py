"""One ownership of a partition: everything that lives and dies with it, connected.

Made by `OwnedPartition.acquire`, thrown away as a whole when the ownership is lost. Nothing in it
is the record; the next owner (perhaps this same process) folds it again from the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from google.rpc import status_pb2
from stretto.run.v1 import events_pb2
from stretto_core.clock import NS_PER_MS, NS_PER_S, Clock
from stretto_core.errors import Refusal
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.port import EventLog, OwnedLog
from stretto_core.eventlog.recorded import LeaseKeys
from stretto_core.eventlog.writer import WriterLimits
from stretto_core.ids import IdSource, RunId

from stretto_kernel.app.background_folds import BackgroundFolds
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.board_calls import BoardCalls
from stretto_kernel.app.board_watching import BoardWatching
from stretto_kernel.app.fact_writer import FactWriter
from stretto_kernel.app.namespace_calls import NamespaceCalls
from stretto_kernel.app.presence import RunPresence
from stretto_kernel.app.queue_calls import QueueCalls
from stretto_kernel.app.recovery import RunIndex, find_active_runs
from stretto_kernel.app.run_calls import RunCalls
from stretto_kernel.app.run_keys import RunKeys, StartKeys
from stretto_kernel.app.sealer import Sealer, SealLimits
from stretto_kernel.app.shredding import Shredder, settle_marks
from stretto_kernel.app.snapshots import NoSnapshots, Snapshots
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.dispatch.death_watch import WorkerDialer
from stretto_kernel.dispatch.dispatcher import Dispatcher
from stretto_kernel.dispatch.holder_fence import BoardFence
from stretto_kernel.dispatch.holder_writes import HolderWriter
from stretto_kernel.dispatch.lease_table import LeaseTable
from stretto_kernel.dispatch.own_commands import OwnCommands
from stretto_kernel.dispatch.queue_registry import QueueRegistry
from stretto_kernel.dispatch.ready_queues import ReadyQueues
from stretto_kernel.dispatch.shared import Shared
from stretto_kernel.dispatch.unary_writes import UnaryWrites
from stretto_kernel.dispatch.work_polls import WorkPolls
from stretto_kernel.dispatch.work_streams import WorkStreams
from stretto_kernel.dispatch.worker_processes import WorkerProcesses
from stretto_kernel.dispatch.worker_registry import WorkerRegistry
from stretto_kernel.domain.queue import QueuesState
from stretto_kernel.timers.alarm import Alarm

TICK_NS = NS_PER_S
CLOSE_S = 5.0
STALL_NS = NS_PER_S
"""If the loop itself was late by so much, leases get time: their holders' renewals wait unread."""

RUN_CODEC = Codec(
    getattr(events_pb2, name) for name in sorted(events_pb2.DESCRIPTOR.message_types_by_name)
)
"""Every event of a run's stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPorts:
    """What a kernel needs from outside; the simulator brings its own.

    to_status: how a refusal is written into a receipt (google.rpc.Status). snapshots: of large
    runs; None = all are folded from their first event.
    """

    log: EventLog
    clock: Clock
    ids: IdSource
    dialer: WorkerDialer
    index: RunIndex
    blobs: BlobCalls
    keys: RunKeys
    to_status: Callable[[Refusal], status_pb2.Status]
    snapshots: Snapshots | None = None

    def new_host(self, facts: FactWriter, ended_runs_max: int) -> StreamHost:
        """Return a host for the runs of one ownership."""
        snapshots = self.snapshots or Snapshots(NoSnapshots(), self.log, RUN_CODEC)
        return StreamHost(
            self.log, facts, RUN_CODEC, self.keys, snapshots, ended_runs_max=ended_runs_max
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLimits:
    """Bounds of one kernel.

    queue_limits: most open leases of a queue at once, by its name, unless a fact says another.
    begun_weight_max: how much that clients begin is under way at once; see `Admission`.
    """

    queue_limits: dict[str, int] = field(default_factory=dict)
    begun_weight_max: int = 128
    seals: SealLimits = field(default_factory=SealLimits)
    ended_runs_max: int = 2_000
    streams_max: int = 1_000
    polls_max: int = 1_000
    writer: WriterLimits | None = None


class OwnedPartition:
    """The parts of one ownership; public ones are for the servicers and the simulator."""

    def __init__(
        self, ports: KernelPorts, limits: KernelLimits, owned: OwnedLog, keys: LeaseKeys
    ) -> None:
        self._ports = ports
        self._owned = owned
        self._log = structlog.get_logger("stretto.kernel")
        clock = ports.clock
        self.keys = keys
        self.closed: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self.facts = FactWriter(owned, clock, ports.ids, limits=limits.writer)
        self.host = ports.new_host(self.facts, limits.ended_runs_max)
        self._queues = ReadyQueues()
        self._settings = QueueCalls(
            ports,
            self.facts,
            defaults=limits.queue_limits,
            changed=self._heed_settings,
            voided=self._queues.void_settings,
        )
        self.namespaces = NamespaceCalls(ports, self.facts)
        self.folds = BackgroundFolds(self.host, self._run_counted)
        self._own = OwnCommands(self.host, clock)
        self._leases = LeaseTable()
        shared = Shared(self.host, clock, keys, self._own, self._queues, self._leases)
        self._processes = WorkerProcesses(shared, ports.dialer)
        self.streams = WorkStreams(
            shared, processes=self._processes, streams_max=limits.streams_max
        )
        self.polls = WorkPolls(shared, processes=self._processes, polls_max=limits.polls_max)
        self.queues = QueueRegistry(self._queues, self._settings, clock)
        self.workers = WorkerRegistry(shared, self._processes, self.streams, self.polls)
        self.dispatcher = Dispatcher(
            shared,
            streams=self.streams,
            polls=self.polls,
            fold_again=self.folds.add,
            closed=self._close_for,
            armed=self._look,
        )
        self._writes = HolderWriter(
            shared, to_status=ports.to_status, require_blobs=ports.blobs.require
        )
        self.unary_writes = UnaryWrites(self._writes, ports.to_status)
        self.streams.connect(self._writes, self.dispatcher.pump)
        self.polls.connect(self.dispatcher.pump, self._look)
        self.host.follow(self.dispatcher)
        self.presence = RunPresence(ports.log, clock)
        self.calls = RunCalls(
            self.host,
            self.presence,
            clock,
            ports.ids,
            partition=ports.log.partition,
            blobs=ports.blobs,
            keys=StartKeys(ports.keys, self.namespaces.encrypts),
            wait_reason=self.dispatcher.wait_reason,
        )
        self.boards = BoardCalls(self.host, self.calls, ports.blobs, BoardFence(shared))
        self.board_watching = BoardWatching(self.host, self.calls, ports.log)
        self.shredder = Shredder(self.host, self.calls, ports.keys, ports.blobs)
        self._lease_ended = asyncio.Event()
        self.late_ns_max = 0
        """The longest that the alarm rang late: a stretch on the loop that let nobody else run."""
        self.sealer = Sealer(ports, self.facts, limits.seals, armed=self._look)
        self._alarm = Alarm(clock, self._ring, self._next_due_mono_ns)

    @classmethod
    async def acquire(cls, ports: KernelPorts, limits: KernelLimits) -> OwnedPartition:
        """Own the partition and know its active runs; calls can be taken afterwards.

        Raises PartitionHeld, StoreDown.
        """
        owned = await ports.log.acquire()
        try:
            keys = await ports.log.lease_keys()
            partition = cls(ports, limits, owned, keys)
            await partition._recover()
        except BaseException:
            await owned.release()
            raise
        return partition

    async def drain(self, reason: str) -> None:
        """Lease nothing more and ask the workers to take their work elsewhere."""
        self.dispatcher.stop_granting()
        self.streams.drain(reason)
        self.polls.drain(reason)

    async def release(self, cause: Refusal) -> None:
        """End everything, store what was decided, and let another process own the partition.

        A store that does not answer in time keeps nobody from ending: the rest has no answer.
        """
        self._stop(cause)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.facts.writer.close()
        except TimeoutError:
            self._log.warning("partition.close_gave_up", after_s=CLOSE_S)
            self.facts.writer.abort()
        await self._owned.release()

    async def give_up(self, cause: Refusal) -> None:
        """End everything of an ownership that is over, so that the partition can be owned again."""
        self.abandon(cause)
        await self._owned.release()

    def abandon(self, cause: Refusal) -> None:
        """End everything at once, as a crash would; what is in flight has an unknown fate."""
        self._stop(cause)
        self.facts.writer.abort()

    @property
    def ready_count(self) -> int:
        """How many tasks are offered to workers, those of held runs included."""
        return self._queues.ready_count

    @property
    def lease_count(self) -> int:
        """How many leases are open."""
        return len(self._leases)

    async def leases_ended(self) -> None:
        """Return once no lease is open."""
        while len(self._leases):
            self._lease_ended.clear()
            await self._lease_ended.wait()

    @property
    def refused_write_count(self) -> int:
        """How many holder writes were refused."""
        return self._writes.refused_count

    async def _recover(self) -> None:
        await self._settings.fold()
        await self.namespaces.fold()
        if self.namespaces.are_set:  # Else nothing was ever encrypted.
            await settle_marks(self._ports.log, self._ports.keys, self._ports.blobs)
        active = await find_active_runs(self._ports.log, self._ports.index)
        for run in active:
            if run.limited_queues is None:
                self._queues.gates.block_limited(run.run_id)
            else:
                self._queues.gates.block(run.limited_queues, run.run_id)
        for run in active:
            self.folds.add(run.run_id, run.deadline_ns)
        self._alarm.start()
        self.sealer.start()
        self._log.info(
            "partition.owned", owner_epoch=self._owned.owner_epoch, active_run_count=len(active)
        )

    def _stop(self, cause: Refusal) -> None:
        self._alarm.stop()
        self.folds.close()
        self._settings.close()
        self.sealer.close(cause)
        self.namespaces.close()
        self.streams.close_all(cause)
        self.polls.close_all(cause)
        self.unary_writes.close_all(cause)
        self._processes.close()
        self._writes.close()
        self._own.close()

    def _run_counted(self, run_id: RunId) -> None:
        """What the run holds of queues is known now, or is nobody's."""
        self._queues.gates.unblock(run_id)
        self.dispatcher.pump()

    def _heed_settings(self, state: QueuesState) -> None:
        """Follow the settings of queues as decided; all of them after they were folded."""
        gates = self._queues.gates
        names = state.changed if gates.are_known else {*gates.names(), *state.settings}
        now_mono_ns = self._ports.clock.mono_ns()
        self._queues.heed({name: state.of(name) for name in names}, now_mono_ns)
        state.changed.clear()
        self.dispatcher.pump()

    def _close_for(self, cause: Refusal) -> None:
        if not self.closed.done():
            self.closed.set_result(cause)

    def _look(self) -> None:
        self._alarm.look()
        self._lease_ended.set()

    def _ring(self, late_ns: int) -> None:
        self.late_ns_max = max(self.late_ns_max, late_ns)
        if late_ns > STALL_NS:
            self._leases.give_time(self._ports.clock.mono_ns() + 2 * STALL_NS)
        self.streams.ring()
        self.polls.ring()
        self.dispatcher.ring()
        self.sealer.ring()

    def _next_due_mono_ns(self) -> int | None:
        """When to ring next; wall-clock timers are looked at again each tick, since it may step."""
        now_mono_ns, now_ns = self._ports.clock.mono_ns(), self._ports.clock.now_ns()
        dues = []
        if (expiry := self._leases.next_expiry_mono_ns()) is not None:
            # While a group's fate is open nothing expires; look again soon, not at once.
            soonest = now_mono_ns + 50 * NS_PER_MS if self.facts.writer.is_settling else 0
            dues.append(max(expiry, soonest))
        if (due_ns := self.dispatcher.next_due_ns()) is not None:
            wait_ns = max(due_ns - now_ns, 50 * NS_PER_MS if self.facts.writer.is_settling else 0)
            dues.append(now_mono_ns + min(wait_ns, TICK_NS))
        dues += [
            due_mono_ns
            for due_mono_ns in (
                self.polls.next_due_mono_ns(),
                self._queues.gates.next_due_ns(),
                self.sealer.next_due_mono_ns(),
            )
            if due_mono_ns is not None
        ]
        if self.streams.stream_count:
            dues.append(now_mono_ns + TICK_NS)
        return min(dues, default=None)
