"""The bus over NATS JetStream: what the relay tells the world outside.

One JetStream stream keeps what was published for consumers of any language: `STRETTO`, subjects
`stretto.>`, a day long. It is made when missing, also in mid-run: whatever is lost there is in the
log. Subscriptions of ours are plain ones of NATS: they need no past, and what one misses while it
reconnects is in the log, too. This module and `jetstream_buckets` alone know the client library.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, Header, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from stretto_core.bus import BUFFER_COUNT_DEFAULT, Hint, check_hint, check_pattern
from stretto_core.bus.buffer import HintBuffer
from stretto_core.errors import Unavailable
from stretto_core.ids import Partition

STREAM: Final = "STRETTO"
SUBJECT_PREFIX: Final = "stretto."
KEPT_S = 86_400.0
KEPT_BYTES_MAX = 1 << 30
DUPLICATE_WINDOW_S = 120.0
"""A message repeated within it (a relay that crashed after publishing) is stored once."""
CONNECT_TIMEOUT_S = 2.0
ACK_TIMEOUT_S = 5.0
RECONNECT_WAIT_S = 0.1
REOPEN_WAIT_S = 1.0
LOST = (NatsError, OSError, TimeoutError, APIError, NoStreamResponseError)


class JetStreamBus:
    """Publishes to, and subscribes at, the NATS server of `url`; connects at the first use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connecting = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._subscriptions: dict[HintBuffer, NatsSubscription] = {}
        self._reopening: asyncio.Task[None] | None = None
        self._closed = False
        self._broken = asyncio.Event()
        self._log = structlog.get_logger("stretto.bus")

    async def publish(self, hints: Sequence[Hint]) -> None:
        """Hand the hints over; returns once the server has stored them all."""
        for hint in hints:
            check_hint(hint)
        client = await self.connected()
        async with self._publishing:
            try:
                async with asyncio.timeout(ACK_TIMEOUT_S):
                    await self._publish(client, hints)
            except LOST as error:
                raise Unavailable(f"the bus did not take it: {said(error)}") from error

    async def subscribe(
        self, pattern: str, *, buffer_count_max: int = BUFFER_COUNT_DEFAULT
    ) -> HintBuffer:
        """Return what comes from now on, at most `buffer_count_max` (>= 1) unread at a time."""
        check_pattern(pattern)
        client = await self.connected()
        buffer = HintBuffer(pattern, buffer_count_max, self._stop)
        try:
            await self._listen(client, buffer)
            # The server knows of it once it answers what was sent after it.
            await client.flush()
        except LOST as error:
            raise Unavailable(f"the bus cannot be reached: {said(error)}") from error
        return buffer

    async def close(self) -> None:
        """Close every subscription and the connection. Repeating is harmless."""
        self._closed = True
        if self._reopening is not None:
            self._reopening.cancel()
        for buffer in list(self._subscriptions):
            await buffer.close()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _publish(self, client: Client, hints: Sequence[Hint]) -> None:
        self._broken.clear()
        stream = self._stream or await self._made_stream(client)
        try:
            await self._acknowledged(stream, hints)
        except NoStreamResponseError:
            # Its data was wiped under us: what the server misses from before is in the log.
            await self._acknowledged(await self._made_stream(client), hints)

    async def _acknowledged(self, stream: JetStreamContext, hints: Sequence[Hint]) -> None:
        sent = [
            await stream.publish_async(
                SUBJECT_PREFIX + hint.subject,
                hint.body,
                headers={Header.MSG_ID.value: hint.message_id},
            )
            for hint in hints
        ]
        # Acknowledgements do not outlive the connection: no need to wait for them until their time.
        broken = asyncio.ensure_future(self._broken.wait())
        try:
            taken = asyncio.gather(*sent)
            either: list[asyncio.Future[Any]] = [taken, broken]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not taken.done():
                raise ConnectionResetError("the connection broke")
            await taken
        finally:
            broken.cancel()
            for acknowledgement in sent:
                acknowledgement.cancel()
                with suppress(asyncio.CancelledError):
                    acknowledgement.exception()

    async def _made_stream(self, client: Client) -> JetStreamContext:
        """Return the context once the stream exists; one that others made is left as it is."""
        stream: JetStreamContext = client.jetstream(timeout=ACK_TIMEOUT_S)
        try:
            await stream.stream_info(STREAM)
        except NotFoundError:
            await stream.add_stream(
                StreamConfig(
                    name=STREAM,
                    description="Recorded events of Stretto, relayed from its log.",
                    subjects=[f"{SUBJECT_PREFIX}>"],
                    storage=StorageType.FILE,
                    discard=DiscardPolicy.OLD,
                    max_age=KEPT_S,
                    max_bytes=KEPT_BYTES_MAX,
                    duplicate_window=DUPLICATE_WINDOW_S,
                    allow_direct=True,
                )
            )
            self._log.info("bus.stream_made", stream=STREAM)
        self._stream = stream
        return stream

    async def connected(self) -> Client:
        """Return the connection, made at the first use. Raises Unavailable."""
        async with self._connecting:
            if self._closed:
                raise Unavailable("the bus is closed")
            if self._client is None:
                self._client = await self._connect()
            if not self._client.is_connected:
                raise Unavailable("the bus cannot be reached: reconnecting")
            return self._client

    async def _connect(self) -> Client:
        client = Client()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    self._url,
                    name="stretto",
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
                    disconnected_cb=self._disconnected,
                    error_cb=self._note,
                    closed_cb=self._ended,
                )
        except LOST as error:
            await client.close()
            raise Unavailable(f"the bus cannot be reached: {said(error)}") from error
        return client

    async def _listen(self, client: Client, buffer: HintBuffer) -> None:
        async def receive(message: Msg) -> None:
            hint = _hint(message)
            if hint is not None and not buffer.put(hint):
                # Not awaited: a drain waits for this very callback.
                self._subscriptions.pop(buffer, None)

        self._subscriptions[buffer] = await client.subscribe(
            SUBJECT_PREFIX + buffer.pattern, cb=receive
        )

    async def _ended(self) -> None:
        """The library gave its connection up for good, as after a refusal by the server."""
        if self._closed or self._client is None or not self._client.is_closed:
            return
        self._log.warning("bus.connection_ended", cause=said(self._client.last_error or OSError()))
        self._client = self._stream = None
        if self._subscriptions:
            self._reopening = asyncio.create_task(self._reopen(), name="bus-reopen")

    async def _reopen(self) -> None:
        """Connect for those who only listen; whoever publishes does so by itself."""
        while True:
            try:
                client = await self.connected()
                for buffer in list(self._subscriptions):
                    await self._listen(client, buffer)
                return
            except (Unavailable, *LOST):
                await asyncio.sleep(REOPEN_WAIT_S)

    async def _disconnected(self) -> None:
        self._broken.set()

    async def _note(self, error: Exception) -> None:
        self._log.debug("bus.trouble", cause=said(error))

    async def _stop(self, buffer: HintBuffer) -> None:
        subscription = self._subscriptions.pop(buffer, None)
        if subscription is not None:
            with suppress(*LOST):
                await subscription.drain()  # type: ignore[no-untyped-call]


def _hint(message: Msg) -> Hint | None:
    """Return what was published by `publish`; None for what somebody else put there."""
    message_id = (message.headers or {}).get(Header.MSG_ID.value, "")
    partition, _, place = message_id.partition(":")
    position, _, again = place.partition(":")
    if not position.isdecimal():
        return None
    subject = message.subject.removeprefix(SUBJECT_PREFIX)
    return Hint(subject, Partition(partition), int(position), message.data, again)


def said(error: BaseException) -> str:
    """Return what went wrong; the library's errors may hold an address, never the token."""
    return str(error) or type(error).__name__
