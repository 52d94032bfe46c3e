"""Leases, outcomes and tries: who may write, what a repeat is, when a task is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import BlobRef, ComposedValue, Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto.run.v1 import run_pb2 as pb
from stretto_core.errors import InvalidArgument
from stretto_core.ids import RunId, TaskName
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run import queries
from stretto_kernel.domain.run.plan import Retry
from stretto_kernel.domain.run.refusals import (
    LeaseLost,
    NotLeasable,
    ResultConflict,
    TaskNotFound,
)
from stretto_kernel.domain.run.retry import attempt_seed, backoff_ns, return_wait_ns

from tests.model.runs import SECOND, Story, kinds, started, task

A = TaskName("a")


def _leased(**rest: object) -> Story:
    story = started(task("a", **rest))  # type: ignore[arg-type]
    story.lease("a")
    return story


def test_a_lease_bears_the_next_epoch_the_manifest_and_the_tasks_ttl() -> None:
    story = started(task("a"))
    (leased,) = story.lease("a")
    assert isinstance(leased, ev.AttemptLeased)
    assert (leased.epoch, leased.activation, leased.attempt) == (1, 1, 1)
    assert leased.ttl.seconds == 30
    assert leased.manifest_digest == queries.manifest(story.state, A).digest
    lease = queries.open_lease(story.state, A)
    assert lease is not None and (lease.worker_id, lease.epoch) == ("w1", 1)


def test_a_holder_whose_lease_was_passed_on_is_fenced_and_told_the_current_epoch() -> None:
    story = _leased()
    story.lose("a")
    story.lease("a", "w2")
    with pytest.raises(LeaseLost) as caught:
        story.complete("a", epoch=1)
    assert caught.value.metadata["current_epoch"] == "2"
    assert kinds(story.complete("a", epoch=2)) == ["AttemptSucceeded", "RunSucceeded"]


def test_a_task_whose_attempt_was_lost_keeps_its_age() -> None:
    story = _leased()
    first = queries.open_lease(story.state, A)
    assert first is not None
    ready_ns = story.state.tasks[A].ready_ns
    story.wait(5)
    story.lose("a")
    again = queries.offer(story.state, A)
    assert again is not None and again.ready_ns == ready_ns


def test_late_but_current_is_accepted() -> None:
    story = _leased()
    story.lose("a")
    assert kinds(story.complete("a", epoch=1)) == ["AttemptSucceeded", "RunSucceeded"]


def test_late_is_refused_once_the_run_stops_or_was_killed() -> None:
    for end in (Story.cancel, Story.kill):
        story = _leased()
        story.lose("a")
        end(story)
        with pytest.raises(LeaseLost):
            story.complete("a", epoch=1)


def test_the_same_completion_again_is_nothing_and_another_a_conflict() -> None:
    story = _leased()
    story.complete("a", "1")
    assert story.complete("a", "1", epoch=1) == ()
    with pytest.raises(ResultConflict):
        story.complete("a", "2", epoch=1)
    with pytest.raises(ResultConflict):
        story.fail("a", epoch=1)


def test_the_same_failure_again_is_nothing_even_when_passed_on() -> None:
    story = _leased()
    story.fail("a", retryable=True)
    story.wait(100)
    story.lease("a", "w2")
    assert story.fail("a", epoch=1, retryable=True) == ()
    with pytest.raises(LeaseLost):
        story.fail("a", epoch=1, retryable=False)


def test_an_unset_result_is_json_null() -> None:
    story = _leased()
    command = cmd.Complete(now_ns=story.now_ns, task=A, epoch=1)
    (succeeded, _) = story.do(command)
    assert isinstance(succeeded, ev.AttemptSucceeded)
    assert succeeded.result.json == "null"


@pytest.mark.parametrize(
    ("result", "refusal"),
    [
        (Payload(json="{"), InvalidArgument),
        (Payload(json="NaN"), InvalidArgument),
        (Payload(json='{"a":1,"a":2}'), InvalidArgument),
        (Payload(data=b"x" * 65_537), InvalidArgument),
        (Payload(blob=BlobRef(digest=b"0" * 31)), InvalidArgument),
        (Payload(blob=BlobRef(digest=b"0" * 32, size_bytes=(1 << 30) + 1)), InvalidArgument),
        (Payload(composed=ComposedValue(list=True)), InvalidArgument),
    ],
)
def test_a_result_that_is_no_value_is_refused(result: Payload, refusal: type[Exception]) -> None:
    story = _leased()
    with pytest.raises(refusal):
        story.do(cmd.Complete(now_ns=story.now_ns, task=A, epoch=1, result=result))
    assert story.state.version == 2


def test_a_failures_reason_is_a_word_and_its_message_is_cut() -> None:
    story = _leased()
    with pytest.raises(InvalidArgument):
        story.fail("a", "not a word")
    failure = Failure(reason="EXIT_STATUS", message="é" * 4_000)
    (failed, _) = story.do(cmd.Fail(now_ns=story.now_ns, task=A, epoch=1, failure=failure))
    assert isinstance(failed, ev.AttemptFailed)
    assert len(failed.failure.message.encode()) == 4_096


def test_losses_failures_and_timeouts_consume_tries_and_releases_none() -> None:
    story = _leased(retry=plan.RetryPolicy(max_attempts=3))
    story.release("a")
    (leased,) = story.lease("a")
    assert isinstance(leased, ev.AttemptLeased)
    assert (leased.epoch, leased.attempt) == (2, 1)
    story.lose("a")
    story.lease("a")
    story.fail("a")
    story.wait(100)
    (leased,) = story.lease("a")
    assert isinstance(leased, ev.AttemptLeased)
    assert (leased.epoch, leased.attempt) == (4, 3)
    (_, failed) = story.lose("a")
    assert isinstance(failed, ev.RunFailed)
    assert (failed.failure.reason, failed.failure.task) == ("LEASE_EXPIRED", "a")


def test_what_is_given_back_in_a_row_waits_ever_longer_up_to_a_bound() -> None:
    story = started(task("a"))
    waits = []
    for _ in range(12):
        story.lease("a")
        story.release("a")
        offer = queries.offer(story.state, A)
        assert offer is not None
        waits.append((offer.not_before_ns - story.now_ns) / SECOND)
        if waits[-1]:
            assert queries.task_state(story.state, A, story.now_ns) == pb.TASK_STATE_WAITING
            with pytest.raises(NotLeasable):
                story.lease("a")
        story.now_ns = offer.not_before_ns
    assert waits == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    assert return_wait_ns(10**9) == 30 * SECOND


@pytest.mark.parametrize("between", [Story.fail, Story.lose, Story.wait])
def test_a_row_of_returns_ends_with_work(between: Callable[[Story, Any], object]) -> None:
    story = _leased(retry=plan.RetryPolicy(max_attempts=9))
    story.release("a")
    story.lease("a")
    story.release("a")
    story.wait(1)
    story.lease("a")
    if between is Story.wait:
        story.wait(31)  # Held for long: whoever gives it back now has worked on it.
    else:
        between(story, "a")
        story.wait(100)
        story.lease("a")
    story.release("a")
    assert kinds(story.lease("a")) == ["AttemptLeased"]


def test_what_the_kernel_takes_back_is_offered_at_once_however_often() -> None:
    story = _leased()
    for cause in (ev.RELEASE_CAUSE_NOT_ACKNOWLEDGED, ev.RELEASE_CAUSE_NOT_HELD) * 5:
        story.release("a", cause=cause)
        story.lease("a")
    story.release("a")
    assert kinds(story.lease("a")) == ["AttemptLeased"], "the first that a holder gave back"


def test_a_lost_attempt_is_offered_at_once_and_a_failed_one_after_its_backoff() -> None:
    story = _leased()
    story.lose("a")
    offer = queries.offer(story.state, A)
    assert offer is not None and offer.not_before_ns == story.now_ns
    story.lease("a")
    story.fail("a")
    offer = queries.offer(story.state, A)
    assert offer is not None
    wait_ns = offer.not_before_ns - story.now_ns
    assert 1.6 * SECOND <= wait_ns <= 2.4 * SECOND  # The second try was consumed: 2 s, 20 %.
    with pytest.raises(NotLeasable):
        story.lease("a")
    story.now_ns = offer.not_before_ns
    assert kinds(story.lease("a")) == ["AttemptLeased"]


@pytest.mark.parametrize(("asked_s", "least_s", "most_s"), [(90, 90, 90), (0, 0.8, 1.2), (1, 1, 2)])
def test_a_failure_that_says_when_to_come_back_is_waited_for_or_the_backoff_if_longer(
    asked_s: int, least_s: float, most_s: float
) -> None:
    story = _leased()
    story.fail("a", retry_after_s=asked_s)
    offer = queries.offer(story.state, A)
    assert offer is not None
    assert least_s * SECOND <= offer.not_before_ns - story.now_ns <= most_s * SECOND
    with pytest.raises(NotLeasable):
        story.lease("a")


def test_a_failure_is_repeated_only_with_the_same_retry_after() -> None:
    story = _leased()
    story.fail("a", retry_after_s=90)
    assert story.fail("a", epoch=1, retry_after_s=90) == ()
    for other in (None, 91):
        with pytest.raises(ResultConflict):
            story.fail("a", epoch=1, retry_after_s=other)


def test_a_retry_after_beyond_a_day_is_cut_and_one_that_is_no_span_refused() -> None:
    story = _leased()
    (failed,) = story.fail("a", retry_after_s=10**9)
    assert isinstance(failed, ev.AttemptFailed)
    assert failed.failure.retry_after.seconds == 24 * 3600
    story = _leased()
    with pytest.raises(InvalidArgument, match="retry_after"):
        story.fail("a", retry_after_s=-1)


@pytest.mark.parametrize(
    ("retry", "reason", "retryable"),
    [
        (plan.RetryPolicy(max_attempts=1), "BROKEN", True),
        (plan.RetryPolicy(), "BROKEN", False),
        (plan.RetryPolicy(non_retryable_reasons=["BROKEN"]), "BROKEN", True),
    ],
)
def test_what_is_not_tried_again(retry: plan.RetryPolicy, reason: str, retryable: bool) -> None:
    story = _leased(retry=retry)
    assert kinds(story.fail("a", reason, retryable=retryable)) == ["AttemptFailed", "RunFailed"]


def test_with_one_attempt_a_lost_task_is_never_started_again() -> None:
    story = _leased(retry=plan.RetryPolicy(max_attempts=1))
    assert kinds(story.lose("a")) == ["AttemptLost", "RunFailed"]
    with pytest.raises(LeaseLost):
        story.complete("a", epoch=1)


def test_a_loss_of_an_epoch_that_is_over_is_nothing() -> None:
    story = _leased()
    story.lose("a")
    story.lease("a")
    assert story.lose("a", epoch=1) == ()


def test_the_backoff_grows_is_capped_varies_by_task_and_is_the_same_every_time() -> None:
    policy = Retry(
        max_attempts=10_000,
        initial_interval_ns=SECOND,
        max_interval_ns=60 * SECOND,
        coefficient=2.0,
        jitter=0.0,
        non_retryable_reasons=(),
    )
    waits = [backoff_ns(policy, tries, b"") / SECOND for tries in (1, 2, 3, 7, 9_999)]
    assert waits == [1, 2, 4, 60, 60]
    varied = Retry(10_000, SECOND, 60 * SECOND, 1.0, 0.5, ())
    run = RunId("r")
    seeds = [attempt_seed(run, TaskName(f"t{index}"), 1, 1) for index in range(200)]
    waits = [backoff_ns(varied, 1, seed) / SECOND for seed in seeds]
    assert waits == [backoff_ns(varied, 1, seed) / SECOND for seed in seeds]
    assert 0.5 <= min(waits) < 0.6 and 1.4 < max(waits) <= 1.5


def test_the_newest_details_reach_the_next_attempt() -> None:
    story = _leased()
    details = Payload(json='{"done":7}')
    story.do(
        cmd.Lose(
            now_ns=story.now_ns,
            task=A,
            epoch=1,
            cause=ev.LOSS_CAUSE_EXPIRED,
            details=details,
        )
    )
    story.lease("a")
    assert story.state.tasks[A].details == details


def test_progress_is_recorded_when_it_is_new_and_at_most_once_in_10_s() -> None:
    story = _leased()

    def progress(text: str) -> list[str]:
        details = Payload(json=text)
        return kinds(story.do(cmd.Progress(now_ns=story.now_ns, task=A, epoch=1, details=details)))

    assert progress("1") == ["AttemptProgressed"]
    assert progress("2") == []
    story.wait(10)
    assert progress("1") == []
    assert progress("2") == ["AttemptProgressed"]


def test_a_refused_write_is_recorded_once_per_granted_epoch() -> None:
    story = _leased()

    def refuse(epoch: int) -> list[str]:
        return kinds(story.do(cmd.RecordRefusal(now_ns=story.now_ns, task=A, epoch=epoch)))

    assert refuse(1) == []  # It is current: nobody was refused.
    story.lose("a")
    story.lease("a")
    assert (refuse(1), refuse(1)) == (["WriteRefused"], [])
    assert refuse(7) == []  # Never granted.
    story.complete("a")
    assert refuse(2) == ["WriteRefused"]  # Allowed after the end.


def test_an_unknown_task_is_not_found() -> None:
    story = _leased()
    with pytest.raises(TaskNotFound):
        story.complete("nobody", epoch=1)
    with pytest.raises(TaskNotFound):
        queries.offer(story.state, TaskName("nobody"))


def test_a_worker_that_stopped_unasked_has_given_the_attempt_back() -> None:
    story = _leased()
    assert kinds(story.stopped("a")) == ["AttemptReleased"]
    assert story.stopped("a", epoch=1) == ()
    assert queries.offer(story.state, A) is not None
