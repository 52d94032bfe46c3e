"""A whole kernel on the memory log, and a worker made of frames: what the tests here drive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_USER, PRINCIPAL_KIND_WORKER, Principal
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.work.v1 import work_pb2, work_service_pb2
from stretto_core.clock import Clock
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal
from stretto_core.eventlog.faults import AppendFault, AppendFaults, Fault, NoFaults
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import Namespace, Partition, RequestId, RunId, SessionId
from stretto_core.ids.system import SystemIds
from stretto_core.rpc.status import to_status
from stretto_kernel.adapters.memory_blobs import MemoryBlobs
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.app.asking import Answered
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.recovery import NoRunIndex
from stretto_kernel.app.run_calls import Caller, RunStart
from stretto_kernel.app.run_keys import RunKeys
from stretto_kernel.app.sealer import SealLimits
from stretto_kernel.app.start_batch import Outcome, start_runs
from stretto_kernel.dispatch.death_watch import DialResult
from stretto_kernel.domain.run import commands
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import KernelLimits, KernelPorts

NAMESPACE = Namespace("default")
USER = Principal(kind=PRINCIPAL_KIND_USER, name="user")
WORKER = Principal(kind=PRINCIPAL_KIND_WORKER, name="worker")
IDS = SystemIds()


class Dialer:
    """Answers what a test sets for an address; nothing answers elsewhere."""

    def __init__(self) -> None:
        self.answers: dict[str, SessionId | DialResult] = {}

    async def identify(self, address: str) -> SessionId | DialResult:
        return self.answers.get(address, DialResult.NO_ANSWER)


def new_store() -> MemoryStore:
    return MemoryStore(Partition("p0"))


async def start_kernel(
    store: MemoryStore,
    *,
    faults: AppendFaults | None = None,
    queue_limits: dict[str, int] | None = None,
    dialer: Dialer | None = None,
    exclusive: bool = True,
    clock: Clock | None = None,
    blobs: MemoryBlobs | None = None,
    seals: SealLimits | None = None,
    keys: MemoryRunKeys | None = None,
) -> Kernel:
    clock = clock or SystemClock()
    ports = KernelPorts(
        log=MemoryLog(store, faults=faults, exclusive=exclusive),
        clock=clock,
        ids=IDS,
        dialer=dialer or Dialer(),
        index=NoRunIndex(),
        blobs=BlobCalls(blobs or MemoryBlobs(), clock),
        keys=RunKeys(keys or MemoryRunKeys()),
        to_status=to_status,
    )
    limits = KernelLimits(queue_limits=queue_limits or {}, seals=seals or SealLimits())
    kernel = Kernel(ports, limits)
    await kernel.start()
    return kernel


def task(name: str, **fields: Any) -> plan_pb2.TaskSpec:
    spec = plan_pb2.TaskSpec(name=name, executor="test.body")
    spec.MergeFrom(plan_pb2.TaskSpec(**fields))
    return spec


def graph(*tasks: plan_pb2.TaskSpec, **fields: Any) -> plan_pb2.TaskGraph:
    return plan_pb2.TaskGraph(tasks=tasks or (task("a"),), **fields)


async def start(
    kernel: Kernel,
    plan: plan_pb2.TaskGraph | None = None,
    *,
    request_id: str = "",
    namespace: Namespace = NAMESPACE,
) -> Answered[run_pb2.Run]:
    request_id = request_id or IDS.uuid7()
    plan = plan or graph()
    digest = plan.SerializeToString(deterministic=True)[:32].ljust(32)
    command = commands.StartRun(
        now_ns=kernel.ports.clock.now_ns(),
        request_id=RequestId(request_id),
        request_digest=digest,
        graph=plan,
    )
    caller = Caller(principal=USER, request_id=request_id, request_digest=digest)
    return await kernel.partition.calls.start_run(namespace, command, caller)


async def get(kernel: Kernel, run_id: str) -> run_pb2.Run:
    return (await kernel.partition.calls.get_run(NAMESPACE, RunId(run_id))).answer


class FrameWorker:
    """A worker process as the kernel sees it: what it was sent, and what a test makes it say."""

    def __init__(
        self,
        kernel: Kernel,
        *,
        worker_id: str = "w1",
        session_id: str = "",
        credits: int = 10,
        held: tuple[LeaseToken, ...] = (),
        **hello: Any,
    ) -> None:
        self.worker_id = worker_id
        self.session_id = session_id or IDS.uuid7()
        self.frames: list[work_service_pb2.WorkResponse] = []
        self.ended = False
        self.end_cause: Refusal | None = None
        self._credits = credits
        self._session = kernel.open_session(self.frames.append, self._end, WORKER)
        said = work_pb2.Hello(
            worker_id=self.worker_id,
            session_id=self.session_id,
            executors=["test.body"],
            held=held,
            **hello,
        )
        self.say(hello=said, credit_total_count=credits)

    def say(self, **parts: Any) -> None:
        self._session.receive(work_service_pb2.WorkRequest(**parts))

    def cut(self) -> None:
        self._session.lost()

    def acknowledge(self) -> None:
        self.say(acknowledged=[assignment.token for assignment in self.assignments])

    def succeed(self, token: LeaseToken, json: str = "1") -> None:
        result = work_pb2.OutcomeSucceeded(result=Payload(json=json))
        self.say(outcomes=[work_pb2.Outcome(token=token, succeeded=result)])

    def grant(self, credits: int) -> None:
        self._credits += credits
        self.say(credit_total_count=self._credits)

    @property
    def assignments(self) -> list[work_pb2.Assignment]:
        return [one for frame in self.frames for one in frame.assignments]

    @property
    def receipts(self) -> list[work_pb2.Receipt]:
        return [one for frame in self.frames for one in frame.receipts]

    @property
    def signals(self) -> list[work_pb2.Signal]:
        return [one for frame in self.frames for one in frame.signals]

    def _end(self, cause: Refusal | None) -> None:
        self.ended = True
        self.end_cause = cause


class PlannedFaults(NoFaults):
    """Each append goes as the next planned fault says, then all go well."""

    def __init__(self) -> None:
        self.next: list[AppendFault] = []
        self.append_count = 0
        self.settles_fail = False

    def plan_append(self, owner_epoch: int, events: Sequence[NewEvent]) -> AppendFault:
        self.append_count += 1
        return self.next.pop(0) if self.next else AppendFault()

    def plan_settle(self) -> AppendFault:
        return AppendFault(Fault.REFUSED if self.settles_fail else Fault.NONE)


def types_of(store: MemoryStore) -> list[str]:
    return [event.type.rpartition(".")[2] for event in store.events]


async def start_batch(kernel: Kernel, starts: Iterable[RunStart | Refusal]) -> list[Outcome]:
    """Start runs as one call, each parsed as it is taken."""

    async def parsed() -> AsyncIterator[RunStart | Refusal]:
        for start in starts:
            yield start

    return await start_runs(kernel.partition.calls, parsed())
