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

_Places = dict[str, dict[Subscriber, None]]
"""Who wants what: subscribers by a word, each set in the order they came."""

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


class FeedIndex(Generic[Subscriber]):
    """Subscribers by the narrowest of what they want: a stream, else types, else a namespace."""

    def __init__(self) -> None:
        self._everybody: dict[Subscriber, Wanted] = {}
        # Only what somebody wants has a place: what nobody wants must cost nothing.
        self._of_all: _Places[Subscriber] = {}
        self._by_stream: _Places[Subscriber] = {}
        self._by_type: _Places[Subscriber] = {}
        self._by_namespace: _Places[Subscriber] = {}

    def add(self, subscriber: Subscriber, wanted: Wanted) -> None:
        """Give it what it wants from now on."""
        self._everybody[subscriber] = wanted
        places, words = self._places(wanted)
        for word in words:
            places.setdefault(word, {})[subscriber] = None

    def remove(self, subscriber: Subscriber, wanted: Wanted) -> None:
        """Give it nothing more."""
        if self._everybody.pop(subscriber, None) is None:
            return
        places, words = self._places(wanted)
        for word in words:
            del places[word][subscriber]
            if not places[word]:
                del places[word]

    def everybody(self) -> list[Subscriber]:
        """Return all subscribers."""
        return list(self._everybody)

    def takers(self, batch: Sequence[StoredEvent]) -> dict[Subscriber, Sequence[StoredEvent]]:
        """Return who gets which events of a batch; costs nothing for those who get none."""
        found: dict[Subscriber, Sequence[StoredEvent]] = dict.fromkeys(
            self._of_all.get("", ()), batch
        )
        if not (self._by_stream or self._by_type or self._by_namespace):
            return found
        some: dict[Subscriber, list[StoredEvent]] = {}
        for event in batch:
            for subscriber in self._near(event):
                if self._everybody[subscriber].takes(event):
                    some.setdefault(subscriber, []).append(event)
        return {**found, **some}

    def _near(self, event: StoredEvent) -> Iterator[Subscriber]:
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

    def _places(self, wanted: Wanted) -> tuple[_Places[Subscriber], Collection[str]]:
        if wanted.stream:
            return self._by_stream, (wanted.stream,)
        if wanted.types:
            return self._by_type, wanted.types
        if wanted.namespace:
            return self._by_namespace, (wanted.namespace,)
        return self._of_all, ("",)


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
