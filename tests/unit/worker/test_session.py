"""The worker's session machine: one behaviour a test, frames built by hand."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2
from stretto.common.v1 import lease_pb2, payload_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire
from stretto_core.clock import NS_PER_S
from stretto_sdk.worker.effects import (
    CloseStream,
    Exit,
    LeaseKey,
    OutcomeSettled,
    SessionSettings,
    SpawnAnswered,
    Start,
    Stop,
    StopKind,
    Stopped,
    Succeeded,
)
from stretto_sdk.worker.session import WorkSession
from stretto_sdk.worker.stream import ACKNOWLEDGE_NS, FRAME_BYTES_MAX

RENEW_S = 5
IDLE_S = 15


def a_session(slots: int = 2) -> WorkSession:
    return WorkSession(
        SessionSettings(worker_id="w", session_id="s1", executors=("python",), slot_count=slots)
    )


def a_key(name: str = "a", epoch: int = 1) -> LeaseKey:
    return LeaseKey(name, epoch)


def a_token(key: LeaseKey) -> lease_pb2.LeaseToken:
    return lease_pb2.LeaseToken(work_item=key.work_item, epoch=key.epoch, secret=b"secret")


def welcome(*drop: LeaseKey) -> wire.WorkResponse:
    frame = wire.WorkResponse()
    frame.welcome.renew_interval.seconds = RENEW_S
    frame.welcome.idle_timeout.seconds = IDLE_S
    frame.welcome.drop.extend(a_token(key) for key in drop)
    return frame


def assigning(*keys: LeaseKey) -> wire.WorkResponse:
    frame = wire.WorkResponse()
    for key in keys:
        assignment = frame.assignments.add(token=a_token(key), kind=lease_pb2.WORK_ITEM_KIND_TASK)
        assignment.ttl.seconds = 30
    return frame


def a_status(code: int = code_pb2.OK, reason: str = "") -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=reason.lower())
    if reason:
        packed = Any()
        packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="stretto.dev"))
        status.details.append(packed)
    return status


def receipt(
    key: LeaseKey,
    status: status_pb2.Status | None = None,
    kind: int = work_pb2.RECEIPT_KIND_OUTCOME,
    request_id: str = "",
) -> wire.WorkResponse:
    frame = wire.WorkResponse()
    frame.receipts.add(
        token=a_token(key),
        status=status or a_status(),
        kind=kind,
        request_id=request_id,
    )
    return frame


def signal(key: LeaseKey, kind: int, deadline_s: int = 0) -> wire.WorkResponse:
    frame = wire.WorkResponse()
    sent = frame.signals.add(token=a_token(key), kind=kind)
    if deadline_s:
        sent.deadline_time.seconds = deadline_s
    return frame


def greeted(session: WorkSession, now_ns: int = 0) -> WorkSession:
    session.connected(now_ns)
    assert session.take_frame(now_ns) is not None
    session.receive(welcome(), now_ns)
    while session.take_frame(now_ns) is not None:
        pass
    return session


def working(*keys: LeaseKey, slots: int = 2) -> WorkSession:
    session = greeted(a_session(slots))
    session.receive(assigning(*keys), 0)
    session.take_frame(ACKNOWLEDGE_NS)
    return session


def frame_of(session: WorkSession, now_ns: int = 0) -> wire.WorkRequest:
    frame = session.take_frame(now_ns)
    assert frame is not None
    return frame


def test_the_hello_names_every_lease_held_and_grants_what_is_free() -> None:
    session = working(a_key("a"), a_key("b"), slots=3)
    session.end(a_key("b"), Succeeded())
    session.disconnected()
    session.connected(1)
    frame = frame_of(session, 1)
    assert [token.work_item for token in frame.hello.held] == ["a", "b"]
    assert frame.hello.held[0].secret == b"secret"
    assert frame.credit_total_count == 2
    assert session.take_frame(1) is None, "the welcome comes first"


def test_assignments_are_acknowledged_and_ended_bodies_free_their_slot() -> None:
    session = greeted(a_session())
    effects = session.receive(assigning(a_key("a"), a_key("b")), 0)
    assert [type(effect) for effect in effects] == [Start, Start]
    assert session.next_wake_ns(0) == 0
    frame = frame_of(session)
    assert [token.work_item for token in frame.acknowledged] == ["a", "b"]
    assert frame.credit_total_count == 2
    session.end(a_key("a"), Succeeded(payload_pb2.Payload(json="1")))
    frame = frame_of(session)
    assert frame.outcomes[0].succeeded.result.json == "1"
    assert frame.credit_total_count == 3


def with_a_short_body(session: WorkSession) -> WorkSession:
    session.receive(assigning(a_key("short")), 0)
    assert frame_of(session).acknowledged, "nothing is known of its bodies yet"
    session.end(a_key("short"), Succeeded())
    assert frame_of(session, ACKNOWLEDGE_NS - 1).outcomes
    return session


def test_short_bodies_are_acknowledged_by_their_outcome() -> None:
    session = with_a_short_body(greeted(a_session(3)))
    session.receive(assigning(a_key("a"), a_key("b")), 0)
    assert session.next_wake_ns(0) == ACKNOWLEDGE_NS
    assert session.take_frame(ACKNOWLEDGE_NS - 1) is None
    session.end(a_key("a"), Succeeded())
    frame = frame_of(session, ACKNOWLEDGE_NS - 1)
    assert [outcome.token.work_item for outcome in frame.outcomes] == ["a"]
    assert [token.work_item for token in frame.acknowledged] == ["b"], "it goes with the frame"
    assert session.take_frame(ACKNOWLEDGE_NS) is None


def test_after_a_body_that_was_not_short_the_next_is_acknowledged_at_once() -> None:
    session = with_a_short_body(greeted(a_session(3)))
    session.receive(assigning(a_key("a")), 0)
    assert frame_of(session, ACKNOWLEDGE_NS).acknowledged
    session.receive(assigning(a_key("b")), ACKNOWLEDGE_NS)
    assert [token.work_item for token in frame_of(session, ACKNOWLEDGE_NS).acknowledged] == ["b"]


@pytest.mark.parametrize("again", [a_key("a", 2), a_key("a", 1)])
def test_a_repeated_or_older_assignment_starts_nothing(again: LeaseKey) -> None:
    session = working(a_key("a", 2))
    assert session.receive(assigning(again), ACKNOWLEDGE_NS) == []
    frame = session.take_frame(2 * ACKNOWLEDGE_NS)
    acknowledged = [] if frame is None else [token.epoch for token in frame.acknowledged]
    assert acknowledged == ([2] if again.epoch == 2 else [])


def test_an_assignment_that_comes_after_its_revocation_starts_nothing() -> None:
    session = greeted(a_session())
    session.receive(signal(a_key(), work_pb2.SIGNAL_KIND_REVOKE), 0)
    assert session.receive(assigning(a_key()), 0) == []
    assert session.body_count == 0


def test_an_outcome_that_no_frame_can_carry_is_a_failure() -> None:
    session = working(a_key())
    session.end(a_key(), Succeeded(payload_pb2.Payload(json="1" * FRAME_BYTES_MAX)))
    (outcome,) = frame_of(session).outcomes
    assert outcome.failed.reason == "RESULT_TOO_LARGE"
    assert outcome.ByteSize() < 1_000


def test_nothing_more_is_granted_while_too_many_outcomes_have_no_receipt() -> None:
    settings = SessionSettings(
        worker_id="w",
        session_id="s1",
        executors=("python",),
        slot_count=2,
        outcome_pending_count_max=1,
    )
    session = greeted(WorkSession(settings))
    session.receive(assigning(a_key()), 0)
    session.end(a_key(), Succeeded())
    assert frame_of(session).credit_total_count == 2, "the slot is free, and is not told of"
    session.receive(receipt(a_key()), 0)
    assert frame_of(session).credit_total_count == 3


def test_a_settled_assignment_never_runs_again() -> None:
    session = working(a_key())
    session.end(a_key(), Succeeded())
    frame_of(session)
    assert session.receive(receipt(a_key()), 0) == [OutcomeSettled(a_key())]
    assert session.receive(assigning(a_key()), 0) == []


def test_a_later_lease_of_the_same_work_item_revokes_the_older_body() -> None:
    session = working(a_key("a", 1))
    effects = session.receive(assigning(a_key("a", 2)), 0)
    assert effects[0] == Stop(a_key("a", 1), StopKind.REVOKE, "LEASE_LOST")
    assert isinstance(effects[1], Start)
    session.end(a_key("a", 1), Succeeded())
    assert not frame_of(session).outcomes


def test_more_than_was_granted_is_given_back() -> None:
    session = working(a_key("a"), a_key("b"))
    assert session.receive(assigning(a_key("c")), 0) == []
    assert frame_of(session).outcomes[0].HasField("released")


def test_renewals_leave_before_a_third_of_the_ttl_and_together() -> None:
    session = working(a_key("a"))
    session.receive(assigning(a_key("b")), 2 * NS_PER_S)
    session.take_frame(2 * NS_PER_S + ACKNOWLEDGE_NS)
    assert session.next_wake_ns(2 * NS_PER_S) == RENEW_S * NS_PER_S
    frame = frame_of(session, RENEW_S * NS_PER_S)
    assert {renewal.token.work_item for renewal in frame.renewals} == {"a", "b"}


def test_details_of_many_bodies_fit_into_messages() -> None:
    session = a_session(slots=100)
    keys = [a_key(f"t{number}") for number in range(100)]
    session.connected(0)
    assert session.take_frame(0) is not None
    session.receive(welcome(), 0)
    session.receive(assigning(*keys), 0)
    for key in keys:
        session.heartbeat(key, payload_pb2.Payload(json='"' + "x" * 65_000 + '"'), 0)
    frames = []
    while (frame := session.take_frame(0)) is not None:
        frames.append(frame)
    assert max(frame.ByteSize() for frame in frames) < 4 << 20
    assert {each.token.work_item for frame in frames for each in frame.renewals} == {
        key.work_item for key in keys
    }


def test_the_newest_details_leave_at_once_and_then_at_most_twice_a_second() -> None:
    session = working(a_key())
    for value, sent_at_ns, now_ns in (("1", 0, 0), ("3", NS_PER_S // 2, 10)):
        session.heartbeat(a_key(), payload_pb2.Payload(json="0"), now_ns)
        session.heartbeat(a_key(), payload_pb2.Payload(json=value), now_ns)
        assert session.next_wake_ns(now_ns) == max(sent_at_ns, now_ns)
        assert frame_of(session, sent_at_ns).renewals[0].details.json == value


def test_an_outcome_is_sent_on_every_stream_until_its_receipt() -> None:
    session = working(a_key())
    session.heartbeat(a_key(), payload_pb2.Payload(json="7"), 0)
    session.end(a_key(), Succeeded())
    assert frame_of(session).outcomes[0].details.json == "7"
    session.disconnected()
    session.connected(1)
    frame_of(session, 1)
    session.receive(welcome(), 1)
    assert len(frame_of(session, 1).outcomes) == 1
    session.receive(receipt(a_key()), 1)
    assert session.held == ()


def test_an_outcome_without_receipt_is_sent_again_on_the_same_stream() -> None:
    session = working(a_key())
    session.end(a_key(), Succeeded())
    frame_of(session)
    assert session.next_wake_ns(1) == RENEW_S * NS_PER_S
    assert frame_of(session, RENEW_S * NS_PER_S).outcomes


@pytest.mark.parametrize(
    ("status", "again", "settled"),
    [
        (a_status(), 0, True),
        (a_status(code_pb2.UNAVAILABLE, "STORE_DOWN"), 1, False),
        (a_status(code_pb2.FAILED_PRECONDITION, "LEASE_LOST"), 0, True),
        (a_status(code_pb2.ALREADY_EXISTS, "RESULT_CONFLICT"), 0, True),
        (a_status(code_pb2.PERMISSION_DENIED, "WRONG_SECRET"), 0, True),
    ],
)
def test_what_a_receipt_does(status: status_pb2.Status, again: int, settled: bool) -> None:
    session = working(a_key())
    session.end(a_key(), Succeeded())
    frame_of(session)
    session.receive(receipt(a_key(), status), 0)
    assert (session.held == ()) is settled
    frame = session.take_frame(NS_PER_S)
    assert len(frame.outcomes if frame else []) == again


def test_an_outcome_refused_for_its_content_becomes_a_failure_once() -> None:
    session = working(a_key())
    session.end(a_key(), Succeeded())
    frame_of(session)
    refusal = a_status(code_pb2.FAILED_PRECONDITION, "SPAWN_NOT_ALLOWED")
    assert session.receive(receipt(a_key(), refusal), 0) == []
    outcome = frame_of(session).outcomes[0]
    assert outcome.failed.reason == "SPAWN_NOT_ALLOWED"
    assert not outcome.failed.retryable
    settled = session.receive(receipt(a_key(), refusal), 0)
    assert settled == [OutcomeSettled(a_key(), "SPAWN_NOT_ALLOWED")]


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (work_pb2.SIGNAL_KIND_CANCEL, "cancelled"),
        (work_pb2.SIGNAL_KIND_INTERRUPT, "released"),
        (work_pb2.SIGNAL_KIND_REVOKE, None),
    ],
)
def test_a_stopped_body_reports_what_it_was_asked_for(kind: int, outcome: str | None) -> None:
    session = working(a_key())
    (stop,) = session.receive(signal(a_key(), kind, deadline_s=9), 0)
    assert isinstance(stop, Stop)
    if kind == work_pb2.SIGNAL_KIND_CANCEL:
        assert stop.deadline_ns == 9 * NS_PER_S
    session.end(a_key(), Stopped())
    outcomes = frame_of(session).outcomes
    assert [each.WhichOneof("result") for each in outcomes] == ([outcome] if outcome else [])


def test_a_weaker_signal_never_overrides_a_stronger_one() -> None:
    session = working(a_key())
    session.receive(signal(a_key(), work_pb2.SIGNAL_KIND_CANCEL), 0)
    assert session.receive(signal(a_key(), work_pb2.SIGNAL_KIND_INTERRUPT), 0) == []


def test_a_revoked_body_keeps_its_slot_until_it_has_ended() -> None:
    session = working(a_key("a"), slots=1)
    session.receive(signal(a_key("a"), work_pb2.SIGNAL_KIND_REVOKE), 0)
    assert session.held == ()
    assert session.take_frame(0) is None
    session.end(a_key("a"), Stopped())
    assert frame_of(session).credit_total_count == 2


def test_a_refused_renewal_revokes_a_running_body_but_not_an_outcome_on_its_way() -> None:
    lost = a_status(code_pb2.FAILED_PRECONDITION, "LEASE_LOST")
    session = working(a_key("a"), a_key("b"))
    session.end(a_key("b"), Succeeded())
    renewal = work_pb2.RECEIPT_KIND_RENEWAL
    assert session.receive(receipt(a_key("a"), lost, renewal), 0) == [
        Stop(a_key("a"), StopKind.REVOKE, "LEASE_LOST")
    ]
    assert session.receive(receipt(a_key("b"), lost, renewal), 0) == []
    assert session.held == (a_key("b"),)


def test_the_welcome_drops_what_is_no_longer_ours() -> None:
    session = working(a_key("a"), a_key("b"))
    session.end(a_key("b"), Succeeded())
    session.disconnected()
    session.connected(0)
    frame_of(session)
    assert session.receive(welcome(a_key("a"), a_key("b")), 0) == [
        Stop(a_key("a"), StopKind.REVOKE, "LEASE_LOST"),
        OutcomeSettled(a_key("b"), "LEASE_LOST"),
    ]


def test_a_spawn_is_kept_until_answered() -> None:
    session = working(a_key())
    assert session.spawn(a_key(), "r1", ()) == []
    assert frame_of(session).spawns[0].request_id == "r1"
    session.disconnected()
    session.connected(0)
    frame_of(session)
    session.receive(welcome(), 0)
    assert frame_of(session).spawns[0].request_id == "r1"
    refused = a_status(code_pb2.RESOURCE_EXHAUSTED, "TASK_LIMIT")
    answer = receipt(a_key(), refused, work_pb2.RECEIPT_KIND_SPAWN, "r1")
    assert session.receive(answer, 0) == [SpawnAnswered(a_key(), "r1", "TASK_LIMIT", "task_limit")]
    assert session.receive(answer, 0) == []


def test_a_spawn_of_a_lost_lease_is_answered_at_once() -> None:
    session = working(a_key())
    session.spawn(a_key(), "r1", ())
    effects = session.receive(signal(a_key(), work_pb2.SIGNAL_KIND_REVOKE), 0)
    assert effects[0] == SpawnAnswered(a_key(), "r1", "LEASE_LOST", "LEASE_LOST")
    (answer,) = session.spawn(a_key(), "r2", ())
    assert isinstance(answer, SpawnAnswered) and answer.reason == "LEASE_LOST"


def test_a_drain_finishes_what_runs_and_then_says_goodbye() -> None:
    session = working(a_key("a"))
    session.drain()
    frame = frame_of(session)
    assert frame.draining and not frame.HasField("goodbye")
    session.receive(assigning(a_key("b")), 0)
    assert frame_of(session).outcomes[0].HasField("released"), "it crossed the drain"
    session.receive(receipt(a_key("b")), 0)
    session.end(a_key("a"), Succeeded())
    assert not frame_of(session).HasField("goodbye"), "the receipt is still due"
    session.receive(receipt(a_key("a")), 0)
    assert not session.is_done
    assert frame_of(session).HasField("goodbye")
    assert session.is_done


def test_a_drain_beyond_its_limit_hands_back_and_leaves() -> None:
    session = working(a_key("a"), a_key("b"))
    session.receive(signal(a_key("b"), work_pb2.SIGNAL_KIND_CANCEL), 0)
    assert session.hand_back("limit") == [Stop(a_key("a"), StopKind.INTERRUPT, "limit")]
    session.leave()
    assert frame_of(session).HasField("goodbye")
    assert session.is_done


def test_a_drain_of_the_kernel_grants_nothing_more_on_this_stream_only() -> None:
    session = working(a_key("a"))
    session.receive(wire.WorkResponse(drain=work_pb2.Drain()), 0)
    session.end(a_key("a"), Succeeded())
    assert frame_of(session).credit_total_count == 2
    session.disconnected()
    session.connected(0)
    assert frame_of(session).credit_total_count == 2


def test_silence_ends_a_stream_and_an_empty_frame_breaks_ours() -> None:
    session = greeted(a_session())
    keepalive_ns = IDLE_S * NS_PER_S // 3
    assert session.next_wake_ns(0) == keepalive_ns
    assert session.take_frame(keepalive_ns - 1) is None
    assert session.take_frame(keepalive_ns) is not None
    assert session.tick(IDLE_S * NS_PER_S - 1) == []
    assert isinstance(session.tick(IDLE_S * NS_PER_S)[0], CloseStream)
    assert session.tick(IDLE_S * NS_PER_S) == []


def test_a_stream_that_begins_without_a_welcome_is_closed() -> None:
    session = a_session()
    session.connected(0)
    session.take_frame(0)
    assert isinstance(session.receive(assigning(a_key()), 0)[0], CloseStream)


def test_a_replaced_session_ends_every_body_and_the_process() -> None:
    session = working(a_key())
    assert session.replaced() == [
        Stop(a_key(), StopKind.REVOKE, "SESSION_REPLACED"),
        Exit("SESSION_REPLACED"),
    ]
    assert session.is_done


def test_no_frame_is_larger_than_a_message_may_be() -> None:
    keys = [a_key(str(index)) for index in range(100)]
    session = working(*keys, slots=100)
    large = payload_pb2.Payload(json="x" * 60_000)
    for key in keys:
        session.end(key, Succeeded(large))
    frames = []
    while (frame := session.take_frame(0)) is not None:
        frames.append(frame)
    assert sum(len(frame.outcomes) for frame in frames) == len(keys)
    assert len(frames) > 1
    assert all(frame.ByteSize() < 4 << 20 for frame in frames)
