"""Following a run: what it is, then each change, until it has ended.

Changes are coalesced: a follower hears at most ten times a second, but of the end at once, and
nothing that is not committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import NamedTuple

from stretto.run.v1 import run_pb2
from stretto_core.clock import Clock
from stretto_core.ids import Namespace, RunId, TaskName

from stretto_kernel.app.hosted_run import HostedRun, RunWatch
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.app.run_calls import RunCalls
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.domain.run import Touched
from stretto_kernel.domain.run.resource import to_run

INTERVAL_S = 0.1
TASKS_PER_CHANGE_MAX = 500
TASKS_PER_STRETCH = 200
"""Others run after so many tasks were shown: a stretch on the loop is bounded."""


class RunChange(NamedTuple):
    """The run at a version, and tasks that changed since the message before."""

    run: run_pb2.Run
    tasks: list[run_pb2.Task]
    version: int
    ended: bool


async def watch_run(
    host: StreamHost,
    calls: RunCalls,
    clock: Clock,
    *,
    namespace: Namespace,
    run_id: RunId,
    with_tasks: bool,
    after_version: int = 0,
) -> AsyncGenerator[RunChange]:
    """Yield the run as it is, with every task, then its changes; the last has `ended`.

    after_version: the follower has seen the run up to here; every task is given again unless
    nothing has changed since. Raises RunNotFound.
    """
    watch = RunWatch()
    run = await calls.find(namespace, run_id)
    unseen = after_version < run.decided
    watch.note(Touched((), run_wide=unseen))
    run.watches.append(watch)
    try:
        while True:
            touched = await watch.changed()
            if run.dropped or host.find(run_id) is not run:
                run = await calls.find(namespace, run_id)
                run.watches.append(watch)
            names: list[TaskName] = []
            if with_tasks:
                names = list(run.state.tasks if touched.run_wide else touched.tasks)
            tasks = []
            for index, name in enumerate(names, start=1):
                tasks.append(calls.show_task(run, name))
                if index % TASKS_PER_STRETCH == 0:
                    await asyncio.sleep(0)
            # A task that changed meanwhile is noted, and comes again with the next message.
            version, ended = run.decided, run.has_ended and not watch.is_noted
            shown = to_run(run.state, clock.now_ns(), creator=run.creator, with_input=False)
            try:
                await host.facts.answered(run, version, own_facts=False)
            except DecidedAgain:
                watch.void()
                continue
            for change in _in_parts(shown, tasks, (after_version, version), ended=ended):
                yield change
            after_version = version
            if ended:
                return
            # The end is told at once: whoever waits for it shall not wait out the interval.
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await host.until_end(run)
    finally:
        _leave(run, watch)


def _in_parts(
    run: run_pb2.Run, tasks: list[run_pb2.Task], versions: tuple[int, int], *, ended: bool
) -> Iterable[RunChange]:
    """Only the last part has the newer version: who resumes before it gets its tasks again."""
    before, version = versions
    sent_count = 0
    while True:
        part = tasks[sent_count : sent_count + TASKS_PER_CHANGE_MAX]
        del part[count_within((task.ByteSize() for task in part), PAGE_BYTES_MAX) :]
        sent_count += len(part)
        last = sent_count == len(tasks)
        yield RunChange(run, part, version if last else before, ended and last)
        if last:
            return


def _leave(run: HostedRun, watch: RunWatch) -> None:
    with suppress(ValueError):
        run.watches.remove(watch)
