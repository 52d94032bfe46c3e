"""A whole installation in one process on virtual time: kernels, workers and clients.

One integer decides everything: plans, delays, faults and the order of callbacks. First faults
strike (`misfortunes`), then they stop and everything must come to its end within bounded virtual
time. What must hold is checked while it runs (`laws`, `witness`, the clients) and once more at the
end (`ending`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stretto.queue.v1 import queue_pb2
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import Namespace, Partition
from stretto_core.ids.seeded import SeededIds
from stretto_core.testing.log_watch import InvariantBroken, LogWatch
from stretto_core.testing.network import Network
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.trace import Trace
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_core.testing.virtual_loop import VirtualLoop
from stretto_kernel.adapters.memory_blobs import MemoryBlobs
from stretto_kernel.app.run_keys import RunKeys

from tests.simulation.board_hands import BoardHands, Judge, insisting
from tests.simulation.laws import Laws
from tests.simulation.log_fold import KeptKeys, LogFold
from tests.simulation.random_plans import NARROW_LIMIT, NARROW_QUEUE
from tests.simulation.seal_laws import SealLaws
from tests.simulation.sim_body import LARGE_BYTES, Ledger
from tests.simulation.sim_client import SimClient
from tests.simulation.sim_kernel import SimKernel
from tests.simulation.sim_unary_worker import SimUnaryWorker
from tests.simulation.sim_views import MemoryViews, start_projector
from tests.simulation.sim_worker import SimWorker
from tests.simulation.storms import LogStorm
from tests.simulation.witness import Witness

T = TypeVar("T")

KERNEL_SLOTS = 2
"""Hosts a kernel may run on; usually one does, for a while after a take-over two believe it."""
SUPERVISION_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large a world is.

    stormy_s: virtual seconds during which faults strike, one every `fault_interval_s` on average.
    calm_s_max: virtual seconds within which everything must have ended afterwards.
    unary_share: share of the worker processes that make unary calls instead of a work stream.
    log_fault_share: share of the log's calls that go wrong meanwhile.
    encrypted_share: share of the worlds whose namespace encrypts, soon after they began.
    """

    client_count: int = 3
    runs_per_client: int = 5
    worker_count: int = 3
    stormy_s: float = 40.0
    calm_s_max: float = 1_800.0
    fault_interval_s: float = 1.0
    unary_share: float = 0.4
    log_fault_share: float = 0.04
    encrypted_share: float = 0.3


@dataclass(slots=True)
class KernelSlot:
    """A host for a kernel; its clock outlives the kernels on it."""

    number: int
    clock: VirtualClock
    start_count: int = 0
    kernel: SimKernel | None = None

    @property
    def address(self) -> str:
        """Where its kernel listens."""
        return f"kernel-{self.number}"

    @property
    def running(self) -> SimKernel | None:
        """Its kernel, if one lives."""
        if self.kernel is None or self.kernel.process.is_dead:
            return None
        return self.kernel


@dataclass(slots=True)
class WorkerSlot:
    """A worker by its id, with every process that ever was it."""

    worker_id: str
    processes: list[Process] = field(default_factory=list)
    worker: SimWorker | SimUnaryWorker | None = None

    @property
    def newest(self) -> Process:
        """The process started last."""
        return self.processes[-1]


class World:
    """One simulated installation; `misfortunes` and the tests reach into it."""

    def __init__(self, loop: VirtualLoop, seed: int, scale: Scale, trace: Trace) -> None:
        self.loop = loop
        self.seed = seed
        self.scale = scale
        self.trace = trace
        self._draws = random_for(seed, "world")
        self._failed: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._bug)
        self.store = MemoryStore(Partition("p0"))
        self.index = MemoryViews()
        self.blobs = MemoryBlobs()
        self.blobs.keep(Namespace("default"), LARGE_BYTES)
        self.run_keys = KeptKeys()
        self.projector: Process | None = None
        self.laws = Laws({NARROW_QUEUE: NARROW_LIMIT}, self.run_keys)
        self.seal_laws = SealLaws()
        secrets: set[bytes] = set()
        checks = [self.laws.check, self.seal_laws.check]
        self.watch = LogWatch(self.store, checks=checks, secrets=secrets)
        self.fold = LogFold(self.store, self.run_keys)
        self.witness = Witness(
            self.watch,
            self.laws,
            self.fold,
            trace=trace,
            secrets=secrets,
            on_broken=self.fail,
        )
        self.network = Network(random_for(seed, "network"), self.witness.see)
        self.storm = LogStorm(random_for(seed, "log"), trace, share=0.0)
        self.kernels = [KernelSlot(number, VirtualClock(loop)) for number in range(KERNEL_SLOTS)]
        self.addresses = [slot.address for slot in self.kernels]
        self.workers = [WorkerSlot(f"w{number}") for number in range(scale.worker_count)]
        self.ledger = Ledger(self.fail)
        self.judge = Judge(self.watch, self.fold, self.fail)

    def start(self) -> asyncio.Future[list[None]]:
        """Start everything; the result is done when every client has seen its runs end."""
        self.loop.create_task(self._follow_log(), name="log-watch")
        self.start_kernel(self.kernels[0], exclusive=True)
        for slot in self.workers:
            self.start_worker(slot)
        self.start_projector()
        self.loop.create_task(self._supervise(), name="supervisor")
        runs_per_client = self.scale.runs_per_client
        at_rest = queue_pb2.Queue(queue=NARROW_QUEUE, concurrency_limit=NARROW_LIMIT)
        if random_for(self.seed, "encryption").random() < self.scale.encrypted_share:
            self._start_client("officer", lambda client: client.encrypt())
        return asyncio.gather(
            *(
                self._start_client(f"client-{number}", lambda client: client.run(runs_per_client))
                for number in range(self.scale.client_count)
            ),
            self._start_client(
                "operator",
                lambda client: client.set_limits(NARROW_QUEUE, at_rest, self.scale.stormy_s),
            ),
        )

    def fail(self, broken: BaseException) -> None:
        """Something that must hold does not: end the simulation."""
        if not self._failed.done():
            self._failed.set_exception(broken)

    async def unless_failed(self, wanted: Coroutine[Any, Any, T]) -> T:
        """Return what is wanted, unless a law is broken before. Raises what `fail` was told."""
        task = asyncio.create_task(wanted, name="wanted")
        await asyncio.wait((task, self._failed), return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            self._failed.result()
        return task.result()

    # -- processes -------------------------------------------------------------------------------

    def start_kernel(self, slot: KernelSlot, *, exclusive: bool) -> SimKernel:
        """Start a kernel on a free host; not exclusive: it takes over from a live owner."""
        assert slot.running is None, "one kernel a host"
        slot.start_count += 1
        name = f"{slot.address}.{slot.start_count}"
        slot.kernel = SimKernel(
            Process(self.loop, name, host=slot.address),
            self.network,
            slot.clock,
            self._ids(name, slot.clock),
            address=slot.address,
            store=self.store,
            index=self.index,
            blobs=self.blobs,
            keys=RunKeys(
                self.run_keys, random_bytes=random_for(self.seed, f"keys {name}").randbytes
            ),
            log_faults=self.storm,
            exclusive=exclusive,
            queue_limits={NARROW_QUEUE: NARROW_LIMIT},
        )
        slot.kernel.start()
        return slot.kernel

    def start_worker(self, slot: WorkerSlot) -> Process:
        """Start a process of a worker; an older one that still lives is replaced by its hello."""
        name = f"{slot.worker_id}.{len(slot.processes) + 1}"
        process = Process(self.loop, name, host=slot.worker_id)
        slot.processes.append(process)
        clock = VirtualClock(self.loop)
        # One worker may speak by a stream in one process and by calls in the next.
        kind = SimUnaryWorker if self._draws.random() < self.scale.unary_share else SimWorker
        ids = self._ids(name, clock)
        draws = random_for(self.seed, f"board {name}")
        ask = insisting(self.network, process, self.addresses, draws)
        board = BoardHands(ask, ids, draws, self.judge)
        worker = process.run(
            lambda: kind(
                process,
                self.network,
                clock,
                worker_id=slot.worker_id,
                session_id=ids.uuid7(),
                addresses=self.addresses,
                seed=self.seed,
                ledger=self.ledger,
                board=board,
            )
        )
        process.spawn(worker.run())
        slot.worker = worker
        return process

    def start_projector(self) -> None:
        """Start the process that keeps the view."""
        self.projector = Process(self.loop, "projector")
        start_projector(self.projector, self.store, self.index)

    def _start_client(
        self, name: str, act: Callable[[SimClient], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        process = Process(self.loop, name)
        client = SimClient(
            process,
            self.network,
            self._ids(process.name, VirtualClock(self.loop)),
            addresses=self.addresses,
            seed=self.seed,
            watch=self.watch,
            laws=self.laws,
            fold=self.fold,
            judge=self.judge,
            trace=self.trace,
        )
        task = process.spawn(act(client))
        task.add_done_callback(self._client_done)
        return task

    def _client_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _ids(self, name: str, clock: VirtualClock) -> SeededIds:
        return SeededIds(random_for(self.seed, f"ids {name}").getrandbits(64), clock)

    async def _supervise(self) -> None:
        """Restart what died: workers, and a kernel when nobody owns the partition."""
        while True:
            await asyncio.sleep(self._draws.uniform(0.0, 2 * SUPERVISION_S))
            free = [slot for slot in self.kernels if slot.running is None]
            if self.store.held_by is None and free:
                self.start_kernel(self._draws.choice(free), exclusive=True)
            if self.projector is None or self.projector.is_dead:
                self.start_projector()
            for slot in self.workers:
                if slot.newest.is_dead:
                    self.start_worker(slot)

    def _bug(self, _: asyncio.AbstractEventLoop, failure: dict[str, Any]) -> None:
        broken = InvariantBroken(f"our bug: {failure['message']} {failure.get('exception')!r}")
        broken.__cause__ = failure.get("exception")
        self.fail(broken)

    async def _follow_log(self) -> None:
        try:
            await self.watch.follow()
        except InvariantBroken as broken:
            self.fail(broken)
