"""A kernel process in the simulator: the real composition behind the faulty network.

The servicers, the readiness probe and everything below them are the real ones. What gRPC and the
process's main do in production is done here: frames and calls are carried to the servicers, control
dials go over the network, and a process that cannot own the partition exits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing

from google.protobuf.message import Message
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_USER, PRINCIPAL_KIND_WORKER, Principal
from stretto.run.v1.run_service_pb2 import (
    AwaitRunsRequest,
    AwaitRunsResponse,
    WatchRunRequest,
    WatchRunResponse,
)
from stretto.work.v1.work_service_pb2 import WorkRequest, WorkResponse
from stretto.worker.v1.worker_control_service_pb2 import IdentifyRequest
from stretto_core.clock import NS_PER_S
from stretto_core.errors import Refusal
from stretto_core.eventlog.faults import AppendFaults
from stretto_core.eventlog.memory import MemoryLog, MemoryOwnedLog, MemoryStore
from stretto_core.ids import IdSource, RunId, SessionId
from stretto_core.rpc.call import Call, begin_call
from stretto_core.rpc.status import to_status
from stretto_core.testing.connection import ConnectionEnd
from stretto_core.testing.network import ConnectionRefused, Handle, Network
from stretto_core.testing.process import Process
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_kernel.adapters.memory_blobs import MemoryBlobs
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.board_calls import EntryQuery
from stretto_kernel.app.run_keys import RunKeys
from stretto_kernel.app.sealer import SealLimits
from stretto_kernel.dispatch.death_watch import DialResult
from stretto_kernel.domain.run import RunState
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import RUN_CODEC, KernelLimits, KernelPorts
from stretto_kernel.projections.past_boards import BoardRows, PastBoards
from stretto_kernel.projections.past_queues import PastQueues
from stretto_kernel.projections.past_runs import PastRuns
from stretto_kernel.projections.view_reach import ViewReach
from stretto_kernel.servicers.board_servicer import BoardServicer
from stretto_kernel.servicers.namespace_servicer import NamespaceServicer
from stretto_kernel.servicers.queue_servicer import QueueServicer
from stretto_kernel.servicers.run_listing import ListedViews, RunListing
from stretto_kernel.servicers.run_servicer import RunServicer
from stretto_kernel.servicers.work_servicer import WorkServicer
from stretto_kernel.serving import Readiness
from stretto_kernel.tasklog.memory import MemoryTaskLogs
from stretto_kernel.tasklog.task_logs import TaskLogs

from tests.simulation.sim_views import MemoryViews

UNARY_METHODS = (
    "StartRun",
    "StartRuns",
    "GetRun",
    "ListTasks",
    "PauseRun",
    "ResumeRun",
    "CancelRun",
    "KillRun",
    "RetryRun",
    "AddTasks",
    "ShredRun",
)
QUEUE_METHODS = ("UpdateQueue",)
BOARD_METHODS = ("GetEntries", "PutEntries", "DeleteEntries", "ListEntries")
NAMESPACE_METHODS = ("UpdateNamespace",)
WORK_METHODS = ("LeaseWork", "RenewLeases", "ReportOutcomes", "ReleaseWork")
RETRY_STEP_COUNT = 5
"""So few that the small runs of a world are re-opened in several steps."""
SEALS = SealLimits(events_max=25, interval_ns=3 * NS_PER_S)
"""So few that storms strike while seals are on their way, too."""
DIAL_TIMEOUT_S = 0.5
DRAIN_GRACE_S = 3.0
_USER = Principal(kind=PRINCIPAL_KIND_USER, name="user")
_WORKER = Principal(kind=PRINCIPAL_KIND_WORKER, name="worker")

Stream = ConnectionEnd[WorkResponse, WorkRequest]
WatchStream = ConnectionEnd[WatchRunResponse, WatchRunRequest]
AwaitStream = ConnectionEnd[AwaitRunsResponse, AwaitRunsRequest]


class SimKernel:
    """One kernel process from its start to its death.

    exclusive: False takes the partition from a live owner, once: as when that only seems dead.
    """

    def __init__(
        self,
        process: Process,
        network: Network,
        clock: VirtualClock,
        ids: IdSource,
        *,
        address: str,
        store: MemoryStore,
        index: MemoryViews,
        blobs: MemoryBlobs,
        keys: RunKeys,
        log_faults: AppendFaults,
        exclusive: bool,
        queue_limits: Mapping[str, int],
    ) -> None:
        self.process = process
        self.clock = clock
        self._network = network
        self._address = address
        self._log = _ProcessLog(process, store, log_faults, exclusive=exclusive)
        ports = KernelPorts(
            log=self._log,
            clock=clock,
            ids=ids,
            dialer=_Dialer(process, network),
            index=index,
            blobs=BlobCalls(blobs, clock, random_bytes=keys.random_bytes),
            keys=keys,
            to_status=to_status,
            snapshots=index.snapshots.on(self._log),
        )
        self._kernel = Kernel(ports, KernelLimits(queue_limits=dict(queue_limits), seals=SEALS))
        reach = ViewReach(self._log, index)
        self._run_servicer = RunServicer(
            self._kernel,
            RunListing(ListedViews(index, index, index, index), self._log, reach),
            PastRuns(self._log, RUN_CODEC, index, reach, clock),
            retry_step_count=RETRY_STEP_COUNT,
        )
        self._work_servicer = WorkServicer(self._kernel, TaskLogs(MemoryTaskLogs(), clock))
        self._past_queues = PastQueues(index, reach)
        past = PastBoards(self._log, _NoView(), reach, clock)
        self._board_servicer = BoardServicer(self._kernel, past)
        self._readiness = Readiness(_Health(), self._kernel)
        self.serves = asyncio.Event()
        """Set once calls are answered: owning the log takes time."""

    def start(self) -> None:
        """Start the process."""
        self.process.spawn(self._main())

    def drain(self) -> None:
        """End it in order, as SIGTERM does."""
        self.process.spawn(self._end())

    def is_settled(self, run_ids: Iterable[str]) -> bool:
        """Whether it owns the log and everything it decided of these runs is in it."""
        if not (self.process.is_running and self._kernel.is_owner and self._log.is_owner):
            return False
        runs = (self._kernel.partition.host.find(RunId(run_id)) for run_id in run_ids)
        return all(run is None or run.is_clean for run in runs)

    def state_of(self, run_id: RunId) -> RunState | None:
        """Return the run as the kernel holds it in memory; None when it does not."""
        run = self._kernel.partition.host.find(run_id)
        return None if run is None else run.state

    async def _main(self) -> None:
        try:
            await self._kernel.start()
        except Refusal:
            self.process.kill()
            return
        listener = self._network.listen(self._address, self.process)
        listener.streams["Work"] = self._work
        listener.streams["WatchRun"] = self._watch_run
        listener.streams["AwaitRuns"] = self._await_runs
        for method in UNARY_METHODS:
            listener.calls[method] = self._unary(self._run_servicer, method, _USER)
        for method in QUEUE_METHODS:
            listener.calls[method] = self._unary(
                QueueServicer(self._kernel, self._past_queues), method, _USER
            )
        for method in BOARD_METHODS:
            listener.calls[method] = self._unary(self._board_servicer, method, _USER)
        for method in NAMESPACE_METHODS:
            listener.calls[method] = self._unary(NamespaceServicer(self._kernel), method, _USER)
        for method in WORK_METHODS:
            listener.calls[method] = self._unary(self._work_servicer, method, _WORKER)
        self.serves.set()
        await self._readiness.start()

    async def _end(self) -> None:
        await self._readiness.drain(DRAIN_GRACE_S)
        self.process.kill()

    # -- what gRPC does ----------------------------------------------------------------------------

    async def _work(self, stream: Stream) -> None:
        self._begin("Work", _WORKER)
        served = self._work_servicer.Work(stream.frames(), None)
        assert isinstance(served, AsyncGenerator)
        async with aclosing(served) as answers:
            async for frame in answers:
                if stream.has_ended:
                    return
                stream.send(frame)

    async def _watch_run(self, stream: WatchStream) -> None:
        self._begin("WatchRun", _USER)
        request = await stream.receive()
        assert request is not None, "a watch begins with its request"
        served = self._run_servicer.WatchRun(request, None)
        assert isinstance(served, AsyncGenerator)
        async with aclosing(served) as changes:
            async for change in changes:
                if stream.has_ended:
                    return
                stream.send(change)

    async def _await_runs(self, stream: AwaitStream) -> None:
        self._begin("AwaitRuns", _USER)
        served = self._run_servicer.AwaitRuns(stream.frames(), None)
        assert isinstance(served, AsyncGenerator)
        async with aclosing(served) as answers:
            async for told in answers:
                if stream.has_ended:
                    return
                stream.send(told)

    def _unary(self, servicer: object, method: str, principal: Principal) -> Handle:
        serve = getattr(servicer, method)

        async def handle(request: Message) -> Message:
            self._begin(method, principal)
            answer: Message = await serve(request, None)
            return answer

        return handle

    def _begin(self, method: str, principal: Principal) -> None:
        begin_call(Call(method, principal, deadline_s=None, traceparent="", peer="simulated"))


class _NoView:
    """Nobody asks for the past of a blackboard in the simulator."""

    async def keys_as_of(self, run_id: RunId, version: int, keys: Collection[str]) -> BoardRows:
        """See `PastBoardView`."""
        raise NotImplementedError

    async def entries_as_of(
        self, run_id: RunId, version: int, query: EntryQuery, count_max: int
    ) -> BoardRows:
        """See `PastBoardView`."""
        raise NotImplementedError


class _Health:
    """Shows nobody: the simulated callers find out by calling."""

    async def set_serving(self, *, serving: bool) -> None:
        """See `HealthPort`."""

    async def drain(self, grace_ms: int) -> None:
        """See `HealthPort`."""


class _ProcessLog(MemoryLog):
    """A process's handle on the log: the store sees at once when the process dies."""

    def __init__(
        self, process: Process, store: MemoryStore, faults: AppendFaults, *, exclusive: bool
    ) -> None:
        super().__init__(store, faults=faults, exclusive=exclusive)
        self._owned: MemoryOwnedLog | None = None
        process.when_dead(self._died)

    @property
    def is_owner(self) -> bool:
        """Whether the store takes its appends."""
        return self._owned is not None and self._store.owner_epoch == self._owned.owner_epoch

    async def acquire(self) -> MemoryOwnedLog:
        owned = await super().acquire()
        assert isinstance(owned, MemoryOwnedLog)
        self._owned = owned
        self._exclusive = True  # Taken from a live owner once, not again and again.
        return owned

    def _died(self) -> None:
        if self._owned is not None:
            self._owned.abandon()


class _Dialer:
    """Asks a worker's control address which process answers there."""

    def __init__(self, process: Process, network: Network) -> None:
        self._process = process
        self._network = network

    async def identify(self, address: str) -> SessionId | DialResult:
        """See `WorkerDialer`."""
        try:
            answer = await self._network.call(
                self._process, address, "Identify", IdentifyRequest(), timeout_s=DIAL_TIMEOUT_S
            )
        except ConnectionRefused:
            return DialResult.REFUSED
        except Refusal:
            return DialResult.NO_ANSWER
        return SessionId(answer.session_id)
