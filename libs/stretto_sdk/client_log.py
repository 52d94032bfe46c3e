"""How the client reads the event log: pages of what is recorded, what comes, and the chain's check.

Each cursor is moved on only after its message was handed out: a break in between repeats nothing
and loses nothing. An event's own cursor leads behind it only when it closes its message; before, it
leads to the message's first event: who stops in the middle reads some events again and misses none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from stretto.eventlog.v1 import event_log_service_pb2 as pb

from stretto_sdk.client_calls import Calls
from stretto_sdk.runs import ChainCheck, Event, event_of

_PAGE_SIZE = 1_000
_FORM = pb.EventForm(body_json=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events are read: all that it says; what is empty says nothing.

    stream: one only, after a version. cursor: of the whole log. types: full names or their last
    parts, whatever the case. namespace: without the collection, "default".
    """

    stream: str = ""
    after_version: int = 0
    cursor: str = ""
    types: Collection[str] = ()
    namespace: str = ""

    def takes(self, event: pb.LoggedEvent) -> bool:
        """Whether an event that was read is of the types and the namespace."""
        full = event.event.type.lower()
        words = {word.lower() for word in self.types}
        return (not words or not words.isdisjoint((full, full.rpartition(".")[2]))) and (
            not self.namespace or event.event.namespace == self.namespace
        )


async def recorded_events(calls: Calls, wanted: Wanted) -> AsyncGenerator[Event, None]:
    """Yield what is recorded now."""
    more = True
    if wanted.stream:
        of_one = pb.ReadStreamRequest(
            stream=wanted.stream,
            after_version=wanted.after_version,
            page_size=_PAGE_SIZE,
            form=_FORM,
        )
        while more:
            page = await calls.unary(calls.log.ReadStream, of_one)
            for each in filter(wanted.takes, page.events):
                yield event_of(each)
            if page.events:
                of_one.after_version = page.events[-1].event.version
            more = page.more
        return
    of_all = pb.ReadAllRequest(cursor=wanted.cursor, page_size=_PAGE_SIZE, form=_FORM)
    while more:
        answer = await calls.unary(calls.log.ReadAll, of_all)
        found = list(filter(wanted.takes, answer.events))
        for event in _events_of(found, before=of_all.cursor, after=answer.cursor):
            yield event
        of_all.cursor = answer.cursor
        more = answer.more


async def follow_events(calls: Calls, wanted: Wanted) -> AsyncGenerator[Event, None]:
    """Yield what is recorded and then what comes, without end, each event once.

    After a break, or when this reader was cut off for being slow, it goes on where it was.
    """
    request = pb.SubscribeRequest(
        stream=wanted.stream,
        after_version=wanted.after_version,
        cursor=wanted.cursor,
        types=wanted.types,
        namespace=wanted.namespace,
        form=_FORM,
    )
    async with aclosing(calls.stream(calls.log.Subscribe, request)) as answers:
        async for answer in answers:
            for event in _events_of(answer.events, before=request.cursor, after=answer.cursor):
                yield event
            request.cursor = answer.cursor
            if wanted.stream and answer.events:
                request.after_version = answer.events[-1].event.version


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
