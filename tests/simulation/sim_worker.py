"""A worker process in the simulator: the real session machine, driven over the faulty network.

The machine decides; this shell connects, carries frames, starts bodies and stops them.
"""

from __future__ import annotations

import asyncio

from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1.work_service_pb2 import WorkRequest, WorkResponse
from stretto.worker.v1.worker_control_service_pb2 import IdentifyRequest, IdentifyResponse
from stretto_core.clock import NS_PER_S
from stretto_core.errors import Refusal
from stretto_core.testing.connection import ConnectionEnd
from stretto_core.testing.network import Network
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_sdk.worker import effects
from stretto_sdk.worker.session import WorkSession

from tests.simulation.board_hands import BoardHands
from tests.simulation.random_plans import EXECUTOR, NARROW_QUEUE
from tests.simulation.sim_body import Body, Ledger

RECONNECT_S_MIN, RECONNECT_S_MAX = 0.05, 1.0

Stream = ConnectionEnd[WorkRequest, WorkResponse]


class SimWorker:
    """One worker process from its start to its death.

    addresses: where a kernel may be; one is drawn at each connection.
    """

    def __init__(
        self,
        process: Process,
        network: Network,
        clock: VirtualClock,
        *,
        worker_id: str,
        session_id: str,
        addresses: list[str],
        seed: int,
        ledger: Ledger,
        board: BoardHands,
    ) -> None:
        self._board = board
        self._process = process
        self._network = network
        self._clock = clock
        self._addresses = addresses
        self._seed = seed
        self._draws = random_for(seed, f"worker {session_id}")
        self._ledger = ledger
        self._wake = asyncio.Event()
        self._bodies: dict[effects.LeaseKey, Body] = {}
        self._exited = False
        control_address = f"{worker_id}:control"
        self._session_id, self._worker_id = session_id, worker_id
        self.session = WorkSession(
            effects.SessionSettings(
                worker_id=worker_id,
                session_id=session_id,
                executors=(EXECUTOR,),
                queues=("default", NARROW_QUEUE),
                slot_count=self._draws.randint(1, 3),
                control_address=control_address,
            )
        )
        listener = network.listen(control_address, process)
        listener.calls["Identify"] = self._identify

    async def run(self) -> None:
        """Work until a newer process of this worker takes over, or a drain is done."""
        while not (self._exited or self.session.is_done):
            try:
                stream: Stream = await self._network.connect(
                    self._process, self._draws.choice(self._addresses), "Work"
                )
            except Refusal:
                await asyncio.sleep(self._draws.uniform(RECONNECT_S_MIN, RECONNECT_S_MAX))
                continue
            await self._serve(stream)
            await asyncio.sleep(self._draws.uniform(RECONNECT_S_MIN, RECONNECT_S_MAX))
        self._process.kill()

    def drain(self) -> None:
        """End it in order, as SIGTERM does: take nothing more, finish, say goodbye."""
        self.session.drain()
        self._wake.set()

    async def _serve(self, stream: Stream) -> None:
        self.session.connected(self._now_ns())
        reader = asyncio.create_task(self._read(stream), name="reader")
        try:
            while not reader.done() and not self._exited:
                self._wake.clear()  # Before looking: nothing may fall in between.
                if self._carry_out(self.session.tick(self._now_ns())):
                    break
                while (frame := self.session.take_frame(self._now_ns())) is not None:
                    stream.send(frame)
                if self.session.is_done:
                    break
                await self._wait()
        except Refusal:
            pass  # The stream is over; what was not said is said on the next.
        finally:
            reader.cancel()
            stream.close()
            self.session.disconnected()

    async def _wait(self) -> None:
        next_ns = self.session.next_wake_ns(self._now_ns())
        timeout_s = None if next_ns is None else (next_ns - self._now_ns()) / NS_PER_S
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _read(self, stream: Stream) -> None:
        try:
            async for frame in stream.frames():
                if self._carry_out(self.session.receive(frame, self._now_ns())):
                    return
                self._wake.set()
        except Refusal as refusal:
            if refusal.reason_word == "SESSION_REPLACED":
                self._carry_out(self.session.replaced())
        finally:
            self._wake.set()

    def _carry_out(self, wanted: list[effects.Effect]) -> bool:
        """Do what the machine wants; return whether the stream is to be closed."""
        close = False
        for effect in wanted:
            match effect:
                case effects.Start(assignment=assignment):
                    self._start(assignment)
                case effects.Stop(key=key, kind=kind):
                    if (body := self._bodies.get(key)) is not None:
                        body.stop(kind)
                case effects.SpawnAnswered(key=key, reason=reason):
                    if (body := self._bodies.get(key)) is not None:
                        body.spawn_answered(reason)
                case effects.CloseStream():
                    close = True
                case effects.Leave():
                    self.session.drain()
                case effects.Exit():
                    self._exited = close = True
        return close

    def _start(self, assignment: work_pb2.Assignment) -> None:
        key = effects.key_of(assignment.token)
        self._ledger.start(key)
        draws = random_for(self._seed, f"body {key.work_item} {key.epoch}")
        body = self._bodies[key] = Body(
            key, assignment, draws, self._spawn, self._heartbeat, self._board
        )
        body.task = asyncio.create_task(self._run_body(body), name=f"body {key.work_item}")

    async def _run_body(self, body: Body) -> None:
        ending = await body.run()
        self._ledger.reported[body.key] = ending
        self._bodies.pop(body.key, None)
        self.session.end(body.key, ending)
        self._wake.set()

    def _spawn(self, body: Body, tasks: list[plan_pb2.TaskSpec]) -> None:
        wanted = self.session.spawn(body.key, f"spawn-{body.key.epoch}", tuple(tasks))
        self._carry_out(wanted)
        self._wake.set()

    def _heartbeat(self, body: Body, details: Payload) -> None:
        self.session.heartbeat(body.key, details, self._now_ns())
        self._wake.set()

    async def _identify(self, _: IdentifyRequest) -> IdentifyResponse:
        return IdentifyResponse(worker_id=self._worker_id, session_id=self._session_id)

    def _now_ns(self) -> int:
        return self._clock.mono_ns()
