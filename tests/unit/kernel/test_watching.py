"""Following a run on virtual time: its changes are coalesced, its end is not."""

from __future__ import annotations

import random
from contextlib import aclosing

import pytest
from stretto.run.v1 import run_pb2
from stretto_core.errors import Unavailable
from stretto_core.ids import RunId, StreamId, TaskName
from stretto_core.testing.virtual_loop import VirtualLoop
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.run_calls import RunCalls
from stretto_kernel.app.watching import INTERVAL_S, TASKS_PER_CHANGE_MAX, watch_run

from tests.unit.kernel.harness import (
    NAMESPACE,
    FrameWorker,
    graph,
    new_store,
    start,
    start_kernel,
    task,
)
from tests.waiting import until


def test_the_end_is_told_at_once() -> None:
    loop = VirtualLoop(random.Random(1))
    told_s = loop.run(_told_s(loop))
    assert len(told_s) == 3
    assert told_s[1] - told_s[0] >= INTERVAL_S, "what happens in between is told together"
    assert told_s[2] == told_s[1]


async def test_a_replaced_owner_does_not_deny_what_a_newer_one_made() -> None:
    """A follower that comes back with a newer version must look elsewhere, not give up."""
    store = new_store()
    older = await start_kernel(store)
    run = (await start(older, graph(task("a")))).answer
    newer = await start_kernel(store, exclusive=False)
    worker = FrameWorker(newer)
    await until(lambda: bool(worker.assignments))
    worker.succeed(worker.assignments[0].token)
    name = RunId(run.run_id)
    ended = await newer.partition.calls.wait_ended(NAMESPACE, name, 10**9)
    assert ended.answer.state == run_pb2.RUN_STATE_SUCCEEDED
    followed = watch_run(
        older.partition.host,
        older.partition.calls,
        older.ports.clock,
        namespace=NAMESPACE,
        run_id=name,
        with_tasks=False,
        after_version=len(store.stream_events(StreamId(name))),
    )
    with pytest.raises(Unavailable) as refused:
        await anext(followed)
    assert refused.value.reason_word == "PARTITION_MOVED"
    await newer.stop()
    await older.stop()


async def _told_s(loop: VirtualLoop) -> list[float]:
    """Return when each change of a run was told: it begins, its first task ends, its last ends."""
    kernel = await start_kernel(new_store())
    worker = FrameWorker(kernel)
    run = (await start(kernel, graph(task("a"), task("b")))).answer
    partition = kernel.partition
    told_s = []
    async for change in watch_run(
        partition.host,
        partition.calls,
        kernel.ports.clock,
        namespace=NAMESPACE,
        run_id=RunId(run.run_id),
        with_tasks=False,
    ):
        told_s.append(loop.time())
        worker.acknowledge()
        if not change.ended:
            worker.succeed(worker.assignments[len(told_s) - 1].token)
    assert change.run.state == run_pb2.RUN_STATE_SUCCEEDED
    await kernel.stop()
    return told_s


async def test_a_message_is_made_when_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches a large run and does not read costs one message, not all of its tasks."""
    shown: list[str] = []
    plain = RunCalls.show_task

    def show(calls: RunCalls, run: HostedRun, name: TaskName) -> run_pb2.Task:
        shown.append(name)
        return plain(calls, run, name)

    monkeypatch.setattr(RunCalls, "show_task", show)
    kernel = await start_kernel(new_store())
    tasks = [task(f"t{number}") for number in range(TASKS_PER_CHANGE_MAX + 50)]
    run_id = RunId((await start(kernel, graph(*tasks))).answer.run_id)
    partition = kernel.partition
    watched = watch_run(
        partition.host,
        partition.calls,
        kernel.ports.clock,
        namespace=NAMESPACE,
        run_id=run_id,
        with_tasks=True,
    )
    async with aclosing(watched):
        first = await anext(watched)
        assert (len(first.tasks), len(shown)) == (TASKS_PER_CHANGE_MAX, TASKS_PER_CHANGE_MAX)
        assert first.version == 0, "who resumes here is told all of it again"
        # What changes in between, shown before or not yet, comes with the next message.
        worker = FrameWorker(kernel)
        await until(lambda: bool(worker.assignments))
        done = worker.assignments[0].token.work_item
        worker.succeed(worker.assignments[0].token)
        await until(lambda: bool(worker.receipts))
        rest = await anext(watched)
        assert len(rest.tasks) == 50 and rest.version > 0
        assert len({each.task for part in (first, rest) for each in part.tasks}) == len(tasks)
        newer = await anext(watched)
        assert newer.version > rest.version, "who resumes at the version before is told of it, too"
        states = {each.task: each.state for each in newer.tasks}
        assert states[done.rpartition("/")[2]] == run_pb2.TASK_STATE_SUCCEEDED
    await kernel.stop()
