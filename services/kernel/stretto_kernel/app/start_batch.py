"""Many starts in one call: decided one after another, answered together.

Each is independent and answered as `RunCalls.start_run` would, in the order asked. No task of the
loop's for each: only a start that is large or whose id must be looked up first goes by itself, and
all of the latter are looked up by one statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from stretto.run.v1 import run_pb2
from stretto_core.errors import Refusal

from stretto_kernel.app.asking import Answered, Asked
from stretto_kernel.app.run_calls import RunCalls, RunStart

TASKS_PER_STRETCH = 40
"""Others run after starts with so many tasks were decided: a stretch on the loop is bounded."""


class _Put(NamedTuple):
    start: RunStart
    asked: Asked[run_pb2.Run]


Outcome = Answered[run_pb2.Run] | Refusal
_Pending = _Put | asyncio.Task[Answered[run_pb2.Run]] | Refusal


async def start_runs(calls: RunCalls, starts: AsyncIterator[RunStart | Refusal]) -> list[Outcome]:
    """Return what became of each start, in order; a Refusal among them stands for itself.

    starts: read one by one as they are decided, so that they may be parsed on the way.
    """
    pending: list[_Pending] = []
    try:
        tasks = 0
        async for start in starts:
            pending.append(_put(calls, start))
            # What a refused one took to read is not known any more: it may have been large.
            tasks += (
                TASKS_PER_STRETCH
                if isinstance(start, Refusal)
                else 1 + len(start.command.graph.tasks)
            )
            if tasks >= TASKS_PER_STRETCH:
                tasks = 0
                await asyncio.sleep(0)
        return [await _outcome(calls, each) for each in pending]
    finally:
        for each in pending:
            if isinstance(each, asyncio.Task):
                each.cancel()


def _put(calls: RunCalls, start: RunStart | Refusal) -> _Pending:
    if isinstance(start, Refusal):
        return start
    try:
        asked = calls.put_start(start)
    except Refusal as refusal:
        return refusal
    return asyncio.create_task(calls.start_run(*start)) if asked is None else _Put(start, asked)


async def _outcome(calls: RunCalls, pending: _Pending) -> Outcome:
    try:
        match pending:
            case Refusal():
                return pending
            case _Put(start, asked):
                return await calls.started(start, asked)
            case task:
                return await task
    except Refusal as refusal:
        return refusal
