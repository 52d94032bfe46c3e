"""Load, decide, append, answer: the one way every call on a run goes.

A question is decided on the run as decided so far and answered only when that version is committed.
When it is dropped instead, the question is asked again on the fresh fold, a bounded number of
times.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from stretto_core.errors import Refusal

from stretto_kernel.app.hosted_run import DecidedAgain, HostedRun
from stretto_kernel.app.stream_host import DECIDE_AGAIN_MAX, StoreUnsettled, StreamHost

Answer = TypeVar("Answer")


class Decided(NamedTuple, Generic[Answer]):
    """What a question came to.

    answer: made at once, since the run goes on before it may leave.
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

    run: HostedRun
    version: int
    decided: Decided[Answer] | Refusal


Finder = Callable[[int], Awaitable[HostedRun]]
"""Finds the run of a question; gets how often the question was dropped before."""


def put(
    host: StreamHost, run: HostedRun, question: Callable[[HostedRun], Decided[Answer]]
) -> Asked[Answer]:
    """Ask the question now. Raises the refusal of a run without facts: nothing waits for that."""
    decided: Decided[Answer] | Refusal
    try:
        decided = question(run)
    except Refusal as refused:
        if run.decided == 0:
            host.forget_empty(run)
            raise  # Nothing was there to decide it by.
        decided = refused
    return Asked(run, run.decided, decided)


async def answered(host: StreamHost, asked: Asked[Answer]) -> Answered[Answer]:
    """Return the answer once it is committed. Raises the refusal, once that is; DecidedAgain."""
    run, version, decided = asked
    own_facts = not isinstance(decided, Refusal) and decided.own_facts
    await host.answered(run, version, own_facts=own_facts)
    if isinstance(decided, Refusal):
        raise decided
    return Answered(decided.answer, run.position)


async def ask(
    host: StreamHost,
    find: Finder,
    question: Callable[[HostedRun], Decided[Answer]],
    *,
    dropped_count: int = 0,
) -> Answered[Answer]:
    """Find the run, ask the question, and answer once the answer is committed.

    dropped_count: how often it was dropped already. Raises what either refuses, StoreUnsettled.
    """
    for dropped in range(dropped_count, DECIDE_AGAIN_MAX + 1):
        run = await find(dropped)
        with suppress(DecidedAgain):
            return await answered(host, put(host, run, question))
    raise StoreUnsettled("the facts could not be stored")
