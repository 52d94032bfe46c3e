"""EventLogService: reads, follows and verifies the record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from stretto.common.v1.lease_pb2 import Position
from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto.eventlog.v1.event_log_service_pb2_grpc import EventLogServiceServicer
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.errors import Exhausted, NotFound
from stretto_core.eventlog.chain import ChainVerifier
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import Page, StoredEvent
from stretto_core.ids import StreamId

from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_cursor, encode_cursor, not_ours

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
PAGE_BYTES_MAX = 3 * 1024 * 1024
SUBSCRIBE_EVENTS_MAX = 500
SUBSCRIBERS_MAX = 256
STREAM_CHARACTERS_MAX = 200
VERIFY_PAGE_EVENTS = 5_000


class TooManySubscribers(Exhausted):
    """The kernel serves its most subscribers."""

    reason = "OVERLOADED"


class EventLogServicer(EventLogServiceServicer):
    """Serves one partition's log; needs no ownership of it."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._subscriber_count = 0

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
        return pb.ReadStreamResponse(events=self._show(page.events, request.form), more=page.more)

    async def ReadAll(self, request: pb.ReadAllRequest, context: Any) -> pb.ReadAllResponse:
        """See the contract."""
        fields = Fields()
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        fields.refuse("the request")
        after = self._after(request.cursor)
        page = await self._log.read_all(
            after_position=after, limit=size, bytes_max=_bytes_max(request.form)
        )
        reached = page.events[-1].position if page.events else after
        return pb.ReadAllResponse(
            events=self._show(page.events, request.form),
            cursor=self._cursor(reached),
            more=page.more,
        )

    async def Subscribe(
        self, request: pb.SubscribeRequest, context: Any
    ) -> AsyncIterator[pb.SubscribeResponse]:
        """See the contract."""
        fields = Fields()
        stream = _stream(fields, request.stream, required=False)
        fields.refuse("the request")
        after = self._after(request.cursor)
        if self._subscriber_count >= SUBSCRIBERS_MAX:
            raise TooManySubscribers("too many subscribers", subscribers_max=str(SUBSCRIBERS_MAX))
        self._subscriber_count += 1
        try:
            async with aclosing(self._log.subscribe(after_position=after)) as batches:
                async for batch in batches:
                    for events, reached in _parts(batch, stream, _bytes_max(request.form)):
                        shown = self._show(events, request.form)
                        yield pb.SubscribeResponse(events=shown, cursor=self._cursor(reached))
        finally:
            self._subscriber_count -= 1

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
            for event in page.events:
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

    def _show(self, events: Sequence[StoredEvent], form: pb.EventForm) -> list[pb.LoggedEvent]:
        return [_logged(self._log.partition, event, form) for event in events]

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


def _parts(
    batch: Sequence[StoredEvent], stream: StreamId, bytes_max: int
) -> list[tuple[list[StoredEvent], int]]:
    """Cut a batch to the size of a message; the cursor moves on though nothing matches."""
    parts: list[tuple[list[StoredEvent], int]] = []
    events: list[StoredEvent] = []
    bytes_count = 0
    for event in batch:
        if stream and event.stream != stream:
            continue
        if events and (
            len(events) >= SUBSCRIBE_EVENTS_MAX or bytes_count + len(event.stored_bytes) > bytes_max
        ):
            parts.append((events, events[-1].position))
            events, bytes_count = [], 0
        events.append(event)
        bytes_count += len(event.stored_bytes)
    parts.append((events, batch[-1].position))
    return parts


def _logged(partition: str, event: StoredEvent, form: pb.EventForm) -> pb.LoggedEvent:
    recorded = RecordedEvent.FromString(event.stored_bytes)
    logged = pb.LoggedEvent(
        position=Position(partition=partition, number=event.position), event=recorded
    )
    if form.stored_bytes:
        logged.stored_bytes = event.stored_bytes
    if form.body_json:
        logged.body_json = _body_json(recorded)
    return logged


def _body_json(recorded: RecordedEvent) -> str:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(recorded.type)
    body = message_factory.GetMessageClass(descriptor).FromString(recorded.body)
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
