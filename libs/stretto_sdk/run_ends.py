"""The ends that one client waits for, over one stream: names go out and ends come in together.

The stream is opened with the first name and closed when nothing was waited for during IDLE_S. After
a break it is opened again and names what is still waited for, within the client's retry budget. So
it is when many of its names are nobody's any more: each takes a place of those a stream may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import Exhausted, Refusal, Unavailable
from stretto_core.rpc.retry import refusals
from stretto_core.rpc.status import from_status

from stretto_sdk.breaks import Breaks

if TYPE_CHECKING:
    from stretto_sdk.client_calls import Calls

NAMES_MAX = 1_000
IDLE_S = 1.0
ABANDONED_MAX = 1_000


class RunEnds:
    """The ends of one client's runs."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._waiting: dict[str, list[asyncio.Future[pb.AwaitedRun]]] = {}
        self._names: _Names | None = None
        self._abandoned: set[str] = set()
        self._stream: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def wait(self, name: str) -> pb.AwaitedRun:
        """Return the run of that name once it has ended.

        Raises the refusal of the name, or the one that ended the stream for good.
        """
        while True:
            ended = await self._told(name)
            if not ended.HasField("refused"):
                return ended
            refused = from_status(ended.refused)
            if not isinstance(refused, Exhausted):
                raise refused
            # A stream's limit of names: some of them will have been answered by then.
            await asyncio.sleep(self._calls.policy.backoff_ms_max / 1_000)

    async def _told(self, name: str) -> pb.AwaitedRun:
        answer: asyncio.Future[pb.AwaitedRun] = asyncio.get_running_loop().create_future()
        if name not in self._waiting:
            self._waiting[name] = []
            if name in self._abandoned:
                self._abandoned.discard(name)  # It is named already.
            elif self._names is not None:
                self._names.add(name)
        self._waiting[name].append(answer)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._stream is None:
            self._stream = asyncio.create_task(self._serve(), name="await-runs")
        try:
            return await answer
        finally:
            self._leave(name, answer)

    async def close(self) -> None:
        """End the stream; whoever still waits gets Unavailable."""
        stream, self._stream = self._stream, None
        if self._idle is not None:
            self._idle.cancel()
        if stream is not None:
            stream.cancel()
            await asyncio.wait([stream])
        self._fail(Unavailable("the client was closed"))

    def _leave(self, name: str, answer: asyncio.Future[pb.AwaitedRun]) -> None:
        others = self._waiting.get(name)
        if others is not None:
            others.remove(answer)
            if not others:
                del self._waiting[name]
                self._abandon(name)
        if not self._waiting and self._stream is not None and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._rest)

    def _abandon(self, name: str) -> None:
        """Nobody waits for the name any more; the kernel still does, until the stream ends."""
        self._abandoned.add(name)
        if len(self._abandoned) > ABANDONED_MAX and self._waiting and self._stream is not None:
            self._end_stream()
            self._stream = asyncio.create_task(self._serve(), name="await-runs")

    def _rest(self) -> None:
        """Nothing was waited for during a while: the stream ends, the next name opens another."""
        self._idle = None
        self._end_stream()

    def _end_stream(self) -> None:
        self._abandoned.clear()
        self._names = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def _serve(self) -> None:
        try:
            await self._keep_open()
        except Exception as error:
            # Whatever it is, whoever waits must hear of it.
            self._stream = None
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for answers in waiting.values():
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)

    async def _keep_open(self) -> None:
        breaks = Breaks(self._calls.policy)
        while True:
            self._abandoned.clear()
            names = self._names = _Names(self._waiting)
            call = self._calls.runs.AwaitRuns(names.requests(), metadata=self._calls.metadata)
            try:
                with refusals():
                    async for told in call:
                        breaks.are_over()
                        for ended in told.runs:
                            self._tell(ended)
                # It ends by itself only when the kernel does.
                raise Unavailable("the stream has ended")
            except Refusal as refused:
                broke = refused
            finally:
                names.end()
                if self._names is names:  # Else the next stream is open already.
                    self._names = None
                call.cancel()
            await breaks.wait(broke)

    def _tell(self, ended: pb.AwaitedRun) -> None:
        self._abandoned.discard(ended.name)
        for answer in self._waiting.pop(ended.name, ()):
            if not answer.done():
                answer.set_result(ended)


class _Names:
    """What one stream has to say: every name waited for when it was opened, then each new one.

    Each stream has its own: gRPC goes on reading the requests of a call that the kernel ended, and
    a name read there would be said to nobody.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._unsaid = list(names)
        self._changed = asyncio.Event()
        self._ended = False

    def add(self, name: str) -> None:
        """One more."""
        self._unsaid.append(name)
        self._changed.set()

    def end(self) -> None:
        """The stream is over: nothing more is said."""
        self._ended = True
        self._changed.set()

    async def requests(self) -> AsyncIterator[pb.AwaitRunsRequest]:
        """Yield the messages, until `end`."""
        while not self._ended:
            names, self._unsaid = self._unsaid[:NAMES_MAX], self._unsaid[NAMES_MAX:]
            if names:
                yield pb.AwaitRunsRequest(names=names)
            else:
                self._changed.clear()
                await self._changed.wait()
