"""Every state of a task and of a run against every command, as one table each.

A cell says what the command is answered with: the facts it makes, `-` when it changes nothing, or
the reason word of its refusal.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import Refusal
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import RunEvent
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run.decide import DECIDED
from stretto_kernel.domain.run.evolve import EVOLVED

from tests.model.runs import Story, kinds, started, task

X = TaskName("x")


def _story(*, rest_cancelled: bool = False) -> Story:
    """Task x after `before`, which may spawn; `other` keeps the run from ending."""
    x = task("x", "before", may_spawn=True, retry=plan.RetryPolicy(max_attempts=2))
    either = plan.JoinRule(
        kind=plan.JOIN_KIND_ANY_SUCCEEDED,
        rest=plan.JOIN_REST_CANCELLED if rest_cancelled else plan.JOIN_REST_IGNORED,
    )
    return started(task("before"), x, task("other"), task("either", "x", "other", join=either))


def _after(story: Story, task_name: str = "before") -> Story:
    story.lease(task_name)
    story.complete(task_name)
    return story


def blocked() -> Story:
    return _story()


def open_() -> Story:
    return _after(_story())


def leased() -> Story:
    story = open_()
    story.lease("x")
    return story


def lost() -> Story:
    story = leased()
    story.lose("x")
    return story


def returned() -> Story:
    story = leased()
    story.release("x")
    return story


def backing_off() -> Story:
    story = leased()
    story.fail("x")
    return story


def leased_again() -> Story:
    story = lost()
    story.lease("x", "w2")
    return story


def asked_to_stop() -> Story:
    story = _after(_story(rest_cancelled=True))
    story.lease("x")
    return _after(story, "other")


def succeeded() -> Story:
    story = leased()
    story.complete("x")
    return story


def failed() -> Story:
    story = leased()
    story.fail("x", retryable=False)
    return story


def cancelled() -> Story:
    story = asked_to_stop()
    story.stopped("x")
    return story


def skipped() -> Story:
    story = _story()
    story.lease("before")
    story.fail("before", retryable=False)
    return story


def lease(story: Story) -> tuple[RunEvent, ...]:
    return story.lease("x", "w3")


def complete(story: Story) -> tuple[RunEvent, ...]:
    return story.complete("x", epoch=1)


def complete_other(story: Story) -> tuple[RunEvent, ...]:
    return story.complete("x", "2", epoch=1)


def fail(story: Story) -> tuple[RunEvent, ...]:
    return story.fail("x", epoch=1)


def release(story: Story) -> tuple[RunEvent, ...]:
    return story.release("x", epoch=1)


def take_back(story: Story) -> tuple[RunEvent, ...]:
    return story.release("x", epoch=1, cause=ev.RELEASE_CAUSE_NOT_ACKNOWLEDGED)


def stopped(story: Story) -> tuple[RunEvent, ...]:
    return story.stopped("x", epoch=1)


def spawn(story: Story) -> tuple[RunEvent, ...]:
    return story.spawn("x", task("child"), epoch=1)


def progress(story: Story) -> tuple[RunEvent, ...]:
    details = Payload(json='"half"')
    return story.do(cmd.Progress(now_ns=story.now_ns, task=X, epoch=1, details=details))


def lose(story: Story) -> tuple[RunEvent, ...]:
    return story.lose("x", epoch=1)


def refuse(story: Story) -> tuple[RunEvent, ...]:
    return story.do(cmd.RecordRefusal(now_ns=story.now_ns, task=X, epoch=1))


TASK_STATES = (
    blocked,
    open_,
    leased,
    lost,
    returned,
    backing_off,
    leased_again,
    asked_to_stop,
    succeeded,
    failed,
    cancelled,
    skipped,
)
TASK_COMMANDS = (
    lease,
    complete,
    complete_other,
    fail,
    release,
    take_back,
    stopped,
    spawn,
    progress,
    lose,
    refuse,
)
L, C, X_ = "LEASE_LOST", "RESULT_CONFLICT", "NOT_LEASABLE"
TASK_TABLE = {
    blocked: (X_, L, L, L, L, "-", L, L, L, "-", "-"),
    open_: ("AttemptLeased", L, L, L, L, "-", L, L, L, "-", "-"),
    leased: (
        X_,
        "AttemptSucceeded",
        "AttemptSucceeded",
        "AttemptFailed",
        "AttemptReleased",
        "AttemptReleased",
        "AttemptReleased",
        "TasksSpawned",
        "AttemptProgressed",
        "AttemptLost",
        "-",
    ),
    # Late but current is fine, for a result; anything else would only cost a try twice.
    lost: (
        "AttemptLeased",
        "AttemptSucceeded",
        "AttemptSucceeded",
        *(L, L, "-", L, L, L, "-"),
        "WriteRefused",
    ),
    returned: ("AttemptLeased", C, C, C, "-", "-", "-", L, L, "-", "WriteRefused"),
    backing_off: (X_, C, C, "-", C, "-", C, L, L, "-", "WriteRefused"),
    leased_again: (X_, L, L, L, L, "-", L, L, L, "-", "WriteRefused"),
    asked_to_stop: (
        X_,
        "AttemptSucceeded",
        "AttemptSucceeded",
        "AttemptFailed",
        "AttemptReleased",
        "AttemptReleased",
        "AttemptCancelled",
        "TasksSpawned",
        "AttemptProgressed",
        "AttemptLost",
        "-",
    ),
    succeeded: (X_, "-", C, C, C, "-", C, L, L, "-", "WriteRefused"),
    failed: (X_, C, C, C, C, "-", C, L, L, "-", "WriteRefused"),
    cancelled: (X_, C, C, C, "-", "-", "-", L, L, "-", "WriteRefused"),
    skipped: (X_, L, L, L, L, "-", L, L, L, "-", "-"),
}


def _answer(act: Callable[[Story], tuple[RunEvent, ...]], story: Story) -> str:
    try:
        return "+".join(kinds(act(story))) or "-"
    except Refusal as refusal:
        return refusal.reason_word


@pytest.mark.parametrize("given", TASK_STATES)
def test_every_task_state_answers_every_command(given: Callable[[], Story]) -> None:
    answers = {command.__name__: _answer(command, given()) for command in TASK_COMMANDS}
    names = [command.__name__ for command in TASK_COMMANDS]
    assert answers == dict(zip(names, TASK_TABLE[given], strict=True))


def not_started() -> Story:
    return Story()


def _run(*, growing: bool = False) -> Story:
    tasks = (task("x"), task("y"), task("tidy", clean_up=True))
    story = started(*tasks, growing=growing)
    story.lease("x")
    return story


def running() -> Story:
    return _run()


def growing() -> Story:
    return _run(growing=True)


def held() -> Story:
    story = _run()
    story.hold()
    return story


def cancelling() -> Story:
    story = _run()
    story.cancel()
    return story


def cleaning_up() -> Story:
    story = _run()
    story.complete("x")
    return _after(story, "y")


def run_succeeded() -> Story:
    return _after(cleaning_up(), "tidy")


def run_failed() -> Story:
    story = cleaning_up()
    story.lease("tidy")
    story.fail("tidy", retryable=False)
    return story


def run_cancelled() -> Story:
    story = cancelling()
    story.stopped("x")
    return _after(story, "tidy")


def run_killed() -> Story:
    story = _run()
    story.kill()
    return story


def retried() -> Story:
    story = run_killed()
    story.retry()
    return story


def reopening() -> Story:
    story = run_killed()
    story.retry(step_count=1)
    return story


def encrypted() -> Story:
    story = Story(digest_key=b"k" * 32)
    story.start(plan.TaskGraph(tasks=[task("x"), task("y"), task("tidy", clean_up=True)]))
    story.lease("x")
    return story


def encrypted_killed() -> Story:
    story = encrypted()
    story.kill()
    return story


def shredded() -> Story:
    story = encrypted_killed()
    story.shred()
    return story


def start_again(story: Story) -> tuple[RunEvent, ...]:
    return story.start(plan.TaskGraph(tasks=[task("x")]))


def add(story: Story) -> tuple[RunEvent, ...]:
    return story.add(task("z"))


def hold(story: Story) -> tuple[RunEvent, ...]:
    return story.hold()


def lift(story: Story) -> tuple[RunEvent, ...]:
    return story.lift()


def cancel(story: Story) -> tuple[RunEvent, ...]:
    return story.cancel()


def kill(story: Story) -> tuple[RunEvent, ...]:
    return story.kill()


def lease_y(story: Story) -> tuple[RunEvent, ...]:
    return story.lease("y")


def lease_tidy(story: Story) -> tuple[RunEvent, ...]:
    return story.lease("tidy")


def complete_x(story: Story) -> tuple[RunEvent, ...]:
    return story.complete("x", "5", epoch=1)


def retry(story: Story) -> tuple[RunEvent, ...]:
    return story.retry()


def shred(story: Story) -> tuple[RunEvent, ...]:
    return story.shred()


RUN_COMMANDS = (
    *(start_again, add, hold, lift, cancel, kill, lease_y, lease_tidy, complete_x),
    *(retry, shred),
)
K, G = "RUN_NOT_ENCRYPTED", "RUN_SHREDDED"
N, U, S, E = "NOT_FOUND", "REQUEST_ID_REUSED", "RUN_CLOSED", "RUN_NOT_ENDED"
RUN_TABLE = {
    not_started: ("RunStarted", *[N] * 10),
    running: (
        *(U, "PLAN_SEALED", "HoldPlaced", "-", "RunCancelRequested", "RunKilled"),
        *("AttemptLeased", X_, "AttemptSucceeded", E, K),
    ),
    growing: (
        *(U, "TasksAdded", "HoldPlaced", "-", "RunCancelRequested", "RunKilled"),
        *("AttemptLeased", X_, "AttemptSucceeded", E, K),
    ),
    held: (
        *(U, "PLAN_SEALED", "-", "HoldLifted", "RunCancelRequested", "RunKilled"),
        *(X_, X_, "AttemptSucceeded", E, K),
    ),
    cancelling: (U, S, "HoldPlaced", "-", "-", "RunKilled", X_, X_, "AttemptSucceeded", E, K),
    cleaning_up: (
        *(U, "PLAN_SEALED", "HoldPlaced", "-", "RunCancelRequested", "RunKilled"),
        *(X_, "AttemptLeased", C, E, K),
    ),
    run_succeeded: (U, S, S, S, S, S, X_, X_, C, "NOTHING_TO_RETRY", K),
    run_failed: (U, S, S, S, S, S, X_, X_, C, "RunRetried", K),
    run_cancelled: (U, S, S, S, "-", S, X_, X_, C, "RunRetried", K),
    run_killed: (U, S, S, S, S, "-", X_, X_, L, "RunRetried", K),
    retried: (
        *(U, "PLAN_SEALED", "HoldPlaced", "-", "RunCancelRequested", "RunKilled"),
        *("AttemptLeased", X_, L, E, K),
    ),
    reopening: (
        *(U, "PLAN_SEALED", "HoldPlaced", "-", "RunCancelRequested", "RunKilled"),
        *(X_, X_, L, E, K),
    ),
    encrypted: (
        *(U, "PLAN_SEALED", "HoldPlaced", "-", "RunCancelRequested", "RunKilled"),
        *("AttemptLeased", X_, "AttemptSucceeded", E, E),
    ),
    encrypted_killed: (U, S, S, S, S, "-", X_, X_, L, "RunRetried", "RunShredded"),
    shredded: (*[G] * 10, "-"),
}


@pytest.mark.parametrize("given", RUN_TABLE)
def test_every_run_state_answers_every_command(given: Callable[[], Story]) -> None:
    answers = {command.__name__: _answer(command, given()) for command in RUN_COMMANDS}
    names = [command.__name__ for command in RUN_COMMANDS]
    assert answers == dict(zip(names, RUN_TABLE[given], strict=True))


def test_every_event_type_has_an_entry_in_the_fold() -> None:
    assert {str(event.DESCRIPTOR.name) for event in EVOLVED} == set(
        ev.DESCRIPTOR.message_types_by_name
    )


def test_every_command_has_an_entry_in_the_decider() -> None:
    abstract = (cmd.Command, cmd.Requested, cmd.HolderCommand)
    concrete = {
        kind
        for kind in vars(cmd).values()
        if isinstance(kind, type) and issubclass(kind, cmd.Command) and kind not in abstract
    }
    assert concrete == set(DECIDED)
