"""Runs with a data key: what their digests are made with, and what is left after a shredding."""

from __future__ import annotations

import hmac

import pytest
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload, Shredded
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import InvalidArgument, Refusal
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run import evolve, new_run
from stretto_kernel.domain.run.canonical import success_digest
from stretto_kernel.domain.run.fingerprint import fingerprint
from stretto_kernel.domain.run.resource import to_run

from tests.model.runs import KEY_ID, NAMESPACE, RUN_ID, T0, Story, kinds, started, task

DIGEST_KEY = b"d" * 32


def encrypted() -> Story:
    story = Story(digest_key=DIGEST_KEY)
    story.start(plan.TaskGraph(tasks=[task("x"), task("y")]))
    return story


def test_digests_over_values_are_keyed_in_facts() -> None:
    story = encrypted()
    (leased,) = story.lease("x")
    (succeeded,) = story.complete("x")
    assert isinstance(succeeded, ev.AttemptSucceeded)
    plain = success_digest(Payload(json="1"), ())
    assert succeeded.outcome_digest == hmac.digest(DIGEST_KEY, plain, "sha256")
    clear = started(task("x"), task("y"))
    assert clear.lease("x")[0].manifest_digest != leased.manifest_digest  # type: ignore[attr-defined]


def test_a_repeat_is_known_after_a_fold_and_another_outcome_is_refused() -> None:
    story = encrypted()
    story.lease("x")
    story.complete("x")
    assert story.complete("x", epoch=1) == ()
    with pytest.raises(Refusal, match="another outcome"):
        story.complete("x", "2", epoch=1)


def test_the_same_start_again_is_answered_and_another_one_refused() -> None:
    story = encrypted()
    start = story.state.start
    assert start is not None
    assert start.request_digest != b"request-1", "what stands in the fact is keyed"
    again = cmd.StartRun(
        now_ns=T0,
        request_id=start.request_id,
        request_digest=b"request-1",
        graph=plan.TaskGraph(tasks=[task("x")]),
    )
    assert story.do(again) == ()


def test_a_shredded_run_shows_when_and_why_and_nothing_follows() -> None:
    story = encrypted()
    story.kill()
    story.wait(5)
    assert kinds(story.shred("gdpr 17")) == ["RunShredded"]
    shown = to_run(story.state, story.now_ns)
    assert shown.encrypted
    assert shown.shred_reason == "gdpr 17"
    assert shown.shred_time.ToNanoseconds() == story.now_ns
    assert shown.end_time.ToNanoseconds() == T0, "its end stays"
    assert story.shred("again") == ()
    assert to_run(story.state, story.now_ns).shred_reason == "gdpr 17"


def test_a_fold_without_the_key_says_the_same_of_the_shredding() -> None:
    story = encrypted()
    story.kill()
    story.shred()
    bare = new_run(RUN_ID, NAMESPACE)
    for recorded in story.log:
        evolve(bare, recorded)
    assert fingerprint(bare) == fingerprint(story.state)
    assert bare.key_id == KEY_ID


def test_the_fingerprint_of_a_clear_run_knows_nothing_of_keys() -> None:
    story = started(task("x"))
    twin = new_run(RUN_ID, NAMESPACE)
    (first,) = story.log
    evolve(twin, Recorded(*first[:5], key_id=9))
    assert fingerprint(twin) != fingerprint(story.state)


@pytest.mark.parametrize(
    "bad",
    [
        plan.TaskGraph(tasks=[task("x")], encrypted=b"x"),
        plan.TaskGraph(tasks=[plan.TaskSpec(name="x", executor="sleep", encrypted=b"x")]),
        plan.TaskGraph(
            tasks=[task("x", inputs={"a": plan.Binding(literal=Payload(encrypted=b"x"))})]
        ),
        plan.TaskGraph(
            tasks=[task("x", inputs={"a": plan.Binding(literal=Payload(shredded=Shredded()))})]
        ),
    ],
)
def test_what_is_encrypted_cannot_be_sent(bad: plan.TaskGraph) -> None:
    with pytest.raises(InvalidArgument, match=r"by the kernel|encrypted|shredded"):
        Story().start(bad)


def test_ciphertext_in_a_worker_s_failure_is_dropped() -> None:
    story = started(task("x"))
    story.lease("x")
    failure = Failure(reason="BROKEN", message="it broke", encrypted=b"forged")
    (failed, *_) = story.do(
        cmd.Fail(now_ns=story.now_ns, task=TaskName("x"), epoch=1, failure=failure)
    )
    assert isinstance(failed, ev.AttemptFailed)
    assert not failed.failure.encrypted
