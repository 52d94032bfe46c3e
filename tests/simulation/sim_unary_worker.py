"""A worker process that makes unary calls, in the simulator: LeaseWork, RenewLeases and the others.

It keeps to the contract as a worker in any language would: a call without an answer is sent again
as it was, a body begins when its first renewal was not refused, an outcome is reported until it has
its receipt. What the network loses, delays and doubles is not its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as pb
from stretto.worker.v1.worker_control_service_pb2 import IdentifyRequest, IdentifyResponse
from stretto_core.errors import Refusal
from stretto_core.ids.seeded import SeededIds
from stretto_core.testing.network import Network
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_sdk.worker import effects, verdicts

from tests.simulation.board_hands import BoardHands
from tests.simulation.random_plans import EXECUTOR, NARROW_QUEUE
from tests.simulation.sim_body import Body, Ledger

CALL_TIMEOUT_S = 3.0
RENEW_INTERVAL_S = 0.3
AGAIN_S_MIN, AGAIN_S_MAX = 0.05, 0.5


@dataclass(slots=True, eq=False)
class _Held:
    """A lease this process holds; its body runs once `body` is set."""

    assignment: work_pb2.Assignment
    body: Body | None = None
    stop: effects.StopKind | None = None
    details: Payload | None = None

    @property
    def token(self) -> LeaseToken:
        return self.assignment.token


class SimUnaryWorker:
    """One worker process from its start to its death.

    addresses: where a kernel may be; one is drawn at each call.
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
        self._addresses = addresses
        self._seed = seed
        self._draws = random_for(seed, f"unary worker {session_id}")
        self._ids = SeededIds(self._draws.getrandbits(64), clock)
        self._ledger = ledger
        self._held: dict[effects.LeaseKey, _Held] = {}
        self._spawning: set[asyncio.Task[None]] = set()
        self._taking_count = 0
        self._draining = False
        self._changed = asyncio.Event()
        self._slot_count = self._draws.randint(1, 3)
        control_address = f"{worker_id}:control"
        self._hello = work_pb2.Hello(
            worker_id=worker_id,
            session_id=session_id,
            executors=[EXECUTOR],
            queues=["default", NARROW_QUEUE],
            control_address=control_address,
            slot_count=self._slot_count,
        )
        listener = network.listen(control_address, process)
        listener.calls["Identify"] = self._identify

    async def run(self) -> None:
        """Work until a newer process of this worker takes over, or a drain is done."""
        renewing = asyncio.create_task(self._renew_all(), name="renewing")
        polls = [asyncio.create_task(self._poll_all(), name="polling") for _ in range(2)]
        ended, _ = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        if not self._replaced(ended):
            await asyncio.wait(polls)
            await self._hand_back()
        renewing.cancel()
        self._process.kill()

    def drain(self) -> None:
        """End it in order, as SIGTERM does: take nothing more, finish or give back."""
        self._draining = True
        self._changed.set()

    def _replaced(self, ended: set[asyncio.Task[bool]]) -> bool:
        return any(task.result() for task in ended)

    # Taking work.

    async def _poll_all(self) -> bool:
        """Poll while there are free slots; True when a newer process took over."""
        while not self._draining:
            free_count = self._slot_count - len(self._held) - self._taking_count
            if free_count <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            count = self._draws.randint(1, free_count)
            self._taking_count += count
            try:
                answer = await self._lease(count)
            except Refusal as refusal:
                if refusal.reason_word == "SESSION_REPLACED":
                    return True
                raise
            finally:
                self._taking_count -= count
            await self._begin(answer.assignments)
        return False

    async def _lease(self, count: int) -> pb.LeaseWorkResponse:
        """Ask until there is an answer, or give the call up, in order or not."""
        request = pb.LeaseWorkRequest(
            worker=self._hello, request_id=self._ids.uuid7(), count_max=count
        )
        # Longer than the call at times: then the caller's deadline cuts it.
        request.wait_timeout.FromMilliseconds(self._draws.choice((0, 500, 2_000, 5_000)))
        while not self._draining:
            answer = await self._try("LeaseWork", request)
            if answer is not None:
                assert isinstance(answer, pb.LeaseWorkResponse)
                return answer
            if self._draws.random() < 0.1:
                break  # It forgets about the call.
        else:
            given_up = pb.ReleaseWorkRequest(
                session_id=self._hello.session_id, lease_request_ids=[request.request_id]
            )
            await self._try("ReleaseWork", given_up)
        return pb.LeaseWorkResponse()

    async def _begin(self, assignments: Sequence[work_pb2.Assignment]) -> None:
        """Acknowledge, then start the bodies whose leases are still this process's."""
        fresh = [
            _Held(each) for each in assignments if effects.key_of(each.token) not in self._held
        ]
        for held in fresh:
            self._held[effects.key_of(held.token)] = held
        while waiting := [held for held in fresh if self._is_held(held) and held.body is None]:
            unknown = await self._renew(waiting)
            for held in waiting:
                if self._is_held(held) and effects.key_of(held.token) not in unknown:
                    self._start(held)

    def _start(self, held: _Held) -> None:
        key = effects.key_of(held.token)
        self._ledger.start(key)
        draws = random_for(self._seed, f"body {key.work_item} {key.epoch}")
        held.body = Body(key, held.assignment, draws, self._spawn, self._heartbeat, self._board)
        held.body.task = asyncio.create_task(self._run_body(held), name=f"body {key.work_item}")

    # Holding it.

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(RENEW_INTERVAL_S)
            if running := [held for held in self._held.values() if held.body is not None]:
                await self._renew(running)

    async def _renew(self, held: Sequence[_Held]) -> set[effects.LeaseKey]:
        """Renew once; drop what is lost, tell bodies of signals. Return what is not known."""
        renewals = [work_pb2.Renewal(token=each.token, details=each.details) for each in held]
        answer = await self._try("RenewLeases", pb.RenewLeasesRequest(renewals=renewals))
        if answer is None:
            return {effects.key_of(each.token) for each in held}
        assert isinstance(answer, pb.RenewLeasesResponse)
        unknown = set()
        for receipt in answer.receipts:
            key = effects.key_of(receipt.token)
            if verdicts.reason_of(receipt.status) == "LEASE_LOST":
                self._drop(key)
            else:
                unknown.add(key)
        for signal in answer.signals:
            self._stop(effects.key_of(signal.token), verdicts.stop_kind(signal.kind))
        return unknown

    def _stop(self, key: effects.LeaseKey, kind: effects.StopKind | None) -> None:
        held = self._held.get(key)
        if held is not None and kind is not None:
            held.stop = kind
            if held.body is not None:
                held.body.stop(kind)

    def _drop(self, key: effects.LeaseKey) -> None:
        held = self._held.pop(key, None)
        if held is not None and held.body is not None:
            held.body.stop(effects.StopKind.REVOKE)
        self._changed.set()

    def _is_held(self, held: _Held) -> bool:
        return self._held.get(effects.key_of(held.token)) is held

    def _heartbeat(self, body: Body, details: Payload) -> None:
        if (held := self._held.get(body.key)) is not None:
            held.details = details

    # Ending it.

    async def _run_body(self, held: _Held) -> None:
        assert held.body is not None
        ending = await held.body.run()
        self._ledger.reported[held.body.key] = ending
        outcome = verdicts.outcome_of(held.token, ending, held.stop)
        if held.details is not None:
            outcome.details.CopyFrom(held.details)
        while self._is_held(held):
            request = pb.ReportOutcomesRequest(outcomes=[outcome])
            if await self._said("ReportOutcomes", request) is not None:
                self._drop(held.body.key)

    def _spawn(self, body: Body, tasks: list[plan_pb2.TaskSpec]) -> None:
        spawning = asyncio.create_task(self._spawn_until_said(body, tasks), name="spawn")
        self._spawning.add(spawning)
        spawning.add_done_callback(self._spawning.discard)

    async def _spawn_until_said(self, body: Body, tasks: list[plan_pb2.TaskSpec]) -> None:
        while (held := self._held.get(body.key)) is not None:
            spawn = work_pb2.Spawn(token=held.token, request_id="spawn", tasks=tasks)
            reason = await self._said("ReportOutcomes", pb.ReportOutcomesRequest(spawns=[spawn]))
            if reason is not None:
                body.spawn_answered(reason)
                return
        body.spawn_answered("LEASE_LOST")

    async def _said(self, method: str, request: Message) -> str | None:
        """The reason word of the one receipt, "" for OK; None when it is to be sent again."""
        answer = await self._try(method, request)
        if answer is None:
            return None
        (receipt,) = answer.receipts
        if not receipt.status.code:
            return ""
        again = verdicts.judge(receipt.status) is verdicts.Verdict.AGAIN
        return None if again else verdicts.reason_of(receipt.status)

    async def _hand_back(self) -> None:
        """Give back what is not begun or half done, or finish it."""
        if self._draws.random() < 0.5:
            for key, held in list(self._held.items()):
                self._drop(key)
                await self._try("ReleaseWork", pb.ReleaseWorkRequest(tokens=[held.token]))
        while self._held:
            self._changed.clear()
            await self._changed.wait()

    # The network.

    async def _try(self, method: str, request: Message) -> Any:
        """Call once; None when the same is to be sent again. Raises SessionReplaced."""
        try:
            return await self._network.call(
                self._process,
                self._draws.choice(self._addresses),
                method,
                request,
                timeout_s=CALL_TIMEOUT_S,
            )
        except Refusal as refusal:
            if refusal.reason_word == "SESSION_REPLACED":
                raise
            await asyncio.sleep(self._draws.uniform(AGAIN_S_MIN, AGAIN_S_MAX))
            return None

    async def _identify(self, _: IdentifyRequest) -> IdentifyResponse:
        return IdentifyResponse(worker_id=self._hello.worker_id, session_id=self._hello.session_id)
