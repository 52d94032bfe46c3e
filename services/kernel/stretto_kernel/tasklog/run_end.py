"""When what a follower of a task log asked for has ended: its run, its task, or its attempt."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from stretto_core.errors import Refusal
from stretto_core.ids import Namespace

from stretto_kernel.app.hosted_run import HostedRun, RunWatch
from stretto_kernel.domain.run.refusals import TaskNotFound
from stretto_kernel.domain.run.stopping import is_given_up
from stretto_kernel.domain.run.task import Leased
from stretto_kernel.owned_partition import OwnedPartition
from stretto_kernel.tasklog.entries import Selection
from stretto_kernel.tasklog.tails import Tail

LOOK_INTERVAL_S = 0.1


async def find_selected(
    partition: OwnedPartition, namespace: Namespace, selection: Selection
) -> HostedRun:
    """The run in memory. Raises RunNotFound, TaskNotFound."""
    run = await partition.calls.find(namespace, selection.run_id)
    if selection.task and selection.task not in run.state.tasks:
        raise TaskNotFound(f"the run has no task {selection.task!r}", task=selection.task)
    return run


def is_over(run: HostedRun, selection: Selection) -> bool:
    """Whether nothing selected will be leased again, as decided."""
    if run.has_ended or not selection.task:
        return run.has_ended
    record = run.state.tasks[selection.task]
    if record.ended or is_given_up(run.state, record):
        return True
    lease = record.last_lease
    if not selection.attempt or lease is None:
        return False
    closed = not isinstance(record.phase, Leased)
    return lease.attempt > selection.attempt or (closed and lease.attempt == selection.attempt)


async def wake_at_changes(partition: OwnedPartition, run: HostedRun, tail: Tail) -> None:
    """Wake the run's followers when it changed, at most ten times a second, until it has ended.

    The end is told at once. Wakes them with `failure` set when the ownership is over.
    """
    host, run_id, namespace = partition.host, run.run_id, run.namespace
    watch = RunWatch()
    run.watches.append(watch)
    try:
        while not run.has_ended or run.dropped:
            await watch.changed()
            if run.dropped or host.find(run_id) is not run:
                run = await partition.calls.find(Namespace(namespace), run_id)
                run.watches.append(watch)
            tail.wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await host.until_end(run)
    except Refusal as refusal:
        tail.failure = refusal
    finally:
        with suppress(ValueError):
            run.watches.remove(watch)
        tail.wake()
