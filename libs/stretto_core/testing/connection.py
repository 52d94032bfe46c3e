"""A simulated two-way stream of frames between two processes, as TCP under gRPC gives it.

What holds: frames of one direction arrive in order, none missing before another. What does not:
they may take long, arrive twice, and when the stream breaks everything under way is lost, in either
direction, and each side learns of it at its own time or, cut off from the other, not at all. Frames
are copied when sent: nothing is shared between processes. Made by `Network` only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import Message

from stretto_core.errors import Refusal, Unavailable
from stretto_core.testing.process import Process

if TYPE_CHECKING:
    from stretto_core.testing.network import Network

Sent = TypeVar("Sent", bound=Message)
Received = TypeVar("Received", bound=Message)


class ConnectionLost(Unavailable):
    """The stream broke; what was under way may or may not have arrived."""

    reason = "CONNECTION_LOST"


class _End:
    """The last thing that arrives: why the stream ended; None when the peer ended it well."""

    def __init__(self, cause: Refusal | None) -> None:
        self.cause = cause


class ConnectionEnd(Generic[Sent, Received]):
    """One side of a stream: send frames, receive frames, until either side ends it."""

    def __init__(self, network: Network, owner: Process, name: str) -> None:
        self._network = network
        self.owner = owner
        self.name = name
        self.peer: ConnectionEnd[Received, Sent]
        self._under_way: deque[Received | _End] = deque()
        self._arrives_s = 0.0
        self._arrived: deque[Received] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._ended: _End | None = None
        self._sent_count = 0
        self.is_closed = False

    @property
    def has_ended(self) -> bool:
        """Whether this side has learnt that the stream is over, or ended it itself."""
        return self.is_closed or self._ended is not None

    def send(self, frame: Sent) -> None:
        """Send a copy of `frame`; lost without a word when the stream is breaking.

        Raises ConnectionLost once this side has learnt that the stream is over.
        """
        if self.has_ended:
            raise ConnectionLost("the stream is over", stream=self.name)
        self._sent_count += 1
        copy = type(frame)()
        copy.CopyFrom(frame)
        self._network.frame_sent(self, copy, is_first=self._sent_count == 1)

    async def receive(self) -> Received | None:
        """Return the next frame, or None after a good end; raises a bad end's cause."""
        while not self._arrived:
            if self._ended is not None:
                if self._ended.cause is not None:
                    raise self._ended.cause
                return None
            if self.is_closed:
                raise ConnectionLost("this side has closed the stream", stream=self.name)
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._arrived.popleft()

    async def frames(self) -> AsyncIterator[Received]:
        """Iterate over what arrives, until the peer ends the stream."""
        while (frame := await self.receive()) is not None:
            yield frame

    def close(self, cause: Refusal | None = None) -> None:
        """End the stream: what was sent before arrives, then `cause` (None: a good end)."""
        if not self.has_ended:
            self._network.end_sent(self, cause)
        self.is_closed = True
        self._wake_reader()

    # What follows is the network's.

    def put_under_way(self, frame: Received | _End, arrives_s: float) -> None:
        """A frame is on its way to this side and arrives at `arrives_s`, or after those before."""
        self._arrives_s = max(self._arrives_s, arrives_s)
        self._under_way.append(frame)
        loop = asyncio.get_running_loop()
        delay_s = max(0.0, self._arrives_s - loop.time())
        self.owner.call_later(delay_s, self._arrive)

    def end_after(self, cause: Refusal | None, arrives_s: float) -> None:
        """The stream's end is on its way to this side."""
        self.put_under_way(_End(cause), arrives_s)

    def lose_what_is_under_way(self) -> None:
        """The stream broke: nothing of it arrives any more."""
        self._under_way.clear()

    def _arrive(self) -> None:
        # By order of sending, whatever the order of the callbacks of one instant.
        if not self._under_way or self.has_ended:
            return
        if self._network.is_parted(self.owner, self.peer.owner):
            self._network.when_healed(lambda: self.owner.call_soon(self._arrive))
            return
        frame = self._under_way.popleft()
        if isinstance(frame, _End):
            self._ended = frame
        else:
            self._arrived.append(frame)
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        self._reader = None
