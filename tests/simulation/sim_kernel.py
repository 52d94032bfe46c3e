"""A kernel process in the simulator: the real composition behind the faulty network.

What gRPC and the process's main do in production is done here: frames and calls are carried to the
kernel, its control dials go over the network, and a process that cannot own the partition exits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from stretto.common.v1.lease_pb2 import Position
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_USER, PRINCIPAL_KIND_WORKER, Principal
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as wire
from stretto.work.v1.work_service_pb2 import WorkRequest, WorkResponse
from stretto.worker.v1.worker_control_service_pb2 import IdentifyRequest
from stretto_core.errors import Refusal
from stretto_core.eventlog.faults import AppendFaults
from stretto_core.eventlog.memory import MemoryLog, MemoryOwnedLog, MemoryStore
from stretto_core.ids import IdSource, Namespace, RequestId, RunId, SessionId
from stretto_core.rpc.status import to_status
from stretto_core.testing.connection import ConnectionEnd, ConnectionLost
from stretto_core.testing.network import ConnectionRefused, Network
from stretto_core.testing.process import Process
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_kernel.app.asking import Answered
from stretto_kernel.app.recovery import NoRunIndex
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.dispatch.death_watch import DialResult
from stretto_kernel.domain.run import RunState
from stretto_kernel.domain.run import commands as run_commands
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import KernelLimits, KernelPorts

NAMESPACE = Namespace("default")
DIAL_TIMEOUT_S = 0.5
_USER = Principal(kind=PRINCIPAL_KIND_USER, name="user")
_WORKER = Principal(kind=PRINCIPAL_KIND_WORKER, name="worker")

Stream = ConnectionEnd[WorkResponse, WorkRequest]


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
            index=NoRunIndex(),
            to_status=to_status,
        )
        self._kernel = Kernel(ports, KernelLimits(queue_limits=dict(queue_limits)))

    def start(self) -> None:
        """Start the process."""
        self.process.spawn(self._main())

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
        listener.calls["StartRun"] = self._start_run
        listener.calls["GetRun"] = self._get_run
        listener.calls["PauseRun"] = self._pause_run
        listener.calls["ResumeRun"] = self._resume_run
        listener.calls["CancelRun"] = self._cancel_run
        listener.calls["KillRun"] = self._kill_run
        listener.calls["AddTasks"] = self._add_tasks

    # -- the work stream -------------------------------------------------------------------------

    async def _work(self, stream: Stream) -> None:
        def send(frame: WorkResponse) -> None:
            if not stream.has_ended:
                stream.send(frame)

        session = self._kernel.open_session(send, stream.close, _WORKER)
        try:
            async for frame in stream.frames():
                session.receive(frame)
        except ConnectionLost:
            pass
        finally:
            session.lost()

    # -- calls -----------------------------------------------------------------------------------

    async def _start_run(self, request: wire.StartRunRequest) -> wire.StartRunResponse:
        calls = self._kernel.partition.calls
        asked = wire.StartRunRequest()
        asked.CopyFrom(request)
        asked.ClearField("wait_timeout")  # How long to wait is not part of what is asked for.
        caller = self._caller(asked, request.request_id)
        command = run_commands.StartRun(
            now_ns=self.clock.now_ns(),
            request_id=RequestId(caller.request_id),
            request_digest=caller.request_digest,
            graph=request.task_graph,
            input=request.input if request.HasField("input") else None,
            labels=dict(request.labels),
            display_name=request.display_name,
        )
        answered = await calls.start_run(NAMESPACE, command, caller)
        if request.HasField("wait_timeout"):
            run_id = RunId(answered.answer.run_id)
            timeout_ns = request.wait_timeout.ToNanoseconds()
            answered = await calls.wait_ended(NAMESPACE, run_id, timeout_ns)
        return wire.StartRunResponse(run=answered.answer, position=self._position(answered))

    async def _get_run(self, request: wire.GetRunRequest) -> wire.GetRunResponse:
        calls = self._kernel.partition.calls
        answered = await calls.get_run(NAMESPACE, _run_id(request.name), with_input=False)
        return wire.GetRunResponse(run=answered.answer)

    async def _pause_run(self, request: wire.PauseRunRequest) -> wire.PauseRunResponse:
        caller = self._caller(request, request.request_id)
        command = run_commands.PlaceHold(
            now_ns=self.clock.now_ns(),
            request_id=RequestId(caller.request_id),
            request_digest=caller.request_digest,
            hold_id=request.hold_id,
            reason=request.reason,
        )
        answered = await self._steer(request.name, command, caller)
        return wire.PauseRunResponse(run=answered.answer, position=self._position(answered))

    async def _resume_run(self, request: wire.ResumeRunRequest) -> wire.ResumeRunResponse:
        caller = self._caller(request, request.request_id)
        command = run_commands.LiftHold(
            now_ns=self.clock.now_ns(),
            request_id=RequestId(caller.request_id),
            request_digest=caller.request_digest,
            hold_id=request.hold_id,
        )
        answered = await self._steer(request.name, command, caller)
        return wire.ResumeRunResponse(run=answered.answer, position=self._position(answered))

    async def _cancel_run(self, request: wire.CancelRunRequest) -> wire.CancelRunResponse:
        caller = self._caller(request, request.request_id)
        command = run_commands.Cancel(
            now_ns=self.clock.now_ns(),
            request_id=RequestId(caller.request_id),
            request_digest=caller.request_digest,
            reason=request.reason,
            grace_ns=_optional_ns(request.grace) if request.HasField("grace") else None,
        )
        answered = await self._steer(request.name, command, caller)
        return wire.CancelRunResponse(run=answered.answer, position=self._position(answered))

    async def _kill_run(self, request: wire.KillRunRequest) -> wire.KillRunResponse:
        caller = self._caller(request, request.request_id)
        command = run_commands.Kill(
            now_ns=self.clock.now_ns(),
            request_id=RequestId(caller.request_id),
            request_digest=caller.request_digest,
            reason=request.reason,
        )
        answered = await self._steer(request.name, command, caller)
        return wire.KillRunResponse(run=answered.answer, position=self._position(answered))

    async def _add_tasks(self, request: wire.AddTasksRequest) -> wire.AddTasksResponse:
        caller = self._caller(request, request.request_id)
        command = run_commands.AddTasks(
            now_ns=self.clock.now_ns(),
            request_id=RequestId(caller.request_id),
            request_digest=caller.request_digest,
            tasks=tuple(request.tasks),
            sealed=request.sealed,
        )
        answered = await self._steer(request.name, command, caller)
        return wire.AddTasksResponse(run=answered.answer, position=self._position(answered))

    async def _steer(
        self, name: str, command: run_commands.Command, caller: Caller
    ) -> Answered[run_pb2.Run]:
        calls = self._kernel.partition.calls
        return await calls.steer_run(NAMESPACE, _run_id(name), command, caller)

    def _caller(self, request: Message, request_id: str) -> Caller:
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        return Caller(principal=_USER, request_id=request_id, request_digest=digest)

    def _position(self, answered: Answered[run_pb2.Run]) -> Position:
        return Position(partition=self._log.partition, number=answered.position)


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


def _run_id(name: str) -> RunId:
    return RunId(name.rpartition("/")[2])


def _optional_ns(span: Duration) -> int:
    return span.ToNanoseconds()
