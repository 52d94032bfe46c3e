"""The kernel's end of a work stream: frames in, frames out, no loop and no clock."""

from __future__ import annotations

from typing import Any

import pytest
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.work.v1 import work_pb2
from stretto.work.v1.work_service_pb2 import WorkRequest, WorkResponse
from stretto_core.clock import NS_PER_S
from stretto_core.errors import InvalidArgument
from stretto_kernel.dispatch import session as words
from stretto_kernel.dispatch.session import WorkSession

SESSION_ID = "01890000-0000-7000-8000-000000000001"
HELLO = work_pb2.Hello(worker_id="w", session_id=SESSION_ID, executors=["test"])


def token(epoch: int = 1, task: str = "a") -> LeaseToken:
    return LeaseToken(work_item=f"namespaces/default/runs/r/tasks/{task}", epoch=epoch)


def assignment(epoch: int = 1) -> work_pb2.Assignment:
    return work_pb2.Assignment(token=token(epoch), task="a")


def greeted(**frame: Any) -> WorkSession:
    session = WorkSession(1, 0)
    session.receive(WorkRequest(hello=HELLO, **frame), 0)
    session.welcome([])
    assert session.next_frame(0) is not None
    return session


def said(session: WorkSession, now_s: float = 0) -> list[WorkResponse]:
    frames = []
    while (frame := session.next_frame(round(now_s * NS_PER_S))) is not None:
        frames.append(frame)
    return frames


def test_the_first_frame_is_a_hello_and_only_the_first() -> None:
    with pytest.raises(InvalidArgument):
        WorkSession(1, 0).receive(WorkRequest(credit_total_count=1), 0)
    session = greeted()
    other = work_pb2.Hello(worker_id="x", session_id=SESSION_ID, executors=["test"])
    with pytest.raises(InvalidArgument):
        session.receive(WorkRequest(hello=other), 0)


def test_a_hello_that_came_twice_is_welcomed_twice() -> None:
    session = greeted(credit_total_count=2)
    assert session.receive(WorkRequest(hello=HELLO), 0) == []
    assert said(session)[0].HasField("welcome")


@pytest.mark.parametrize(
    "wrong",
    [
        {"worker_id": ""},
        {"worker_id": "x" * 129},
        {"session_id": "not a uuid"},
        {"session_id": "3f2b8a52-5d1f-4f6f-9a2b-000000000000"},
        {"executors": []},
        {"executors": ["a\n"]},
        {"queues": ["x" * 129]},
        {"slot_count": -1},
    ],
)
def test_a_wrong_hello_is_refused_by_field(wrong: dict[str, Any]) -> None:
    right = {"worker_id": "w", "session_id": SESSION_ID, "executors": ["test"]}
    hello = work_pb2.Hello(**{**right, **wrong})
    with pytest.raises(InvalidArgument) as refused:
        WorkSession(1, 0).receive(WorkRequest(hello=hello), 0)
    (violation,) = refused.value.violations
    assert violation.field.startswith(f"hello.{next(iter(wrong))}")


def test_nothing_leaves_before_the_welcome() -> None:
    session = WorkSession(1, 0)
    session.receive(WorkRequest(hello=HELLO, credit_total_count=1), 0)
    session.reserve_credit()
    session.assign(assignment(), 0)
    assert said(session) == []
    session.welcome([token(9)])
    (frame,) = said(session)
    assert frame.welcome.drop == [token(9)] and len(frame.assignments) == 1


def test_credits_are_cumulative_and_never_fall() -> None:
    session = greeted(credit_total_count=3)
    assert session.free_credits == 3
    session.reserve_credit()
    assert session.receive(WorkRequest(credit_total_count=2), 0) == []
    assert session.free_credits == 2
    heard = session.receive(WorkRequest(credit_total_count=4), 0)
    assert heard == [words.CreditsChanged()] and session.free_credits == 3
    session.return_credit()
    assert session.free_credits == 4


def test_a_draining_worker_has_no_credits() -> None:
    session = greeted(credit_total_count=3)
    assert session.receive(WorkRequest(draining=True), 0) == [words.CreditsChanged()]
    assert session.free_credits == 0 and session.is_draining


def test_a_worker_whose_lease_ran_out_is_offered_nothing_until_it_is_heard() -> None:
    session = greeted(credit_total_count=3)
    session.doubt()
    assert session.free_credits == 0
    heard = session.receive(WorkRequest(), 0)
    assert heard == [words.CreditsChanged()]
    assert session.free_credits == 3


def test_an_assignment_is_sent_again_until_it_is_acknowledged() -> None:
    session = greeted(credit_total_count=1)
    session.reserve_credit()
    session.assign(assignment(), 0)
    assert len(said(session)) == 1
    assert said(session, 0.5) == []
    assert session.next_due_mono_ns() == words.RESEND_NS
    assert said(session, 1.0)[0].assignments[0].token == token()
    session.receive(WorkRequest(acknowledged=[token()]), NS_PER_S)
    assert said(session, 2.5) == []


@pytest.mark.parametrize(
    "word",
    [
        {"renewals": [work_pb2.Renewal(token=token())]},
        {"outcomes": [work_pb2.Outcome(token=token())]},
    ],
)
def test_any_word_about_an_assignment_acknowledges_it(word: dict[str, Any]) -> None:
    session = greeted(credit_total_count=1)
    session.reserve_credit()
    session.assign(assignment(), 0)
    said(session)
    session.receive(WorkRequest(**word), 0)
    assert not session.forget_assignment(("namespaces/default/runs/r/tasks/a", 1))
    assert session.free_credits == 0


def test_a_lease_that_ended_unacknowledged_gives_its_credit_back() -> None:
    session = greeted(credit_total_count=1)
    session.reserve_credit()
    session.assign(assignment(), 0)
    key = ("namespaces/default/runs/r/tasks/a", 1)
    assert session.forget_assignment(key) and not session.forget_assignment(key)
    assert session.free_credits == 1 and said(session) == []


@pytest.mark.parametrize(
    "word",
    [
        {"acknowledged": [token()]},
        {"renewals": [work_pb2.Renewal(token=token())]},
        {"outcomes": [work_pb2.Outcome(token=token())]},
    ],
)
def test_a_credit_that_came_back_is_used_after_all_once_the_assignment_is_heard_of(
    word: dict[str, Any],
) -> None:
    """Else its worker, which counts it as accepted, would seem to have room for ever."""
    session = greeted(credit_total_count=1)
    session.reserve_credit()
    session.assign(assignment(), 0)
    said(session)
    assert session.forget_assignment(("namespaces/default/runs/r/tasks/a", 1))
    session.receive(WorkRequest(**word, credit_total_count=1), 0)
    assert session.free_credits == 0
    session.receive(WorkRequest(**word, credit_total_count=2), 0)
    assert session.free_credits == 1


def test_what_a_frame_says_is_heard_in_the_order_to_act_on_it() -> None:
    session = greeted()
    outcome = work_pb2.Outcome(token=token(1))
    renewal = work_pb2.Renewal(token=token(2))
    spawn = work_pb2.Spawn(token=token(3))
    frame = WorkRequest(
        acknowledged=[token(4)],
        renewals=[renewal],
        outcomes=[outcome],
        spawns=[spawn],
        credit_total_count=1,
        goodbye=work_pb2.Goodbye(),
    )
    assert session.receive(frame, 0) == [
        words.Acknowledged((token(4),)),
        words.SpawnsAsked((spawn,)),
        words.Reported((outcome,)),
        words.Renewed((renewal,)),
        words.CreditsChanged(),
        words.SaidGoodbye(),
    ]


def test_many_outcomes_are_heard_in_parts() -> None:
    outcomes = [work_pb2.Outcome(token=token(epoch)) for epoch in range(1, 61)]
    heard = greeted().receive(WorkRequest(outcomes=outcomes), 0)
    assert [len(part.outcomes) for part in heard if isinstance(part, words.Reported)] == [
        25,
        25,
        10,
    ]


def test_what_is_said_together_leaves_in_one_frame_within_its_limits() -> None:
    session = greeted(credit_total_count=3_000)
    for epoch in range(1, 2_501):
        session.reserve_credit()
        session.assign(assignment(epoch), 0)
    session.answer(work_pb2.Receipt(token=token()))
    session.signal(work_pb2.Signal(token=token()))
    session.drain("ending")
    frames = said(session)
    assert [len(frame.assignments) for frame in frames] == [1_000, 1_000, 500]
    assert frames[0].receipts and frames[0].signals and frames[0].drain.reason == "ending"


def test_a_frame_of_large_assignments_stays_below_the_message_limit() -> None:
    session = greeted(credit_total_count=200)
    for epoch in range(1, 101):
        session.reserve_credit()
        large = assignment(epoch)
        large.inputs["x"].CopyFrom(Payload(json="x" * 60_000))
        session.assign(large, 0)
    frames = said(session)
    assert sum(len(frame.assignments) for frame in frames) == 100
    assert max(frame.ByteSize() for frame in frames) < 4 * 1024 * 1024


def test_an_idle_stream_is_kept_alive_and_silence_is_noticed() -> None:
    session = greeted()
    assert said(session, 4.9) == []
    assert said(session, 5.0) == [WorkResponse()]
    assert not session.is_silent(14 * NS_PER_S)
    assert session.is_silent(15 * NS_PER_S)
    session.receive(WorkRequest(), 15 * NS_PER_S)
    assert not session.is_silent(16 * NS_PER_S)


def test_too_many_items_are_refused() -> None:
    session = greeted()
    with pytest.raises(InvalidArgument):
        session.receive(WorkRequest(acknowledged=[token()] * 1_001), 0)
