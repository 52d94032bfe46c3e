"""How the client reads the event log: pages of what is recorded, what comes, and the chain's check.

Each cursor is moved on only after its message was handed out: a break in between repeats nothing
and loses nothing. An event's own cursor leads behind it only when it closes its message; before, it
leads to the message's first event: who stops in the middle reads some events again and misses none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from stretto.eventlog.v1 import event_log_service_pb2 as pb

from stretto_sdk.client_calls import Calls
from stretto_sdk.runs import ChainCheck, Event, event_of

_PAGE_SIZE = 1_000
_FORM = pb.EventForm(body_json=True)


async def recorded_events(
    calls: Calls, *, stream: str, cursor: str, after_version: int = 0
) -> AsyncGenerator[Event, None]:
    """Yield what is recorded now, of one stream after a version ("" = all, after `cursor`)."""
    more = True
    if stream:
        of_one = pb.ReadStreamRequest(
            stream=stream, after_version=after_version, page_size=_PAGE_SIZE, form=_FORM
        )
        while more:
            page = await calls.unary(calls.log.ReadStream, of_one)
            for each in page.events:
                yield event_of(each)
                of_one.after_version = each.event.version
            more = page.more
        return
    of_all = pb.ReadAllRequest(cursor=cursor, page_size=_PAGE_SIZE, form=_FORM)
    while more:
        answer = await calls.unary(calls.log.ReadAll, of_all)
        for event in _events_of(answer.events, before=of_all.cursor, after=answer.cursor):
            yield event
        of_all.cursor = answer.cursor
        more = answer.more


async def follow_events(
    calls: Calls, *, stream: str, cursor: str, after_version: int = 0
) -> AsyncGenerator[Event, None]:
    """Yield what is recorded after `cursor` and then what comes, without end.

    after_version: of one stream, those up to it are passed over.
    """
    request = pb.SubscribeRequest(stream=stream, cursor=cursor, form=_FORM)
    async with aclosing(calls.stream(calls.log.Subscribe, request)) as answers:
        async for answer in answers:
            for event in _events_of(answer.events, before=request.cursor, after=answer.cursor):
                if not stream or event.version > after_version:
                    yield event
            request.cursor = answer.cursor


def _events_of(events: Sequence[pb.LoggedEvent], *, before: str, after: str) -> Iterator[Event]:
    for number, each in enumerate(events, start=1):
        yield event_of(each, after if number == len(events) else before)


async def verify_chain(calls: Calls, *, stream: str) -> ChainCheck:
    """Return what the kernel's check of the hash chain found, of one stream ("" = all)."""
    request = pb.VerifyChainRequest(stream=stream)
    answer = pb.VerifyChainResponse()
    async with aclosing(calls.stream(calls.log.VerifyChain, request)) as answers:
        async for answer in answers:
            if answer.whole or answer.HasField("broken"):
                break
    link = answer.broken
    if answer.HasField("broken"):
        broken = f"{link.stream} version {link.version}: {link.description}"
    else:
        broken = "" if answer.whole else "the check ended without a result"
    return ChainCheck(
        whole=answer.whole,
        event_count=answer.event_count,
        stream_count=answer.stream_count,
        broken=broken,
    )
