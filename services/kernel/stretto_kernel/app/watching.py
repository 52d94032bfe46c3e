"""Following a run: what it is, then each change, until it has ended.

Changes are coalesced: a follower hears at most ten times a second, but of the end at once, and
nothing that is not committed. A commit costs the followers of its own run and nobody else; one who
does not listen keeps no more than one message, and the names of what changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import NamedTuple

from stretto.run.v1 import run_pb2
from stretto_core.clock import Clock
from stretto_core.errors import Exhausted, OutOfRange
from stretto_core.ids import Namespace, RunId, TaskName

from stretto_kernel.app.hosted_run import HostedRun, RunWatch
from stretto_kernel.app.hosted_stream import DecidedAgain
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX
from stretto_kernel.app.run_calls import RunCalls
from stretto_kernel.app.stream_host import StreamHost

INTERVAL_S = 0.1
TASKS_PER_CHANGE_MAX = 500
TASKS_PER_STRETCH = 200
"""Others run after so many tasks were shown: a stretch on the loop is bounded."""


class BeyondTheRun(OutOfRange):
    """The run has no such version: it was seen elsewhere, or the log was restored since."""


class TooManyWatchers(Exhausted):
    """The kernel serves its most watchers of runs."""

    reason = "OVERLOADED"


class WatcherGate:
    """Counts who follows runs. watchers_max: more are refused."""

    def __init__(self, watchers_max: int) -> None:
        self._watchers_max = watchers_max
        self.watcher_count = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one while it follows. Raises TooManyWatchers."""
        if self.watcher_count >= self._watchers_max:
            raise TooManyWatchers("too many watchers", watchers_max=str(self._watchers_max))
        self.watcher_count += 1
        try:
            yield
        finally:
            self.watcher_count -= 1


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

    after_version: the follower has seen the run up to here; what changed since is given, and
    nothing else. Raises RunNotFound, BeyondTheRun.
    """
    watch = RunWatch()
    run = await _find(host, calls, (namespace, run_id), after_version)
    if after_version < run.decided or run.has_ended:
        watch.void()
    run.watches.append(watch)
    told_any = False
    try:
        while True:
            touched = await watch.changed()
            if host.facts.closed_by is not None:
                raise host.facts.closed_by
            if run.dropped or host.find(run_id) is not run:
                run = await calls.find(namespace, run_id)
                run.watches.append(watch)
            names: list[TaskName] = []
            if with_tasks and touched.run_wide:
                names = run.state.changed_after(after_version)
            elif with_tasks:
                names = list(touched.tasks)
            version = run.decided  # Up to where these are all that changed.
            if version == after_version and not run.has_ended:
                continue  # Its memory was void for a moment, and nothing is new.
            ended = False
            try:
                async with aclosing(_messages(host, calls, run, names, told_any)) as messages:
                    async for shown, tasks, is_last in messages:
                        told_any = True
                        # What changed since is noted, and comes again with the next message.
                        ended = is_last and run.has_ended and not watch.is_noted
                        # Only the last has the newer version: who resumes before it gets all.
                        told = version if is_last else after_version
                        yield RunChange(shown, tasks, told, ended)
            except DecidedAgain:
                watch.void()
                continue
            after_version = version
            if ended:
                return
            # The end is told at once: whoever waits for it shall not wait out the interval.
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await host.until_end(run)
    finally:
        _leave(run, watch)


async def _find(
    host: StreamHost, calls: RunCalls, asked: tuple[Namespace, RunId], least_version: int
) -> HostedRun:
    """Return the run, at that version at least. Raises RunNotFound, BeyondTheRun."""
    while (run := await calls.find(*asked)).decided < least_version:
        with suppress(DecidedAgain):
            # An owner that was replaced does not know the newest: it may not say so.
            await host.facts.answered(run, run.decided, own_facts=False)
            raise BeyondTheRun(
                f"the run is at version {run.decided}",
                version=str(run.decided),
                after_version=str(least_version),
            )
    return run


async def _messages(
    host: StreamHost, calls: RunCalls, run: HostedRun, names: Sequence[TaskName], told_any: bool
) -> AsyncGenerator[tuple[run_pb2.Run, list[run_pb2.Task], bool]]:
    """Yield the run and its tasks, as many as a message takes; and whether they are the last.

    Each is made when it is asked for, and may leave the process. Raises DecidedAgain.
    """
    told_count, is_last = 0, False
    while not is_last:
        tasks = await _shown(calls, run, names[told_count : told_count + TASKS_PER_CHANGE_MAX])
        told_count += len(tasks)
        is_last = told_count == len(names)
        shown = calls.show_end(run)
        # The first is a read of now. The others tell of commits: no need to ask the store whether
        # there is a newer owner, whose facts the follower would only hear later.
        await host.facts.answered(run, run.decided, own_facts=told_any)
        told_any = True
        yield shown, tasks, is_last


async def _shown(calls: RunCalls, run: HostedRun, names: Sequence[TaskName]) -> list[run_pb2.Task]:
    """Show the first of these tasks: those that one message takes."""
    tasks: list[run_pb2.Task] = []
    size_bytes = 0
    for name in names:
        task = calls.show_task(run, name)
        size_bytes += task.ByteSize()
        if tasks and size_bytes > PAGE_BYTES_MAX:
            break
        tasks.append(task)
        if len(tasks) % TASKS_PER_STRETCH == 0:
            await asyncio.sleep(0)
    return tasks


def _leave(run: HostedRun, watch: RunWatch) -> None:
    with suppress(ValueError):
        run.watches.remove(watch)
