"""The session machine against a kernel that loses, repeats and cuts: its promises always hold."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stretto.common.v1 import lease_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire
from stretto_core.clock import NS_PER_S
from stretto_sdk.worker.effects import (
    Effect,
    LeaseKey,
    OutcomeSettled,
    SessionSettings,
    Start,
    Stop,
    StopKind,
    Stopped,
    Succeeded,
    key_of,
)
from stretto_sdk.worker.session import WorkSession

SLOTS = 3
INDEX = st.integers(0, 1_000)


class LossyKernel(RuleBasedStateMachine):
    """A kernel and a network that keep to the protocol's letter, and to nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.session = WorkSession(
            SessionSettings(worker_id="w", session_id="s", executors=("x",), slot_count=SLOTS)
        )
        self.now_ns = 0
        self.open = False
        self.welcome_due = False
        self.credit_total = 0
        self.assigned_on_stream = 0
        self.epochs: Counter[str] = Counter()
        self.current: dict[str, LeaseKey] = {}
        self.sent_before: list[wire.WorkResponse] = []
        self.started: Counter[LeaseKey] = Counter()
        self.bodies: set[LeaseKey] = set()
        self.unsettled: set[LeaseKey] = set()
        self.reported: set[LeaseKey] = set()

    def deliver(self, frame: wire.WorkResponse) -> None:
        self.carry_out(self.session.receive(frame, self.now_ns))

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Start(assignment=assignment):
                    key = key_of(assignment.token)
                    self.started[key] += 1
                    self.bodies.add(key)
                case Stop(key=key, kind=StopKind.REVOKE):
                    self.unsettled.discard(key)
                case OutcomeSettled(key=key):
                    assert key in self.unsettled, "settled without an outcome"
                    self.unsettled.discard(key)

    @precondition(lambda self: not self.open)
    @rule()
    def connect(self) -> None:
        self.session.connected(self.now_ns)
        self.open = self.welcome_due = True
        self.credit_total = self.assigned_on_stream = 0
        self.sent_before = []

    @precondition(lambda self: self.open)
    @rule()
    def cut(self) -> None:
        self.session.disconnected()
        self.open = self.welcome_due = False

    @precondition(lambda self: self.open)
    @rule(lost=st.booleans())
    def worker_sends(self, lost: bool) -> None:
        frame = self.session.take_frame(self.now_ns)
        if frame is None:
            return
        assert frame.credit_total_count >= self.credit_total or lost
        if lost and not frame.HasField("hello"):
            return
        self.credit_total = max(self.credit_total, frame.credit_total_count)
        if frame.HasField("hello"):
            assert {key_of(token) for token in frame.hello.held} == set(self.session.held)
            self.welcome_due = True
        self.reported |= {key_of(outcome.token) for outcome in frame.outcomes}

    @precondition(lambda self: self.open and self.welcome_due)
    @rule(drops=st.booleans())
    def welcome(self, drops: bool) -> None:
        frame = wire.WorkResponse()
        frame.welcome.renew_interval.seconds = 5
        frame.welcome.idle_timeout.seconds = 1_000_000
        if drops:
            frame.welcome.drop.extend(
                lease_pb2.LeaseToken(work_item=key.work_item, epoch=key.epoch)
                for key in self.session.held
            )
            for key in self.session.held:
                self.unsettled.discard(key) if key in self.bodies else None
        self.welcome_due = False
        self.deliver(frame)

    @precondition(lambda self: self.session.is_connected)
    @rule(item=st.sampled_from("abcde"), lost=st.booleans())
    def assign(self, item: str, lost: bool) -> None:
        if self.assigned_on_stream >= self.credit_total:
            return
        self.assigned_on_stream += 1
        self.epochs[item] += 1
        key = LeaseKey(item, self.epochs[item])
        self.current[item] = key
        frame = wire.WorkResponse()
        frame.assignments.add(
            token=lease_pb2.LeaseToken(work_item=item, epoch=key.epoch, secret=b"s"),
            kind=lease_pb2.WORK_ITEM_KIND_TASK,
        )
        self.sent_before.append(frame)
        if not lost:
            self.deliver(frame)

    @precondition(lambda self: self.session.is_connected and self.sent_before)
    @rule(index=INDEX)
    def repeat_or_reorder(self, index: int) -> None:
        self.deliver(self.sent_before[index % len(self.sent_before)])

    @precondition(lambda self: self.bodies)
    @rule(index=INDEX, stopped=st.booleans())
    def body_ends(self, index: int, stopped: bool) -> None:
        key = sorted(self.bodies)[index % len(self.bodies)]
        self.bodies.discard(key)
        held = key in self.session.held
        self.session.end(key, Stopped() if stopped else Succeeded())
        if held:
            self.unsettled.add(key)
        self.session.end(key, Succeeded())

    @precondition(lambda self: self.session.is_connected and self.reported)
    @rule(index=INDEX, code=st.sampled_from([0, 0, 14, 9, 3]))
    def answer(self, index: int, code: int) -> None:
        key = sorted(self.reported)[index % len(self.reported)]
        frame = wire.WorkResponse()
        answered = frame.receipts.add(
            token=lease_pb2.LeaseToken(work_item=key.work_item, epoch=key.epoch),
            kind=work_pb2.RECEIPT_KIND_OUTCOME,
        )
        answered.status.code = code
        self.sent_before.append(frame)
        self.deliver(frame)

    @precondition(lambda self: self.session.is_connected and self.current)
    @rule(index=INDEX, kind=st.sampled_from([1, 2, 3]))
    def signal(self, index: int, kind: int) -> None:
        key = sorted(self.current.values())[index % len(self.current)]
        frame = wire.WorkResponse()
        frame.signals.add(
            token=lease_pb2.LeaseToken(work_item=key.work_item, epoch=key.epoch),
            kind=kind,
        )
        self.deliver(frame)

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * NS_PER_S

    @invariant()
    def a_token_starts_at_most_one_body(self) -> None:
        assert all(count == 1 for count in self.started.values())

    @invariant()
    def no_more_bodies_than_slots(self) -> None:
        assert len(self.bodies) <= SLOTS

    @invariant()
    def no_outcome_is_lost_before_it_is_settled(self) -> None:
        assert self.unsettled <= set(self.session.held)

    def teardown(self) -> None:
        """On a quiet network every outcome that is not settled arrives."""
        if self.open:
            self.cut()
        self.connect()
        self.worker_sends(lost=False)
        self.welcome(drops=False)
        self.reported.clear()
        for _ in range(100):
            self.worker_sends(lost=False)
        assert self.unsettled <= self.reported


TestSessionModel = LossyKernel.TestCase
TestSessionModel.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
