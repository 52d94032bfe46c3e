"""Load, decide, append, answer: the one way every call on a stream goes.

A question is decided on the stream as decided so far and answered only when that version is
committed. When it is dropped instead, the question is asked again on the fresh fold, a bounded
number of times.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from stretto_core.errors import Refusal

from stretto_kernel.app.fact_writer import DECIDE_AGAIN_MAX, FactWriter, StoreUnsettled
from stretto_kernel.app.hosted_stream import DecidedAgain, HostedStream

Answer = TypeVar("Answer")
Hosted = TypeVar("Hosted", bound=HostedStream[Any])
Hosted_contra = TypeVar("Hosted_contra", bound=HostedStream[Any], contravariant=True)


class Host(Protocol[Hosted_contra]):
    """Who holds the streams that questions are asked of."""

    facts: FactWriter

    def refused_empty(self, hosted: Hosted_contra, /) -> bool:
        """Whether nothing was there to decide a refused question by: it need not wait then."""
        ...


class Decided(NamedTuple, Generic[Answer]):
    """What a question came to.

    answer: made at once, since the stream goes on before it may leave.
    own_facts: whether the question made new facts true.
    """

    answer: Answer
    own_facts: bool


class Answered(NamedTuple, Generic[Answer]):
    """A committed answer, and the position that holds what it is about."""

    answer: Answer
    position: int


class Asked(NamedTuple, Generic[Answer]):
    """A question that was decided; its answer, or the refusal, may leave once that is committed."""

    hosted: HostedStream[Any]
    version: int
    decided: Decided[Answer] | Refusal


Finder = Callable[[int], Awaitable[Hosted]]
"""Finds the stream of a question; gets how often the question was dropped before."""


def put(
    host: Host[Hosted], hosted: Hosted, question: Callable[[Hosted], Decided[Answer]]
) -> Asked[Answer]:
    """Ask the question now. Raises the refusal that nothing needs to wait for."""
    decided: Decided[Answer] | Refusal
    try:
        decided = question(hosted)
    except Refusal as refused:
        if host.refused_empty(hosted):
            raise
        decided = refused
    return Asked(hosted, hosted.decided, decided)


async def answered(facts: FactWriter, asked: Asked[Answer]) -> Answered[Answer]:
    """Return the answer once it is committed. Raises the refusal, once that is; DecidedAgain."""
    hosted, version, decided = asked
    own_facts = not isinstance(decided, Refusal) and decided.own_facts
    await facts.answered(hosted, version, own_facts=own_facts)
    if isinstance(decided, Refusal):
        raise decided
    return Answered(decided.answer, hosted.position)


async def ask(
    host: Host[Hosted],
    find: Finder[Hosted],
    question: Callable[[Hosted], Decided[Answer]],
    *,
    dropped_count: int = 0,
) -> Answered[Answer]:
    """Find the stream, ask the question, and answer once the answer is committed.

    dropped_count: how often it was dropped already. Raises what either refuses, StoreUnsettled.
    """
    for dropped in range(dropped_count, DECIDE_AGAIN_MAX + 1):
        hosted = await find(dropped)
        with suppress(DecidedAgain):
            return await answered(host.facts, put(host, hosted, question))
    raise StoreUnsettled("the facts could not be stored")
