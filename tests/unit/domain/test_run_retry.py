"""Retry of ended runs: what begins its next life, what stays, and what the end was cleared of."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto.run.v1 import run_pb2 as pb
from stretto_core.clock import NS_PER_S
from stretto_core.errors import InvalidArgument
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run import decide, queries
from stretto_kernel.domain.run.refusals import (
    LeaseLost,
    NothingToRetry,
    ResultConflict,
    TaskNotFound,
    TaskNotRetriable,
)
from stretto_kernel.domain.run.resource import to_run, to_task

from tests.model.oracle import check_fold
from tests.model.runs import Story, below, kinds, started, task

ANY = plan.JoinRule(kind=plan.JOIN_KIND_ANY_SUCCEEDED, rest=plan.JOIN_REST_CANCELLED)


def fails(story: Story, name: str) -> None:
    story.lease(name)
    story.fail(name, retryable=False)


def succeeds(story: Story, name: str) -> None:
    story.lease(name)
    story.complete(name)


def states(story: Story) -> dict[str, str]:
    return {
        str(name): pb.TaskState.Name(
            queries.task_state(story.state, name, story.now_ns)
        ).removeprefix("TASK_STATE_")
        for name in story.state.tasks
    }


def activations(story: Story) -> dict[str, int]:
    return {str(name): record.activation for name, record in story.state.tasks.items()}


def test_what_failed_and_was_skipped_for_it_lives_again_and_what_succeeded_stays() -> None:
    story = started(task("a"), task("b", "a"), task("c", "b"), task("d", "c"), task("e", "a"))
    succeeds(story, "a")
    succeeds(story, "e")
    fails(story, "b")
    assert states(story) == {
        "a": "SUCCEEDED",
        "b": "FAILED",
        "c": "SKIPPED",
        "d": "SKIPPED",
        "e": "SUCCEEDED",
    }
    assert kinds(story.retry()) == ["RunRetried"]
    assert states(story) == {
        "a": "SUCCEEDED",
        "b": "READY",
        "c": "PENDING",
        "d": "PENDING",
        "e": "SUCCEEDED",
    }
    assert activations(story) == {"a": 1, "b": 2, "c": 2, "d": 2, "e": 1}
    for name in "bc":
        succeeds(story, name)
    story.lease("d")
    assert kinds(story.complete("d")) == ["AttemptSucceeded", "RunSucceeded"]
    check_fold(story)


def test_epochs_go_on_attempts_begin_again_and_old_holders_are_fenced() -> None:
    story = started(task("a", retry=plan.RetryPolicy(max_attempts=2)))
    story.lease("a")
    story.lose("a")
    story.lease("a")
    story.kill()
    story.retry()
    shown = to_task(story.state, TaskName("a"), story.now_ns)
    assert (shown.activation, shown.attempt, shown.epoch) == (2, 0, 2)
    assert not shown.HasField("failure")
    for epoch in (1, 2):
        with pytest.raises(LeaseLost):
            story.complete("a", epoch=epoch)
    (leased,) = story.lease("a")
    assert isinstance(leased, ev.AttemptLeased)
    assert (leased.epoch, leased.activation, leased.attempt) == (3, 2, 1)
    with pytest.raises(LeaseLost):
        story.complete("a", epoch=2)
    story.lose("a")
    story.lease("a")
    assert kinds(story.complete("a")) == ["AttemptSucceeded", "RunSucceeded"], "two tries again"


def test_an_outcome_of_the_former_activation_is_answered_as_before() -> None:
    story = started(task("a"))
    fails(story, "a")
    story.retry()
    assert story.fail("a", retryable=False, epoch=1) == ()
    with pytest.raises(ResultConflict):
        story.complete("a", epoch=1)


def test_a_request_retries_once_however_often_it_is_sent() -> None:
    story = started(task("a"))
    fails(story, "a")
    request = {"request_id": story.request()[0], "request_digest": b"d", "now_ns": story.now_ns}
    command = cmd.Retry(step_count=10, **request)  # type: ignore[arg-type]
    assert kinds(story.do(command)) == ["RunRetried"]
    assert story.do(command) == ()
    fails(story, "a")
    assert story.do(command) == (), "nor after the next end"


def test_what_the_plan_tolerates_and_what_no_join_needed_stays_unless_it_is_named() -> None:
    story = started(
        task("tolerated", on_failure=plan.ON_FAILURE_IGNORE),
        task("fast"),
        task("slow"),
        task("first", "fast", "slow", join=ANY),
    )
    fails(story, "tolerated")
    succeeds(story, "fast")
    fails(story, "first")
    story.retry()
    assert states(story) == {
        "tolerated": "FAILED",
        "fast": "SUCCEEDED",
        "slow": "CANCELLED",
        "first": "READY",
    }
    fails(story, "first")
    story.retry("tolerated", "first")
    assert states(story)["tolerated"] == "READY"
    succeeds(story, "tolerated")
    story.lease("first")
    assert kinds(story.complete("first"))[-1] == "RunSucceeded"


def test_nothing_to_retry_when_only_what_the_plan_allows_did_not_succeed() -> None:
    output = plan.Binding(task_output=plan.TaskOutputRef(task="a", pointer="/nowhere"))
    story = started(task("a"), task("b", on_failure=plan.ON_FAILURE_IGNORE), output=output)
    fails(story, "b")
    story.lease("a")
    assert kinds(story.complete("a"))[-1] == "RunFailed", "its output leads nowhere"
    with pytest.raises(NothingToRetry):
        story.retry()


def test_only_what_is_named_and_the_rest_fails_the_run_again() -> None:
    story = started(task("a"), task("b"), task("after_a", "a"), task("c"))
    fails(story, "a")
    fails(story, "b")
    story.lease("c")
    story.cancel(grace_s=0)
    story.stopped("c")
    story.retry("a")
    assert states(story) == {"a": "READY", "b": "FAILED", "after_a": "PENDING", "c": "CANCELLED"}
    succeeds(story, "a")
    story.lease("after_a")
    *_, end = story.complete("after_a")
    assert isinstance(end, ev.RunFailed)
    assert (end.failure.reason, end.failure.task) == ("BROKEN", "b")
    story.retry("b")
    story.lease("b")
    *_, end = story.complete("b")
    assert isinstance(end, ev.RunFailed)
    assert (end.failure.reason, end.failure.task) == ("NOT_RETRIED", "c")
    story.retry()
    story.lease("c")
    assert kinds(story.complete("c"))[-1] == "RunSucceeded"
    check_fold(story)


def test_a_named_task_that_waits_for_one_that_is_not_ends_at_once() -> None:
    story = started(task("a"), task("b", "a"))
    story.cancel()
    assert kinds(story.retry("b")) == ["RunRetried", "RunFailed"]
    assert states(story) == {"a": "CANCELLED", "b": "SKIPPED"}


@pytest.mark.parametrize(
    ("names", "refusal"),
    [
        (("a",), TaskNotRetriable),
        (("b", "nobody"), TaskNotFound),
        (("b", "b"), InvalidArgument),
        (tuple(f"t{number}" for number in range(1_001)), InvalidArgument),
    ],
)
def test_names_that_cannot_be_retried(names: tuple[str, ...], refusal: type[Exception]) -> None:
    story = started(task("a"), task("b"))
    succeeds(story, "a")
    fails(story, "b")
    with pytest.raises(refusal):
        story.retry(*names)


def test_clean_up_runs_again_at_the_new_end() -> None:
    story = started(task("a"), task("tidy", clean_up=True), task("sweep", "tidy", clean_up=True))
    fails(story, "a")
    succeeds(story, "tidy")
    succeeds(story, "sweep")
    story.retry()
    assert states(story) == {"a": "READY", "tidy": "PENDING", "sweep": "PENDING"}
    succeeds(story, "a")
    assert states(story) == {"a": "SUCCEEDED", "tidy": "READY", "sweep": "PENDING"}
    fails(story, "tidy")
    assert isinstance(story.log[-1].event, ev.RunFailed)
    story.retry()
    assert states(story) == {"a": "SUCCEEDED", "tidy": "READY", "sweep": "PENDING"}, (
        "clean-up alone"
    )
    assert activations(story) == {"a": 2, "tidy": 3, "sweep": 3}


def test_a_spawner_that_is_retried_finds_its_children_as_they_are() -> None:
    story = started(task("s", may_spawn=True), task("all", below("s")))
    story.lease("s")
    story.spawn("s", task("one"), task("two"))
    succeeds(story, "s/one")
    fails(story, "s/two")
    story.fail("s", retryable=False)
    assert states(story)["all"] == "SKIPPED"
    story.retry()
    story.lease("s")
    assert story.spawn("s", task("one"), task("two")) == (), "the same children again are no news"
    story.complete("s", spawned=(task("one"), task("three")))
    assert states(story) == {
        "s": "SUCCEEDED",
        "s/one": "SUCCEEDED",
        "s/two": "READY",
        "s/three": "READY",
        "all": "PENDING",
    }
    succeeds(story, "s/two")
    succeeds(story, "s/three")
    assert states(story)["all"] == "READY"
    check_fold(story)


def test_the_time_of_the_run_counts_anew() -> None:
    story = started(task("a"), run_timeout=Duration(seconds=10))
    story.wait(10)
    story.fire(cmd.RunTimeout())
    story.wait(100)
    story.retry()
    assert story.fire(cmd.RunTimeout()) == ()
    (due,) = queries.run_due(story.state)
    assert due.at_ns == story.now_ns + 10 * NS_PER_S
    shown = to_run(story.state, story.now_ns)
    assert shown.state == pb.RUN_STATE_RUNNING
    assert not shown.HasField("failure") and not shown.HasField("end_time")


def test_a_plan_that_was_not_sealed_waits_for_its_next_slice_again() -> None:
    story = started(task("a"), growing=True)
    succeeds(story, "a")
    story.wait(301)
    assert kinds(story.fire(cmd.PlanSliceTimeout(1))) == ["PlanExpired", "RunFailed"]
    story.wait(301)
    story.retry()
    assert story.fire(cmd.PlanSliceTimeout(1)) == ()
    assert kinds(story.add(task("b"), sealed=True)) == ["TasksAdded"]
    story.lease("b")
    assert kinds(story.complete("b"))[-1] == "RunSucceeded"


def test_fail_fast_stops_again() -> None:
    story = started(task("a"), task("b"), failure_policy=plan.FAILURE_POLICY_FAIL_FAST)
    fails(story, "a")
    story.retry()
    assert states(story) == {"a": "READY", "b": "READY"}
    story.lease("b")
    fails(story, "a")
    assert queries.stop_signal(story.state, TaskName("b")) is not None


def test_holds_stay() -> None:
    story = started(task("a"))
    story.hold()
    story.cancel()
    story.retry()
    assert queries.run_state(story.state) == pb.RUN_STATE_PAUSED
    assert queries.offer(story.state, TaskName("a")) is None


def test_a_large_run_is_reopened_in_steps_and_offers_nothing_before_all_is_reset() -> None:
    story = started(*(task(f"t{number}") for number in range(30)))
    succeeds(story, "t7")
    story.kill()
    story.retry(step_count=10)
    fired = 0
    while story.state.reopening is not None:
        if story.state.reopening.resetting:
            assert list(queries.every_offer(story.state)) == []
        timer = next(due.timer for due in queries.run_due(story.state))
        assert kinds(story.fire(timer)) == ["TasksReopened"]
        assert decide(story.state, cmd.TimerFired(now_ns=story.now_ns, timer=timer)) == ()
        fired += 1
    assert fired >= 5
    assert len(list(queries.every_offer(story.state))) == 29
    check_fold(story)


def test_a_slice_that_comes_while_a_run_is_reopened_waits_for_what_is_still_to_be_reset() -> None:
    """The run's order of tasks is that of their resets: `late` waits for one that comes last."""
    tasks = [*(task(f"t{number}") for number in range(20)), task("failed")]
    story = started(*tasks, growing=True)
    fails(story, "failed")
    story.kill()
    story.retry(step_count=10)
    assert story.state.reopening is not None and story.state.reopening.resetting
    done = plan.JoinRule(kind=plan.JOIN_KIND_ALL_DONE)
    story.add(task("late", "failed", join=done), task("free"), sealed=True)
    while story.state.reopening is not None:
        story.fire(next(due.timer for due in queries.run_due(story.state)))
    assert states(story)["late"] == "PENDING"
    assert states(story)["free"] == states(story)["failed"] == "READY"
    succeeds(story, "failed")
    assert states(story)["late"] == "READY"
    check_fold(story)
