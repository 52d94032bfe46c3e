"""A simulated network: streams and calls between processes, and everything that befalls them.

Owns who listens where, what is under way, and which hosts cannot reach each other. A killed
process has its streams ended by its operating system, so its peers learn of it; a frozen one has
not, so they learn nothing; a partition holds frames back, as TCP does, until it heals or the
stream is given up. Every draw comes from one generator. Delays are seconds of virtual time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from stretto_core.errors import DeadlineExceeded, Refusal, Unavailable
from stretto_core.testing.connection import ConnectionEnd, ConnectionLost
from stretto_core.testing.process import Process
from stretto_core.testing.weather import CALM, Weather

Accept = Callable[[ConnectionEnd[Any, Any]], Awaitable[None]]
"""Serves one stream, inside the listening process; its return or refusal ends the stream."""
Handle = Callable[[Any], Awaitable[Any]]
"""Answers one call, inside the listening process, or raises a Refusal."""
FrameWatcher = Callable[[str, str, Message], None]
"""(from, to, frame), for every frame, request and answer when it is sent."""

_CONNECT_TIMEOUT_S = 20.0
_RESET_SHARE = 0.5


class ConnectionRefused(Unavailable):
    """Nobody listens at the address: a proof that the process that did is gone."""

    reason = "CONNECTION_REFUSED"


class Listener:
    """What one process serves at one address."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.streams: dict[str, Accept] = {}
        self.calls: dict[str, Handle] = {}


@dataclass(frozen=True, slots=True)
class _Call:
    """A call under way."""

    caller: Process
    server: Process
    handle: Handle
    answer: asyncio.Future[Any]
    handling: list[asyncio.Task[None]] = field(default_factory=list)


class Network:
    """Carries frames and calls.

    draws: decides what goes wrong.
    watch: sees everything sent; for the trace and for checks of what is on the wire.
    """

    def __init__(self, draws: random.Random, watch: FrameWatcher | None = None) -> None:
        self._draws = draws
        self._watch = watch
        self._listeners: dict[str, Listener] = {}
        self._ends: dict[str, list[ConnectionEnd[Any, Any]]] = {}
        self._partitions: set[frozenset[str]] = set()
        self._held_back_calls: list[Callable[[], object]] = []
        self.weather: Weather = CALM

    # -- who listens -----------------------------------------------------------------------------

    def listen(self, address: str, process: Process) -> Listener:
        """Open `address` for `process` until it dies, instead of who listened there before."""
        listener = self._listeners[address] = Listener(process)
        process.when_dead(lambda: self._close_address(address, listener))
        return listener

    def unlisten(self, address: str) -> None:
        """Close the address; whoever dials it is refused."""
        self._listeners.pop(address, None)

    def _close_address(self, address: str, listener: Listener) -> None:
        if self._listeners.get(address) is listener:
            del self._listeners[address]

    # -- partitions ------------------------------------------------------------------------------

    def part(self, host: str, other: str) -> None:
        """Nothing passes between the two hosts until `heal`."""
        self._partitions.add(frozenset((host, other)))

    def heal(self) -> None:
        """Everything passes again; what was held back goes on."""
        self._partitions.clear()
        held_back, self._held_back_calls = self._held_back_calls, []
        for callback in held_back:
            callback()

    def when_healed(self, callback: Callable[[], object]) -> None:
        """Call back once, at the next `heal`."""
        self._held_back_calls.append(callback)

    def is_parted(self, process: Process, other: Process) -> bool:
        """Whether nothing passes between the two."""
        return frozenset((process.host, other.host)) in self._partitions

    # -- streams ---------------------------------------------------------------------------------

    async def connect(self, caller: Process, address: str, method: str) -> ConnectionEnd[Any, Any]:
        """Open a stream to whoever listens at `address`.

        Raises ConnectionRefused when nobody does, ConnectionLost when nothing gets through.
        """
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                listener = await self._reach(caller, address)
        except TimeoutError:
            raise ConnectionLost("nothing gets through", address=address) from None
        accept = listener.streams[method]
        name = f"{caller.name}<>{listener.process.name}"
        near: ConnectionEnd[Any, Any] = ConnectionEnd(self, caller, name)
        far: ConnectionEnd[Any, Any] = ConnectionEnd(self, listener.process, name)
        near.peer, far.peer = far, near
        for end in (near, far):
            self._remember(end)
        listener.process.call_soon(self._serve, listener.process, far, accept)
        return near

    def break_streams(self, process: Process) -> int:
        """Break every stream of `process`; return how many there were."""
        ends = [end for end in self._ends.get(process.name, ()) if not end.has_ended]
        for end in ends:
            self._break(end)
        return len(ends)

    def frame_sent(self, end: ConnectionEnd[Any, Any], frame: Message, *, is_first: bool) -> None:
        """A side's: put its frame on the way, if the weather lets it."""
        self._see(end.owner, end.peer.owner, frame)
        if self._draws.random() < self.weather.cut:
            self._break(end)
            return
        self._put(end.peer, frame)
        if not is_first and self._draws.random() < self.weather.duplicate:
            self._put(end.peer, frame)

    def end_sent(self, end: ConnectionEnd[Any, Any], cause: Refusal | None) -> None:
        """A side's: it ends the stream."""
        loop = asyncio.get_running_loop()
        end.peer.end_after(cause, loop.time() + self.weather.draw_delay_s(self._draws))
        self._forget(end)

    def _put(self, to: ConnectionEnd[Any, Any], frame: Message) -> None:
        arrives_s = asyncio.get_running_loop().time() + self.weather.draw_delay_s(self._draws)
        to.put_under_way(frame, arrives_s)

    def _break(self, end: ConnectionEnd[Any, Any]) -> None:
        now_s = asyncio.get_running_loop().time()
        for side in (end, end.peer):
            side.lose_what_is_under_way()
            if not side.owner.is_dead:
                lost = ConnectionLost("the stream broke", stream=side.name)
                side.end_after(lost, now_s + self.weather.draw_delay_s(self._draws))
            self._forget(side)

    def _serve(self, process: Process, end: ConnectionEnd[Any, Any], accept: Accept) -> None:
        process.spawn(_serve_stream(end, accept), name=f"stream {end.name}")

    def _remember(self, end: ConnectionEnd[Any, Any]) -> None:
        known = self._ends.get(end.owner.name)
        if known is None:
            known = self._ends[end.owner.name] = []
            end.owner.when_dead(lambda: self._owner_died(end.owner))
        known.append(end)

    def _forget(self, end: ConnectionEnd[Any, Any]) -> None:
        known = self._ends.get(end.owner.name, [])
        if end in known:
            known.remove(end)

    def _owner_died(self, owner: Process) -> None:
        for end in self._ends.pop(owner.name, []):
            if end.has_ended:
                continue
            if self._draws.random() < _RESET_SHARE:
                # A reset overtakes what was sent before.
                end.peer.lose_what_is_under_way()
            now_s = asyncio.get_running_loop().time()
            lost = ConnectionLost("the other process died", stream=end.name)
            end.peer.end_after(lost, now_s + self.weather.draw_delay_s(self._draws))

    # -- calls -----------------------------------------------------------------------------------

    async def call(
        self, caller: Process, address: str, method: str, request: Message, *, timeout_s: float
    ) -> Any:
        """Make one call and return its answer.

        Raises what the handler refuses with, ConnectionRefused when nobody listens, ConnectionLost
        and DeadlineExceeded when the outcome is unknown: the request may still arrive later. When
        the caller waits no longer, or dies, its handler is cancelled, unless that word is lost.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call: _Call | None = None
        try:
            async with asyncio.timeout(timeout_s):
                listener = await self._reach(caller, address)
                call = _Call(caller, listener.process, listener.calls[method], answer)
                self._send_request(call, request)
                return await answer
        except TimeoutError:
            raise DeadlineExceeded("no answer in time", method=method) from None
        finally:
            if call is not None and not answer.done():
                self._cancel_later(call)

    def _send_request(self, call: _Call, request: Message) -> None:
        weather, server = self.weather, call.server
        self._see(call.caller, server, request)
        server.when_dead(lambda: self._answer_lost(call))
        call.caller.when_dead(lambda: self._cancel_later(call))
        times = 2 if self._draws.random() < weather.duplicate else 1
        if self._draws.random() < weather.lose_request:
            times = 0
        for _ in range(times):
            delay_s = weather.draw_delay_s(self._draws)
            server.call_later(delay_s, self._start_handling, call, _copied(request))

    def _start_handling(self, call: _Call, request: Message) -> None:
        call.handling.append(call.server.spawn(self._handle(call, request), name="call"))

    async def _handle(self, call: _Call, request: Message) -> None:
        result: Message | Refusal
        try:
            result = _copied(await call.handle(request))
        except Refusal as refusal:
            result = refusal
        else:
            self._see(call.server, call.caller, result)
        await self._held_back(call.caller, call.server)
        if self._draws.random() >= self.weather.lose_response:
            self._give_later(call, result)

    def _cancel_later(self, call: _Call) -> None:
        if call.answer.done() or self._draws.random() < self.weather.lose_request:
            return
        call.server.call_later(self.weather.draw_delay_s(self._draws), self._cancel, call)

    def _cancel(self, call: _Call) -> None:
        if self.is_parted(call.caller, call.server):
            self.when_healed(lambda: call.server.call_soon(self._cancel, call))
            return
        for handling in call.handling:
            handling.cancel()

    def _answer_lost(self, call: _Call) -> None:
        if not call.answer.done():
            self._give_later(call, ConnectionLost("the other process died"))

    def _give_later(self, call: _Call, result: Message | Refusal) -> None:
        delay_s = self.weather.draw_delay_s(self._draws)
        call.caller.call_later(delay_s, _give_answer, call.answer, result)

    def _see(self, sender: Process, receiver: Process, frame: Message) -> None:
        if self._watch is not None:
            self._watch(sender.name, receiver.name, frame)

    async def _reach(self, caller: Process, address: str) -> Listener:
        """Take the time of a round trip; return who listens at the address then."""
        await asyncio.sleep(self.weather.draw_delay_s(self._draws))
        listener = self._listeners.get(address)
        if listener is not None:
            await self._held_back(caller, listener.process)
            listener = self._listeners.get(address)
        if listener is None:
            raise ConnectionRefused("nobody listens", address=address)
        return listener

    async def _held_back(self, process: Process, other: Process) -> None:
        while self.is_parted(process, other):
            healed = asyncio.Event()
            self.when_healed(healed.set)
            await healed.wait()


async def _serve_stream(end: ConnectionEnd[Any, Any], accept: Accept) -> None:
    try:
        await accept(end)
    except Refusal as refusal:
        end.close(refusal)
    else:
        end.close()


def _copied(frame: Message) -> Message:
    """Return the frame as another process gets it: nothing shared."""
    copy = type(frame)()
    copy.CopyFrom(frame)
    return copy


def _give_answer(answer: asyncio.Future[Any], result: Message | Refusal) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
        answer.exception()  # A caller that gave up is no one's error.
    else:
        answer.set_result(result)
