"""Who wants which events: looked up by what an event is, never by asking everybody. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Namespace, StreamId

Subscriber = TypeVar("Subscriber")

ANY_STREAM = StreamId("")
ANY_NAMESPACE = Namespace("")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscriber wants: events that are all it says; what is empty says nothing.

    types: full names or their last parts, in lower case.
    """

    stream: StreamId = ANY_STREAM
    types: frozenset[str] = frozenset()
    namespace: Namespace = ANY_NAMESPACE

    def takes(self, event: StoredEvent) -> bool:
        """Whether the event is wanted."""
        return (
            (not self.stream or event.stream == self.stream)
            and (not self.types or not self.types.isdisjoint(type_words(event.type)))
            and (not self.namespace or namespace_of(event) in {self.namespace, None})
        )


EVERYTHING = Wanted()
_Places = dict[str, dict[Wanted, None]]
"""What is wanted, by a word of it, each set in the order it was first wanted."""


class FeedIndex(Generic[Subscriber]):
    """What is wanted, by the narrowest of it: a stream, else types, else a namespace; and by whom.

    An event is judged once for all who want the same.
    """

    def __init__(self) -> None:
        self._subscribers: dict[Wanted, dict[Subscriber, None]] = {}
        # Only what somebody wants has a place: what nobody wants must cost nothing.
        self._by_stream: _Places = {}
        self._by_type: _Places = {}
        self._by_namespace: _Places = {}

    def add(self, subscriber: Subscriber, wanted: Wanted) -> None:
        """Give it what it wants from now on."""
        subscribers = self._subscribers.setdefault(wanted, {})
        if not subscribers:
            places, words = self._places(wanted)
            for word in words:
                places.setdefault(word, {})[wanted] = None
        subscribers[subscriber] = None

    def remove(self, subscriber: Subscriber, wanted: Wanted) -> None:
        """Give it nothing more."""
        subscribers = self._subscribers.get(wanted, {})
        if subscriber not in subscribers:
            return
        del subscribers[subscriber]
        if subscribers:
            return
        del self._subscribers[wanted]
        places, words = self._places(wanted)
        for word in words:
            del places[word][wanted]
            if not places[word]:
                del places[word]

    def everybody(self) -> list[Subscriber]:
        """Return all subscribers."""
        return [each for subscribers in self._subscribers.values() for each in subscribers]

    def takers(
        self, batch: Sequence[StoredEvent]
    ) -> list[tuple[Sequence[StoredEvent], list[Subscriber]]]:
        """Return events of a batch with all who get just these; what nobody gets costs nothing."""
        found: dict[Wanted, list[StoredEvent]] = {}
        if self._by_stream or self._by_type or self._by_namespace:
            for event in batch:
                for wanted in self._near(event):
                    if wanted.takes(event):
                        found.setdefault(wanted, []).append(event)
        taken = [(events, list(self._subscribers[wanted])) for wanted, events in found.items()]
        of_all = self._subscribers.get(EVERYTHING)
        return [(batch, list(of_all)), *taken] if of_all else [*taken]

    def _near(self, event: StoredEvent) -> Iterator[Wanted]:
        yield from self._by_stream.get(event.stream, ())
        if self._by_type:
            full, last = type_words(event.type)
            of_full = self._by_type.get(full, {})
            yield from of_full
            yield from (each for each in self._by_type.get(last, ()) if each not in of_full)
        if self._by_namespace:
            namespace = namespace_of(event)
            if namespace is None:
                yield from (each for some in self._by_namespace.values() for each in some)
            else:
                yield from self._by_namespace.get(namespace, ())

    def _places(self, wanted: Wanted) -> tuple[_Places, Collection[str]]:
        if wanted.stream:
            return self._by_stream, (wanted.stream,)
        if wanted.types:
            return self._by_type, wanted.types
        return self._by_namespace, (wanted.namespace,) if wanted.namespace else ()


@lru_cache(maxsize=1_024)
def type_words(type_name: str) -> tuple[str, str]:
    """Return a type's full name and its last part, in lower case."""
    full = type_name.lower()
    return full, full.rpartition(".")[2]


def namespace_of(event: StoredEvent) -> Namespace | None:
    """Return the tenant an event belongs to; None when it cannot be read: then all must hear it."""
    try:
        return Namespace(RecordedEvent.FromString(event.stored_bytes).namespace)
    except DecodeError:
        return None
