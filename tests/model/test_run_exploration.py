"""Every interleaving of a small run: the real decide and evolve, breadth first.

Two tasks, two workers, two or three epochs a task. Any holder of any epoch ever granted may speak
at any later time, as often as it likes (late, doubled and reordered messages; a crash is a holder
that never speaks again); leases are lost, timers fire, the run is cancelled or killed at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import Refusal
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import RequestId, SessionId, TaskName, WorkerId
from stretto_kernel.domain.run import RunState, conclude, decide, evolve, queries
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run.fingerprint import fingerprint
from stretto_kernel.domain.run.refusals import LeaseLost
from stretto_kernel.domain.run.task import Ended, Succeeded, TaskRecord

from tests.model.runs import SECOND, T0, started, task

WORKERS = ("w1", "w2")
LATER = T0 + 1_000 * SECOND  # Past every timer; recorded times stand still, so that states meet.


def _commands(state: RunState, epoch_max: int, retries_max: int) -> Iterator[cmd.Command]:
    """Everything that anybody could send now."""
    for name, record in state.tasks.items():
        if record.epoch < epoch_max:
            for worker in WORKERS:
                # Whatever it waits for after being given back is over.
                yield cmd.Lease(
                    now_ns=LATER,
                    task=name,
                    worker_id=WorkerId(worker),
                    session_id=SessionId(worker),
                )
        for epoch in range(1, record.epoch + 1):
            yield from _words_of_holder(name, epoch)
        yield cmd.Lose(now_ns=T0, task=name, epoch=record.epoch, cause=ev.LOSS_CAUSE_EXPIRED)
    for due in queries.every_due(state):
        yield cmd.TimerFired(now_ns=LATER, timer=due.timer)
    request = {"now_ns": T0, "request_digest": b"d"}
    yield cmd.Cancel(request_id=RequestId("cancel"), **request)  # type: ignore[arg-type]
    yield cmd.Kill(request_id=RequestId("kill"), **request)  # type: ignore[arg-type]
    if state.retry_count < retries_max:
        yield cmd.Retry(request_id=RequestId("retry"), step_count=1, **request)  # type: ignore[arg-type]


def _words_of_holder(name: TaskName, epoch: int) -> Iterator[cmd.Command]:
    yield cmd.Complete(now_ns=T0, task=name, epoch=epoch, result=Payload(json=f"{epoch}"))
    failure = Failure(reason="BROKEN", retryable=True)
    yield cmd.Fail(now_ns=T0, task=name, epoch=epoch, failure=failure)
    yield cmd.Release(now_ns=T0, task=name, epoch=epoch, cause=ev.RELEASE_CAUSE_RETURNED)
    yield cmd.CancelAttempt(now_ns=T0, task=name, epoch=epoch)


def _judge(before: RunState, command: cmd.Command, after: RunState) -> None:
    """Hold one step against the invariants."""
    retried = isinstance(command, cmd.Retry)
    assert (before.end is not None) == retried, "a fact after the end, or a retry before it"
    assert conclude(after) == ()
    assert (queries.wake_up(after) is None) == (after.end is not None)
    for name, record in before.tasks.items():
        if not retried and before.reopening is None:
            _judge_task(record, command, after.tasks[name])
        elif isinstance(record.phase, Succeeded) and not record.spec.clean_up:
            assert after.tasks[name].phase == record.phase, "finished stays finished"


def _judge_task(record: TaskRecord, command: cmd.Command, after: TaskRecord) -> None:
    leased_now = isinstance(command, cmd.Lease) and command.task == record.name
    assert after.epoch == record.epoch + (1 if leased_now else 0), "epochs rise by one per lease"
    if isinstance(record.phase, Ended):
        assert after.phase == record.phase, "ended stays ended"
    elif isinstance(after.phase, Succeeded):
        assert isinstance(command, cmd.Complete) and command.task == record.name
        assert command.epoch == record.epoch, "a result of a holder that was passed on"


def _explore(start: RunState, epoch_max: int, retries_max: int) -> int:
    """Visit every reachable state once; return how many there are."""
    seen = {fingerprint(start, with_versions=False)}
    edge = deque([start])
    while edge:
        state = edge.popleft()
        for command in _commands(state, epoch_max, retries_max):
            try:
                events = decide(state, command)
            except Refusal as refusal:
                if isinstance(command, cmd.Complete) and isinstance(refusal, LeaseLost):
                    assert int(refusal.metadata["current_epoch"]) >= command.epoch
                continue
            if not events:
                continue
            after = state.clone()
            for event in events:
                evolve(after, Recorded(event, after.version + 1, T0))
            for end in conclude(after):
                evolve(after, Recorded(end, after.version + 1, T0))
            _judge(state, command, after)
            mark = fingerprint(after, with_versions=False)
            if mark not in seen:
                seen.add(mark)
                edge.append(after)
    return len(seen)


def _task(name: str, *after: str, max_attempts: int = 2, **rest: object) -> plan.TaskSpec:
    spec = task(name, *after, **rest)  # type: ignore[arg-type]
    spec.retry.max_attempts = max_attempts
    spec.retry.initial_interval.seconds = 0  # No backoff: time stands still.
    return spec


@pytest.mark.parametrize(
    ("tasks", "epoch_max", "retries_max", "state_count_min"),
    [
        pytest.param((_task("a"), _task("b", "a")), 3, 0, 7_000, id="chain"),
        pytest.param((_task("a"), _task("b", clean_up=True)), 2, 0, 3_000, id="clean-up"),
        pytest.param((_task("a", max_attempts=1), _task("b", "a")), 2, 1, 4_000, id="retry"),
        pytest.param(
            (_task("a", max_attempts=1), _task("b", max_attempts=1, clean_up=True)),
            2,
            2,
            4_000,
            id="clean-up-again",
        ),
    ],
)
def test_no_interleaving_breaks_an_invariant(
    tasks: tuple[plan.TaskSpec, ...], epoch_max: int, retries_max: int, state_count_min: int
) -> None:
    count = _explore(started(*tasks).state, epoch_max, retries_max)
    print(f"{' and '.join(spec.name for spec in tasks)}: {count} states")  # noqa: T201 - the count is the finding
    assert count >= state_count_min
