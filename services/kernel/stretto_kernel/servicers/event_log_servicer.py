"""EventLogService: reads, follows and verifies the record.

Bodies are decrypted for the caller as they are shown; stored bytes are given as they lie.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message
from stretto.common.v1.lease_pb2 import Position
from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto.eventlog.v1.event_log_service_pb2_grpc import EventLogServiceServicer
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto.namespace.v1 import events_pb2 as namespace_events
from stretto.queue.v1 import events_pb2 as queue_events
from stretto.run.v1 import events_pb2 as run_events
from stretto_core.bus import SubscriberTooSlow
from stretto_core.errors import NotFound
from stretto_core.eventlog.chain import ChainVerifier, UnreadableEvent
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import Page, StoredEvent
from stretto_core.ids import Namespace, StreamId

from stretto_kernel.app.feed_index import Wanted
from stretto_kernel.app.log_feed import LogFeed, Part
from stretto_kernel.app.moments import require_within
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.audit_methods import AuditMethods
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_cursor, encode_cursor, not_ours

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
PAGE_BYTES_MAX = 3 * 1024 * 1024
SUBSCRIBE_EVENTS_MAX = 500
TYPES_MAX = 32
STREAM_CHARACTERS_MAX = 200
VERIFY_PAGE_EVENTS = 5_000
SHOWN_PER_STRETCH = 50
VERIFIED_PER_STRETCH = 500
"""Others run after so many events: a stretch on the loop is bounded."""
_EVENTS = [
    LogSealed.DESCRIPTOR,
    *(
        message
        for contract in (run_events, queue_events, namespace_events)
        for message in contract.DESCRIPTOR.message_types_by_name.values()
    ),
]
_TYPE_WORDS = {word.lower() for event in _EVENTS for word in (event.name, event.full_name)}
"""What a type is called in a request: a word that none is called would be waited for in vain."""
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class EventLogServicer(AuditMethods, EventLogServiceServicer):
    """Serves one partition's log; needs no ownership of it, but to seal."""

    def __init__(self, log: EventLog, feed: LogFeed, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._log = log
        self._feed = feed
        self._keys = kernel.ports.keys

    async def ReadStream(
        self, request: pb.ReadStreamRequest, context: Any
    ) -> pb.ReadStreamResponse:
        """See the contract."""
        fields = Fields()
        stream = _stream(fields, request.stream, required=True)
        after = fields.count("after_version", request.after_version)
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        fields.refuse("the request")
        page = await self._log.read_stream(
            stream, after_version=after, limit=size, bytes_max=_bytes_max(request.form)
        )
        if not page.events and not await self._log.existing_streams([stream]):
            raise NotFound("no such stream", stream=stream)
        shown = await self._show_some(page.events, request.form)
        return pb.ReadStreamResponse(events=shown, more=page.more or len(shown) < len(page.events))

    async def ReadAll(self, request: pb.ReadAllRequest, context: Any) -> pb.ReadAllResponse:
        """See the contract."""
        fields = Fields()
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        fields.refuse("the request")
        after = self._after(request.cursor)
        page = await self._log.read_all(
            after_position=after, limit=size, bytes_max=_bytes_max(request.form)
        )
        if after and not page.events:
            await require_within(self._log, after)
        shown = await self._show_some(page.events, request.form)
        return pb.ReadAllResponse(
            events=shown,
            cursor=self._cursor(page.events[len(shown) - 1].position if shown else after),
            more=page.more or len(shown) < len(page.events),
        )

    async def Subscribe(
        self, request: pb.SubscribeRequest, context: Any
    ) -> AsyncIterator[pb.SubscribeResponse]:
        """See the contract."""
        fields = Fields()
        wanted = _wanted(fields, request)
        after_version = fields.count("after_version", request.after_version)
        if after_version and not wanted.stream:
            fields.wrong("after_version", "needs a stream")
        fields.refuse("the request")
        reached = self._after(request.cursor)
        parts = self._feed.follow(wanted, after_position=reached, after_version=after_version)
        async with aclosing(parts):
            try:
                async for part in parts:
                    for events, until in _messages(part, _bytes_max(request.form)):
                        reached = until
                        shown = await self._show(events, request.form)
                        yield pb.SubscribeResponse(events=shown, cursor=self._cursor(until))
                        if len(shown) < len(events):
                            raise self._damaged(events[len(shown)])
            except SubscriberTooSlow as slow:
                cursor = self._cursor(reached)
                raise SubscriberTooSlow(slow.message, cursor=cursor) from None

    async def VerifyChain(
        self, request: pb.VerifyChainRequest, context: Any
    ) -> AsyncIterator[pb.VerifyChainResponse]:
        """See the contract."""
        fields = Fields()
        stream = _stream(fields, request.stream, required=False)
        fields.refuse("the request")
        if stream and not await self._log.existing_streams([stream]):
            raise NotFound("no such stream", stream=stream)
        verifier = ChainVerifier()
        async for page in self._pages(stream):
            for index, event in enumerate(page.events, start=1):
                if index % VERIFIED_PER_STRETCH == 0:
                    await asyncio.sleep(0)
                if (broken := verifier.check(event)) is not None:
                    link = pb.BrokenLink(
                        stream=broken.stream,
                        version=broken.version,
                        description=broken.description,
                    )
                    yield _progress(verifier, broken=link)
                    return
            yield _progress(verifier, whole=not page.more)

    async def _pages(self, stream: StreamId) -> AsyncIterator[Page]:
        version = position = 0
        more = True
        while more:
            if stream:
                page = await self._log.read_stream(
                    stream, after_version=version, limit=VERIFY_PAGE_EVENTS
                )
            else:
                page = await self._log.read_all(after_position=position, limit=VERIFY_PAGE_EVENTS)
            if page.events:
                version, position = page.events[-1].version, page.events[-1].position
            more = page.more
            yield page

    async def _show(
        self, events: Sequence[StoredEvent], form: pb.EventForm
    ) -> list[pb.LoggedEvent]:
        """Return the events up to the first that is damaged."""
        shown: list[pb.LoggedEvent] = []
        encrypted: list[tuple[pb.LoggedEvent, Message]] = []
        with suppress(DecodeError, KeyError):
            for event in events:
                logged = _logged(self._log.partition, event, form)
                if logged.event.key_id:
                    encrypted.append((logged, _body(logged.event)))
                shown.append(logged)
                if len(shown) % SHOWN_PER_STRETCH == 0:
                    await asyncio.sleep(0)
        if encrypted:
            await self._keys.reveal([body for _, body in encrypted])
        for index, (logged, body) in enumerate(encrypted, start=1):
            logged.event.body = body.SerializeToString(deterministic=True)
            if form.body_json:
                logged.body_json = _json(body)
            if index % SHOWN_PER_STRETCH == 0:
                await asyncio.sleep(0)
        return shown

    async def _show_some(
        self, events: Sequence[StoredEvent], form: pb.EventForm
    ) -> list[pb.LoggedEvent]:
        """Return the events up to the first damaged one. Raises UnreadableEvent if that is all."""
        shown = await self._show(events, form)
        if events and not shown:
            raise self._damaged(events[0])
        return shown

    def _damaged(self, event: StoredEvent) -> UnreadableEvent:
        return UnreadableEvent(
            f"the event at {event.position} cannot be read",
            position=str(event.position),
            partition=self._log.partition,
            stream=event.stream,
            version=str(event.version),
        )

    def _after(self, cursor: str) -> int:
        positions = decode_cursor("cursor", cursor)
        if positions.keys() - {self._log.partition}:
            raise not_ours("cursor")
        return positions.get(self._log.partition, 0)

    def _cursor(self, position: int) -> str:
        return encode_cursor({self._log.partition: position})


def _stream(fields: Fields, text: str, *, required: bool) -> StreamId:
    if required and not text:
        fields.wrong("stream", "must name a stream")
    return StreamId(fields.text("stream", text, characters_max=STREAM_CHARACTERS_MAX))


def _bytes_max(form: pb.EventForm) -> int:
    """How many stored bytes an answer shows: JSON takes up to twice the bytes it is made from."""
    return PAGE_BYTES_MAX // (1 + form.stored_bytes + 2 * form.body_json)


def _wanted(fields: Fields, request: pb.SubscribeRequest) -> Wanted:
    if len(request.types) > TYPES_MAX:
        fields.wrong("types", f"has more than {TYPES_MAX}")
    for index, word in enumerate(request.types):
        if word.lower() not in _TYPE_WORDS:
            fields.wrong(f"types[{index}]", "must be the name of a type of events")
    if request.namespace and not _NAMESPACE.fullmatch(request.namespace):
        fields.wrong("namespace", "must be 1-63 characters of [a-z0-9-]")
    return Wanted(
        stream=_stream(fields, request.stream, required=False),
        types=frozenset(word.lower() for word in request.types),
        namespace=Namespace(request.namespace),
    )


def _messages(part: Part, bytes_max: int) -> list[tuple[list[StoredEvent], int]]:
    """Cut a part to the size of messages; the cursor moves on though nothing matches."""
    messages: list[tuple[list[StoredEvent], int]] = []
    events: list[StoredEvent] = []
    bytes_count = 0
    for event in part.events:
        if events and (
            len(events) >= SUBSCRIBE_EVENTS_MAX or bytes_count + len(event.stored_bytes) > bytes_max
        ):
            messages.append((events, events[-1].position))
            events, bytes_count = [], 0
        events.append(event)
        bytes_count += len(event.stored_bytes)
    messages.append((events, part.reached))
    return messages


def _logged(partition: str, event: StoredEvent, form: pb.EventForm) -> pb.LoggedEvent:
    """Raises DecodeError, KeyError (of a type unknown here) for what cannot be shown."""
    recorded = RecordedEvent.FromString(event.stored_bytes)
    logged = pb.LoggedEvent(
        position=Position(partition=partition, number=event.position), event=recorded
    )
    if form.stored_bytes:
        logged.stored_bytes = event.stored_bytes
    if form.body_json and not recorded.key_id:
        logged.body_json = _json(_body(recorded))
    return logged


def _body(recorded: RecordedEvent) -> Message:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(recorded.type)
    return message_factory.GetMessageClass(descriptor).FromString(recorded.body)


def _json(body: Message) -> str:
    return json_format.MessageToJson(body, indent=None)


def _progress(
    verifier: ChainVerifier, *, whole: bool = False, broken: pb.BrokenLink | None = None
) -> pb.VerifyChainResponse:
    return pb.VerifyChainResponse(
        event_count=verifier.event_count,
        stream_count=verifier.stream_count,
        whole=whole,
        broken=broken,
    )
