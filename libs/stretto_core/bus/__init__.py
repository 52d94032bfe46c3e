"""The bus port: wake-ups and fan-out by subject. Everything on it is a hint, never the record.

A hint says "look at the log up to here"; whoever misses one finds the same in the log, so a bus may
lose, repeat and delay. What an adapter must hold is in `Bus` and `Subscription` and is checked by
one contract suite for all. Subjects are words of letters, digits, `-` and `_`, joined by dots; in a
pattern `*` stands for one word and a last `>` for one or more (as in NATS).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stretto_core.errors import Exhausted
from stretto_core.ids import Partition

BODY_BYTES_MAX = 1 << 20
SUBJECT_CHARS_MAX = 255
BUFFER_COUNT_DEFAULT = 1_024
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PATTERN = re.compile(r"(([A-Za-z0-9_-]+|\*)\.)*([A-Za-z0-9_-]+|\*|>)")


class SubscriberTooSlow(Exhausted):
    """More came than the buffer holds: read the log from your position, then subscribe again."""

    reason = "SUBSCRIBER_TOO_SLOW"


@dataclass(frozen=True, slots=True)
class Hint:
    """What travels: the log of `partition` has something of `subject` up to `position`.

    A position is published under one subject.
    body: what a subscriber may use without reading the log; at most 1 MiB, may be empty.
    again: tells a repeat that is meant from one that a broker drops; "" = it is no such repeat.
    """

    subject: str
    partition: Partition
    position: int
    body: bytes = b""
    again: str = ""

    @property
    def message_id(self) -> str:
        """The same for the same fact, so that a broker drops repeats that are not meant."""
        place = f"{self.partition}:{self.position}"
        return f"{place}:{self.again}" if self.again else place


class Subscription(Protocol):
    """What matches one pattern, published after `subscribe` returned and before `close`."""

    def __aiter__(self) -> AsyncIterator[Hint]:
        """Yield hints, those of one publisher and partition in the order they were published.

        Raises SubscriberTooSlow after what the buffer held, and is closed then.
        """
        ...

    async def close(self) -> None:
        """End the iteration, after what was buffered. Repeating is harmless."""
        ...


class Bus(Protocol):
    """Publishes to, and subscribes by, subject; at least once while nothing breaks."""

    async def publish(self, hints: Sequence[Hint]) -> None:
        """Hand hints over; never waits for a subscriber. Raises ValueError for a bad subject.

        Returns once the bus has taken all. Raises Unavailable when it may not have: whoever must
        not lose any hands all of them over again, before any later one of the same subjects.
        """
        ...

    async def subscribe(
        self, pattern: str, *, buffer_count_max: int = BUFFER_COUNT_DEFAULT
    ) -> Subscription:
        """Return what comes from now on. Raises ValueError for a bad pattern, Unavailable."""
        ...

    async def close(self) -> None:
        """Close every subscription. Repeating is harmless; publishing afterwards is Unavailable."""
        ...


def check_hint(hint: Hint) -> None:
    """Raise ValueError for a hint that no adapter may carry."""
    if len(hint.subject) > SUBJECT_CHARS_MAX or not _SUBJECT.fullmatch(hint.subject):
        raise ValueError(f"{hint.subject!r} is not a subject")
    if len(hint.body) > BODY_BYTES_MAX:
        raise ValueError(f"a body of {len(hint.body)} bytes: refer to the log instead")


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a text that is not a pattern of subjects."""
    if len(pattern) > SUBJECT_CHARS_MAX or not _PATTERN.fullmatch(pattern):
        raise ValueError(f"{pattern!r} is not a pattern of subjects")


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a well-formed pattern covers a well-formed subject."""
    wanted, words = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(words) <= len(wanted):
            return False
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(
        want in ("*", word) for want, word in zip(wanted, words, strict=True)
    )
