"""A worker process in the simulator: the real session machine, driven over the faulty network.

The machine decides; this shell connects, carries frames, starts bodies and stops them. Bodies
do what their task's arguments say, drawn per lease, so that a second attempt may go otherwise.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1.work_service_pb2 import WorkRequest, WorkResponse
from stretto.worker.v1.worker_control_service_pb2 import IdentifyRequest, IdentifyResponse
from stretto_core.clock import NS_PER_S
from stretto_core.errors import Refusal
from stretto_core.testing.connection import ConnectionEnd
from stretto_core.testing.log_watch import InvariantBroken
from stretto_core.testing.network import Network
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_sdk.worker import effects
from stretto_sdk.worker.session import WorkSession

from tests.simulation.random_plans import EXECUTOR, NARROW_QUEUE

RECONNECT_S_MIN, RECONNECT_S_MAX = 0.05, 1.0

Stream = ConnectionEnd[WorkRequest, WorkResponse]


@dataclass(slots=True)
class Ledger:
    """What bodies did, by lease: compared with what the log accepted.

    on_broken: told when a lease starts a second body.
    """

    on_broken: Callable[[InvariantBroken], None]
    started: set[effects.LeaseKey] = field(default_factory=set)
    reported: dict[effects.LeaseKey, effects.Ending] = field(default_factory=dict)

    def start(self, key: effects.LeaseKey) -> None:
        """A body of this lease begins."""
        if key in self.started:
            self.on_broken(InvariantBroken(f"3: the body of {key} is started twice"))
        self.started.add(key)


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
    ) -> None:
        self._process = process
        self._network = network
        self._clock = clock
        self._addresses = addresses
        self._seed = seed
        self._draws = random_for(seed, f"worker {session_id}")
        self._ledger = ledger
        self._wake = asyncio.Event()
        self._bodies: dict[effects.LeaseKey, _Body] = {}
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
                case effects.Exit():
                    self._exited = close = True
        return close

    def _start(self, assignment: work_pb2.Assignment) -> None:
        key = effects.key_of(assignment.token)
        self._ledger.start(key)
        draws = random_for(self._seed, f"body {key.work_item} {key.epoch}")
        body = self._bodies[key] = _Body(key, assignment, draws, self._spawn, self._heartbeat)
        body.task = asyncio.create_task(self._run_body(body), name=f"body {key.work_item}")

    async def _run_body(self, body: _Body) -> None:
        ending = await body.run()
        self._ledger.reported[body.key] = ending
        self._bodies.pop(body.key, None)
        self.session.end(body.key, ending)
        self._wake.set()

    def _spawn(self, body: _Body, tasks: list[plan_pb2.TaskSpec]) -> None:
        wanted = self.session.spawn(body.key, f"spawn-{body.key.epoch}", tuple(tasks))
        self._carry_out(wanted)
        self._wake.set()

    def _heartbeat(self, body: _Body, details: Payload) -> None:
        self.session.heartbeat(body.key, details, self._now_ns())
        self._wake.set()

    async def _identify(self, _: IdentifyRequest) -> IdentifyResponse:
        return IdentifyResponse(worker_id=self._worker_id, session_id=self._session_id)

    def _now_ns(self) -> int:
        return self._clock.mono_ns()


class _Body:
    """One body: waits, reports, spawns, and ends as its task's arguments say."""

    def __init__(
        self,
        key: effects.LeaseKey,
        assignment: work_pb2.Assignment,
        draws: random.Random,
        spawn: Callable[[_Body, list[plan_pb2.TaskSpec]], None],
        heartbeat: Callable[[_Body, Payload], None],
    ) -> None:
        self.key = key
        self.task: asyncio.Task[None] | None = None
        self._assignment = assignment
        self._draws = draws
        self._spawn = spawn
        self._heartbeat = heartbeat
        self._does: dict[str, Any] = json.loads(assignment.arguments_json or "{}")
        self._stopped = asyncio.Event()
        self._spawned: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def stop(self, kind: effects.StopKind) -> None:
        """It is asked to stop; a deaf body only hears that its lease is gone."""
        if kind is effects.StopKind.REVOKE or not self._does.get("deaf"):
            self._stopped.set()

    def spawn_answered(self, reason: str) -> None:
        """Its spawn was committed or refused."""
        if not self._spawned.done():
            self._spawned.set_result(reason)

    async def run(self) -> effects.Ending:
        """Return how it ended."""
        does = self._does
        hangs = self._draws.random() < does.get("hangs", 0)
        takes_s = self._draws.uniform(0, does.get("takes_ms", 0)) / 1_000
        if does.get("reports"):
            self._heartbeat(self, Payload(json=json.dumps({"epoch": self.key.epoch})))
        if await self._is_stopped_within(3_600.0 if hangs else takes_s):
            return effects.Stopped()
        children = self._children()
        if children and does.get("spawns_early"):
            self._spawn(self, children)
            await self._wake_by_spawn_or_stop()
            children = []
        if self._stopped.is_set():
            return effects.Stopped()
        drawn = self._draws.random()
        if drawn < does.get("releases", 0):
            return effects.Released("not now")
        if drawn < does.get("fails", 0):
            failure = Failure(reason="BODY_FAILED", message="as told", retryable=does["retryable"])
            if later_ms := does.get("retry_after_ms"):
                failure.retry_after.FromMilliseconds(later_ms)
            return effects.Failed(failure)
        result = {"epoch": self.key.epoch, "inputs": sorted(self._assignment.inputs)}
        return effects.Succeeded(Payload(json=json.dumps(result)), tuple(children))

    async def _wake_by_spawn_or_stop(self) -> None:
        stopped = asyncio.create_task(self._stopped.wait(), name="stopped")
        answered: asyncio.Future[Any] = self._spawned
        await asyncio.wait((answered, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def _is_stopped_within(self, span_s: float) -> bool:
        try:
            async with asyncio.timeout(span_s):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True

    def _children(self) -> list[plan_pb2.TaskSpec]:
        children: list[plan_pb2.TaskSpec] = []
        for number in range(self._does.get("spawns", 0)):
            child = plan_pb2.TaskSpec(name=f"c{number}", executor=EXECUTOR)
            child.arguments_json = json.dumps({"takes_ms": 100, "fails": 0.1, "retryable": True})
            child.retry.max_attempts = 3
            child.retry.initial_interval.FromMilliseconds(200)
            child.timeouts.heartbeat.FromSeconds(5)
            if children:
                child.dependencies.add(task=children[-1].name)
            children.append(child)
        return children
