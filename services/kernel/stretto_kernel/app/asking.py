"""Load, decide, append, answer: the one way every call on a run goes.

A question is decided on the run as decided so far and answered only when that version is committed.
When it is dropped instead, the question is asked again on the fresh fold, a bounded number of
times.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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


async def ask(
    host: StreamHost,
    find: Callable[[int], Awaitable[HostedRun]],
    question: Callable[[HostedRun], Decided[Answer]],
) -> Answered[Answer]:
    """Find the run, ask the question, and answer once the answer is committed.

    find: gets how often the question was dropped before. Raises what either refuses,
    StoreUnsettled.
    """
    for dropped_count in range(DECIDE_AGAIN_MAX + 1):
        run = await find(dropped_count)
        refusal: Refusal | None = None
        decided: Decided[Answer] | None = None
        try:
            decided = question(run)
        except Refusal as refused:
            if run.decided == 0:
                host.forget_empty(run)
                raise  # Nothing was there to decide it by.
            refusal = refused
        own_facts = decided is not None and decided.own_facts
        try:
            await host.answered(run, run.decided, own_facts=own_facts)
        except DecidedAgain:
            continue
        if decided is None:
            assert refusal is not None, "a question ends with an answer or a refusal"
            raise refusal
        return Answered(decided.answer, run.position)
    raise StoreUnsettled("the facts could not be stored")
