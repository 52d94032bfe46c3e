"""Cancel, kill, fail-fast, holds, clean-up and the timers: how a run stops and how it ends."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto.run.v1 import run_pb2 as pb
from stretto_core.errors import InvalidArgument
from stretto_core.ids import RequestId, TaskName
from stretto_kernel.domain.requests import (
    REQUEST_KEPT_NS,
    REQUESTS_MAX,
    RequestIdLimit,
    RequestIdReused,
)
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run import decide, queries
from stretto_kernel.domain.run.refusals import (
    HoldLimit,
    LeaseLost,
    NotLeasable,
    RunClosed,
    RunNotFound,
)
from stretto_kernel.domain.run.resource import to_run, to_task

from tests.model.runs import Story, graph, kinds, started, task

A, B = TaskName("a"), TaskName("b")
FAIL_FAST = plan.FAILURE_POLICY_FAIL_FAST


def test_cancel_asks_holders_to_stop_and_ends_when_they_have() -> None:
    story = started(task("a"), task("b"), cancel_grace=Duration(seconds=7))
    story.lease("a")
    assert kinds(story.cancel("not needed")) == ["RunCancelRequested"]
    assert queries.run_state(story.state) == pb.RUN_STATE_CANCELLING
    assert queries.task_state(story.state, B, story.now_ns) == pb.TASK_STATE_CANCELLED
    signal = queries.stop_signal(story.state, A)
    assert signal is not None
    assert signal.deadline_ns == story.now_ns + 7 * 10**9
    with pytest.raises(NotLeasable):
        story.lease("b")
    events = story.stopped("a")
    assert kinds(events) == ["AttemptCancelled", "RunCancelled"]
    assert isinstance(events[-1], ev.RunCancelled) and events[-1].reason == "not needed"


def test_cancel_of_a_run_that_holds_nothing_ends_at_once() -> None:
    story = started(task("a"))
    assert kinds(story.cancel()) == ["RunCancelRequested", "RunCancelled"]
    assert story.cancel() == ()
    with pytest.raises(RunClosed):
        story.kill()


def test_a_result_is_welcome_until_the_grace_is_over() -> None:
    story = started(task("a"), task("b"))
    story.lease("a")
    story.lease("b")
    story.cancel(grace_s=5)
    assert kinds(story.complete("a")) == ["AttemptSucceeded"]
    (due,) = queries.run_due(story.state)
    story.wait(5)
    assert kinds(story.fire(due.timer)) == ["RunGraceEnded", "RunCancelled"]
    with pytest.raises(LeaseLost):
        story.complete("b")
    assert queries.task_state(story.state, B, story.now_ns) == pb.TASK_STATE_CANCELLED
    assert queries.open_lease(story.state, B) is None


def test_a_second_stop_gives_no_more_time_and_voids_the_first_timer() -> None:
    story = started(task("a"), task("b"), failure_policy=FAIL_FAST)
    story.lease("a")
    story.lease("b")
    story.fail("a", retryable=False)
    (first,) = queries.run_due(story.state)
    story.wait(4)
    story.cancel(grace_s=3_000)
    (second,) = queries.run_due(story.state)
    assert second.at_ns == first.at_ns
    story.wait(6)
    assert story.fire(first.timer) == ()
    assert kinds(story.fire(second.timer)) == ["RunGraceEnded", "RunCancelled"]


def test_a_cancel_in_the_clean_up_of_a_failed_run_gives_revoked_leases_nothing_back() -> None:
    story = started(task("a"), task("b"), task("tidy", clean_up=True), failure_policy=FAIL_FAST)
    story.lease("a")
    story.lease("b")
    story.fail("a", retryable=False)
    story.wait(10)
    (due,) = queries.run_due(story.state)
    story.fire(due.timer)
    assert [offer.task for offer in queries.every_offer(story.state)] == ["tidy"]
    story.cancel(grace_s=60)
    with pytest.raises(LeaseLost):
        story.complete("b")
    story.lease("tidy")
    assert kinds(story.complete("tidy")) == ["AttemptSucceeded", "RunCancelled"]


def test_the_first_failure_is_the_runs() -> None:
    story = started(task("a"), task("b"), run_timeout=Duration(seconds=60))
    story.lease("a")
    story.fail("a", "FIRST", retryable=False)
    story.wait(60)
    events = story.fire(cmd.RunTimeout())
    assert isinstance(events[-1], ev.RunFailed)
    assert events[-1].failure.reason == "FIRST"


def test_fail_fast_stops_what_runs_and_fails_with_the_first_failure() -> None:
    story = started(task("a"), task("b"), task("c"), failure_policy=FAIL_FAST)
    story.lease("a")
    story.lease("b")
    assert kinds(story.fail("a", "FIRST", retryable=False)) == ["AttemptFailed"]
    assert queries.stop_signal(story.state, B) is not None
    assert list(queries.every_offer(story.state)) == []
    events = story.fail("b", "SECOND", retryable=False)
    assert kinds(events) == ["AttemptFailed", "RunFailed"]
    assert isinstance(events[-1], ev.RunFailed)
    assert (events[-1].failure.reason, events[-1].failure.task) == ("FIRST", "a")


def test_continue_lets_independent_branches_finish() -> None:
    story = started(task("a"), task("b"))
    story.lease("a")
    assert kinds(story.fail("a", retryable=False)) == ["AttemptFailed"]
    story.lease("b")
    assert kinds(story.complete("b")) == ["AttemptSucceeded", "RunFailed"]


def test_kill_ends_at_once_without_clean_up() -> None:
    story = started(task("a"), task("tidy", clean_up=True))
    story.lease("a")
    assert kinds(story.kill("enough")) == ["RunKilled"]
    assert story.kill() == ()
    with pytest.raises(LeaseLost):
        story.complete("a")
    shown = to_run(story.state, story.now_ns)
    assert (shown.state, shown.end_reason) == (pb.RUN_STATE_KILLED, "enough")
    assert shown.task_counts.cancelled_count == 2
    assert queries.wake_up(story.state) is None


@pytest.mark.parametrize("ending", ["success", "failure", "cancel"])
def test_clean_up_runs_when_every_ordinary_task_has_ended(ending: str) -> None:
    story = started(task("a"), task("tidy", clean_up=True), task("last", "tidy", clean_up=True))
    story.lease("a")
    with pytest.raises(NotLeasable):
        story.lease("tidy")
    match ending:
        case "success":
            story.complete("a")
        case "failure":
            story.fail("a", retryable=False)
        case _:
            story.cancel()
            story.stopped("a")
    story.lease("tidy")
    assert kinds(story.complete("tidy")) == ["AttemptSucceeded"]
    story.lease("last")
    ends = {"success": "RunSucceeded", "failure": "RunFailed", "cancel": "RunCancelled"}
    assert kinds(story.complete("last")) == ["AttemptSucceeded", ends[ending]]


def test_a_failed_clean_up_fails_the_run() -> None:
    story = started(task("a"), task("tidy", clean_up=True))
    story.lease("a")
    story.complete("a")
    story.lease("tidy")
    events = story.fail("tidy", "LEFTOVER", retryable=False)
    assert isinstance(events[-1], ev.RunFailed)
    assert events[-1].failure.reason == "LEFTOVER"


def test_clean_up_is_bounded_in_time() -> None:
    story = started(task("a"), task("tidy", clean_up=True), clean_up_timeout=Duration(seconds=30))
    story.lease("a")
    story.complete("a")
    story.lease("tidy")
    (due,) = queries.run_due(story.state)
    assert due.timer == cmd.CleanUpTimeout()
    story.wait(30)
    events = story.fire(due.timer)
    assert kinds(events) == ["RunCleanUpTimedOut", "RunFailed"]
    assert isinstance(events[-1], ev.RunFailed)
    assert events[-1].failure.reason == "CLEAN_UP_TIMEOUT"
    with pytest.raises(LeaseLost):
        story.complete("tidy")


def test_a_hold_keeps_work_back_and_the_last_lift_gives_it_free() -> None:
    story = started(task("a"), task("b"))
    story.lease("a")
    story.hold("operator")
    story.hold("barrier")
    assert story.hold("operator") == ()
    assert queries.run_state(story.state) == pb.RUN_STATE_PAUSED
    assert queries.wait_reason(story.state, B, story.now_ns) == pb.WAIT_REASON_HOLD
    with pytest.raises(NotLeasable):
        story.lease("b")
    assert kinds(story.complete("a")) == ["AttemptSucceeded"]  # Attempts go on.
    story.lift("operator")
    assert list(queries.every_offer(story.state)) == []
    story.lift("barrier")
    assert [offer.task for offer in queries.every_offer(story.state)] == ["b"]
    assert story.lift("barrier") == ()


def test_a_run_bears_so_many_holds() -> None:
    story = started(task("a"))
    for index in range(16):
        story.hold(f"h{index}")
    with pytest.raises(HoldLimit):
        story.hold("one-more")


def test_a_cancelled_run_cleans_up_though_it_is_held() -> None:
    story = started(task("a"), task("tidy", clean_up=True))
    story.hold()
    story.cancel()
    assert [offer.task for offer in queries.every_offer(story.state)] == ["tidy"]


def _timed(**timeouts: int) -> Story:
    spans = {name: Duration(seconds=seconds) for name, seconds in timeouts.items()}
    return started(task("a", timeouts=plan.Timeouts(**spans)))


def test_the_queue_timeout_counts_from_ready_and_stands_still_while_held() -> None:
    story = _timed(queue=10)
    timer = cmd.QueueTimeout(A, 0)
    story.wait(4)
    story.hold()
    assert queries.task_due(story.state, A) == ()
    story.wait(100)
    assert story.fire(timer) == ()
    story.lift()
    (due,) = queries.task_due(story.state, A)
    assert due.timer == timer and due.at_ns == story.now_ns + 6 * 10**9
    story.wait(5)
    assert story.fire(timer) == ()
    story.wait(1)
    events = story.fire(timer)
    assert isinstance(events[0], ev.TaskFailed)
    assert events[0].failure.reason == "QUEUE_TIMEOUT"
    assert kinds(events) == ["TaskFailed", "RunFailed"]


def test_nested_holds_stand_still_once() -> None:
    story = _timed(queue=10)
    story.hold("one")
    story.wait(5)
    story.hold("two")
    story.lift("one")
    story.wait(5)
    story.lift("two")
    story.wait(1)
    story.hold("three")
    story.wait(3)
    story.lift("three")
    (due,) = queries.task_due(story.state, A)
    assert due.at_ns == story.now_ns + 9 * 10**9  # One second of the ten has run.


def test_a_queue_timeout_is_void_once_leased_and_armed_anew_when_offered_again() -> None:
    story = _timed(queue=10)
    story.lease("a")
    story.wait(10)
    assert story.fire(cmd.QueueTimeout(A, 0)) == ()
    story.lose("a")
    assert story.fire(cmd.QueueTimeout(A, 0)) == ()
    (due,) = queries.task_due(story.state, A)
    assert due.timer == cmd.QueueTimeout(A, 1) and due.at_ns == story.now_ns + 10 * 10**9


def test_the_attempt_timeout_ends_one_attempt_and_is_tried_again() -> None:
    story = _timed(attempt=5)
    story.lease("a")
    story.wait(5)
    assert kinds(story.fire(cmd.AttemptTimeout(A, 1))) == ["AttemptTimedOut"]
    with pytest.raises(LeaseLost):
        story.complete("a", epoch=1)  # Its time was up: late is no excuse here.
    assert story.fire(cmd.AttemptTimeout(A, 1)) == ()
    story.wait(10)
    assert kinds(story.lease("a")) == ["AttemptLeased"]


def test_the_task_timeout_counts_over_all_attempts_and_revokes_the_lease() -> None:
    story = _timed(task=10)
    story.lease("a")
    story.lose("a")
    story.wait(5)
    story.lease("a")
    story.wait(5)
    events = story.fire(cmd.TaskTimeout(A, 1))
    assert kinds(events) == ["TaskFailed", "RunFailed"]
    with pytest.raises(LeaseLost):
        story.complete("a", epoch=2)


def test_the_run_timeout_stops_the_run_and_clean_up_is_excepted() -> None:
    story = started(task("a"), task("tidy", clean_up=True), run_timeout=Duration(seconds=60))
    story.lease("a")
    story.wait(60)
    assert kinds(story.fire(cmd.RunTimeout())) == ["RunTimedOut"]
    story.stopped("a")
    assert story.fire(cmd.RunTimeout()) == ()
    story.lease("tidy")
    events = story.complete("tidy")
    assert isinstance(events[-1], ev.RunFailed)
    assert events[-1].failure.reason == "RUN_TIMEOUT"


def test_an_unsealed_plan_fails_without_a_slice_in_time() -> None:
    story = started(task("a"), growing=True, slice_timeout=Duration(seconds=60))
    story.wait(50)
    story.add(task("b"))
    story.wait(50)
    assert story.fire(cmd.PlanSliceTimeout(1)) == ()
    story.wait(10)
    events = story.fire(cmd.PlanSliceTimeout(2))
    assert kinds(events) == ["PlanExpired", "RunFailed"]
    assert isinstance(events[-1], ev.RunFailed)
    assert events[-1].failure.reason == "PLAN_NOT_SEALED"


def test_a_cancelled_holder_of_a_join_has_its_own_grace() -> None:
    join = plan.JoinRule(kind=plan.JOIN_KIND_ANY_SUCCEEDED, rest=plan.JOIN_REST_CANCELLED)
    story = started(task("a"), task("b"), task("c", "a", "b", join=join))
    story.lease("a")
    story.lease("b")
    story.complete("a")
    (due,) = queries.task_due(story.state, B)
    assert due.timer == cmd.AttemptGraceEnded(B, 1)
    story.wait(10)
    (ended,) = story.fire(due.timer)
    assert isinstance(ended, ev.AttemptCancelled) and ended.forced
    story.lease("c")
    assert kinds(story.complete("c")) == ["AttemptSucceeded", "RunSucceeded"]


def test_a_start_is_its_request_for_ever() -> None:
    story = Story()
    command = cmd.StartRun(
        now_ns=story.now_ns,
        request_id=RequestId("r"),
        request_digest=b"1",
        graph=graph(task("a")),
    )
    story.do(command)
    story.wait(10**6)
    assert decide(story.state, command) == ()
    other = cmd.StartRun(
        now_ns=story.now_ns,
        request_id=RequestId("r"),
        request_digest=b"2",
        graph=graph(task("b")),
    )
    with pytest.raises(RequestIdReused):
        decide(story.state, other)


def test_a_request_is_remembered_for_a_day_and_its_id_is_not_anothers() -> None:
    story = started(task("a"))

    def hold(hold_id: str, digest: bytes) -> list[str]:
        return kinds(
            story.do(
                cmd.PlaceHold(
                    now_ns=story.now_ns,
                    request_id=RequestId("r"),
                    request_digest=digest,
                    hold_id=hold_id,
                )
            )
        )

    assert hold("one", b"1") == ["HoldPlaced"]
    story.lift("one")
    assert hold("one", b"1") == []  # Not placed a second time.
    with pytest.raises(RequestIdReused):
        hold("two", b"2")
    story.now_ns += REQUEST_KEPT_NS + 1
    story.hold("later")
    assert RequestId("r") not in story.state.requests
    assert hold("two", b"2") == ["HoldPlaced"]


def test_nothing_is_known_of_a_run_that_never_started() -> None:
    with pytest.raises(RunNotFound):
        Story().cancel()


def test_a_grace_beyond_its_limit_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        started(task("a")).cancel(grace_s=3_601)


def test_what_is_shown_of_a_run_and_its_tasks() -> None:
    story = started(task("a"), task("b", "a"))
    story.lease("a")
    story.fail("a")
    shown = to_run(story.state, story.now_ns)
    assert (shown.version, shown.task_counts.waiting_count) == (3, 1)
    a = to_task(story.state, A, story.now_ns)
    assert a.name.endswith("/tasks/a")
    assert (a.state, a.wait_reason) == (pb.TASK_STATE_WAITING, pb.WAIT_REASON_BACKOFF)
    assert (a.attempt, a.epoch, a.failure.reason) == (1, 1, "BROKEN")
    assert to_task(story.state, A, a.not_before_time.ToNanoseconds()).state == pb.TASK_STATE_READY
    assert list(to_task(story.state, B, story.now_ns).dependencies) == ["a"]


def test_touched_names_what_changed_and_run_wide_facts_name_no_task() -> None:
    story = started(task("a"), task("b", "a"), task("c"))
    story.state.take_touched()
    story.lease("a")
    assert story.state.take_touched().tasks == ("a",)
    story.complete("a")
    touched = story.state.take_touched()
    assert set(touched.tasks) == {"a", "b"} and not touched.run_wide
    story.lease("b")
    story.state.take_touched()
    story.cancel()
    touched = story.state.take_touched()
    assert touched.tasks == () and touched.run_wide


def test_a_run_remembers_so_many_requests_and_refuses_more_until_the_oldest_is_a_day_old() -> None:
    story = started(task("a"))
    known = story.state.requests
    known.update((RequestId(str(count)), (b"", story.now_ns, 1)) for count in range(REQUESTS_MAX))
    with pytest.raises(RequestIdLimit):
        story.hold("one more")
    story.now_ns += REQUEST_KEPT_NS + 1
    story.hold("later")
    assert len(known) == 1
