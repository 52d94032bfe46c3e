"""Starts of one client, put together while others are under way; a lone one goes at once.

In Python a message costs far more than an item inside it. A start that comes while nothing else is
under way is a call of its own. One that comes meanwhile joins the next StartRuns: at most two are
under way, so that one is decided while the other is committed, and what comes in between gathers.
Nothing ever waits for a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import Conflict, Exhausted, Internal, Refusal, Unavailable
from stretto_core.rpc.status import from_status

if TYPE_CHECKING:
    from stretto_sdk.client_calls import Calls

STARTS_MAX = 500
BATCH_BYTES_MAX = 1 << 20
BATCHES_MAX = 2


class _Waiting(NamedTuple):
    request: pb.StartRunRequest
    answer: asyncio.Future[pb.StartRunResponse]


class _RefusedAlone(Exception):
    """A start was refused within a batch that was answered: its call was not repeated yet."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Starts:
    """The starts of one client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._waiting: deque[_Waiting] = deque()
        self._alone = False
        self._batches: set[asyncio.Task[None]] = set()
        self._posted = False

    async def start(self, request: pb.StartRunRequest) -> pb.StartRunResponse:
        """Start a run; `wait_timeout` may be ignored: the run answered then has not ended.

        Raises the refusal that StartRun ended with.
        """
        if request.validate_only:
            return await self._call(request)
        if not (self._alone or self._batches or self._waiting):
            self._alone = True
            try:
                return await self._call(request)
            finally:
                self._alone = False
        try:
            return await self._together(request)
        except _RefusedAlone as refused:
            if not isinstance(refused.refusal, Unavailable | Exhausted | Conflict):
                raise refused.refusal from None
            # Sent again by itself, as often as one call may be.
            return await self._call(request)

    async def _call(self, request: pb.StartRunRequest) -> pb.StartRunResponse:
        return await self._calls.unary(self._calls.runs.StartRun, request)

    async def _together(self, request: pb.StartRunRequest) -> pb.StartRunResponse:
        item = request
        if request.HasField("wait_timeout"):
            item = pb.StartRunRequest()
            item.CopyFrom(request)
            item.ClearField("wait_timeout")
        answer: asyncio.Future[pb.StartRunResponse] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, answer))
        self._post()
        return await answer

    def _post(self) -> None:
        """Send soon: what is started in this turn of the loop goes together."""
        if not self._posted and self._waiting and len(self._batches) < BATCHES_MAX:
            self._posted = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._posted = False
        batch: list[_Waiting] = []
        bytes_left = BATCH_BYTES_MAX
        while self._waiting and len(batch) < STARTS_MAX:
            size_bytes = self._waiting[0].request.ByteSize()
            if batch and size_bytes > bytes_left:
                break
            bytes_left -= size_bytes
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # Its caller may have given up.
                batch.append(waiting)
        if batch:
            task = asyncio.create_task(self._call_batch(batch), name="start-runs")
            self._batches.add(task)
            task.add_done_callback(self._batch_done)
        self._post()  # What did not fit goes at once, too.

    def _batch_done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._post()

    async def _call_batch(self, batch: list[_Waiting]) -> None:
        request = pb.StartRunsRequest(requests=[waiting.request for waiting in batch])
        try:
            answer = await self._calls.unary(self._calls.runs.StartRuns, request)
            if len(answer.results) != len(batch):
                raise Internal("the kernel answered another number of starts")
        except Exception as error:
            # Whatever it is, whoever waits must hear of it.
            for waiting in batch:
                _fail(waiting.answer, error)
        except asyncio.CancelledError:
            for waiting in batch:
                _fail(waiting.answer, Unavailable("the client was closed"))
            raise
        else:
            for waiting, result in zip(batch, answer.results, strict=True):
                if result.HasField("started"):
                    if not waiting.answer.done():
                        waiting.answer.set_result(result.started)
                else:
                    _fail(waiting.answer, _RefusedAlone(from_status(result.refused)))

    async def close(self) -> None:
        """End what is under way; whoever waits for it gets Unavailable."""
        while self._waiting:
            _fail(self._waiting.popleft().answer, Unavailable("the client was closed"))
        batches = list(self._batches)
        for task in batches:
            task.cancel()
        if batches:
            await asyncio.wait(batches)


def _fail(answer: asyncio.Future[pb.StartRunResponse], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
