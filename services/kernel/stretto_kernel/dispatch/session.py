"""The kernel's end of one work stream, as a pure state machine: frames in, frames out.

Owns what has been said on one stream: the hello, credits, assignments on their way and not yet
acknowledged, what waits to be sent, and when silence means death. It decides nothing about leases:
`receive` turns a frame into values for the dispatcher, and the dispatcher tells it what to say.
Knows no I/O and no asyncio; instants are monotonic nanoseconds.

Duplicated and lost frames do no harm: credits are cumulative, tokens identify, an assignment is
sent again until it is acknowledged, an outcome until its receipt comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from stretto.common.v1 import lease_pb2
from stretto.work.v1 import work_pb2, work_service_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.errors import InvalidArgument

from stretto_kernel.dispatch.hello import WorkerHello, parse_hello
from stretto_kernel.dispatch.ready_queues import SessionKey

FRAME_ITEMS_MAX = 1_000
DECISIONS_PER_WORD_MAX = 25
"""What a frame asks to decide is heard in parts, so that others run between them."""
FRAME_BYTES_MAX = 3 * 1024 * 1024
RENEW_INTERVAL_S = 5
IDLE_TIMEOUT_NS = 15 * NS_PER_S
KEEPALIVE_NS = IDLE_TIMEOUT_NS // 3
RESEND_NS = 1 * NS_PER_S
OUTBOX_ITEMS_MAX = 20_000
GIVEN_UP_MAX = 1_000
"""Assignments whose credit came back and that may have arrived all the same, the newest ones."""

TokenKey = tuple[str, int]
"""(work item, epoch): names a lease without its secret."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """The worker said hello; answer with `welcome`."""

    hello: WorkerHello


@dataclass(frozen=True, slots=True)
class CreditsChanged:
    """`free_credits` is another number now."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The worker has these assignments."""

    tokens: tuple[lease_pb2.LeaseToken, ...]


@dataclass(frozen=True, slots=True)
class Renewed:
    """The worker still works on these."""

    renewals: tuple[work_pb2.Renewal, ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """Attempts ended, in the worker's word; each is to be answered with a receipt."""

    outcomes: tuple[work_pb2.Outcome, ...]


@dataclass(frozen=True, slots=True)
class SpawnsAsked:
    """Tasks to add under leases; each is to be answered with a receipt."""

    spawns: tuple[work_pb2.Spawn, ...]


@dataclass(frozen=True, slots=True)
class SaidGoodbye:
    """The worker ends the stream on purpose."""


Heard = Greeted | CreditsChanged | Acknowledged | Renewed | Reported | SpawnsAsked | SaidGoodbye


@dataclass(slots=True)
class _Sent:
    assignment: work_pb2.Assignment
    resend_mono_ns: int


@dataclass(slots=True)
class _Outbox:
    assignments: dict[TokenKey, work_pb2.Assignment] = field(default_factory=dict)
    receipts: list[work_pb2.Receipt] = field(default_factory=list)
    signals: list[work_pb2.Signal] = field(default_factory=list)
    drain: work_pb2.Drain | None = None

    @property
    def item_count(self) -> int:
        return len(self.assignments) + len(self.receipts) + len(self.signals)

    @property
    def is_empty(self) -> bool:
        return not (self.assignments or self.receipts or self.signals or self.drain)


class WorkSession:
    """What has been said on one work stream.

    key: names the stream inside this process.
    now_mono_ns: when it was opened.
    """

    def __init__(self, key: SessionKey, now_mono_ns: int) -> None:
        self.key = key
        self.hello: WorkerHello | None = None
        self._hello_frame = work_pb2.Hello()
        self._welcome: work_pb2.Welcome | None = None
        self._welcome_due = False
        self._credit_total = 0
        self._used_count = 0
        self._draining = False
        self._doubted = False
        self._unacknowledged: dict[TokenKey, _Sent] = {}
        self._given_up: dict[TokenKey, None] = {}
        self._outbox = _Outbox()
        self._heard_mono_ns = now_mono_ns
        self._said_mono_ns = now_mono_ns

    def receive(self, frame: work_service_pb2.WorkRequest, now_mono_ns: int) -> list[Heard]:
        """Return what the frame says, in the order to act on it. Raises InvalidArgument.

        After InvalidArgument the stream is to be ended with it.
        """
        self._heard_mono_ns = now_mono_ns
        _refuse_oversize(frame)
        heard: list[Heard] = []
        if self.hello is None:
            if not frame.HasField("hello"):
                raise InvalidArgument("the first frame of a work stream is a hello")
            self.hello = parse_hello(frame.hello)
            self._hello_frame.CopyFrom(frame.hello)
            heard.append(Greeted(self.hello))
        elif frame.HasField("hello"):
            if frame.hello != self._hello_frame:
                raise InvalidArgument("a work stream has one hello")
            self._welcome_due = self._welcome is not None  # The frame came twice; so may ours.
        credits_before = self.free_credits
        self._doubted = False
        self._hear_leases(frame, heard)
        self._hear_credits(frame)
        if self.free_credits != credits_before:
            heard.append(CreditsChanged())
        if frame.HasField("goodbye"):
            heard.append(SaidGoodbye())
        return heard

    def _hear_leases(self, frame: work_service_pb2.WorkRequest, heard: list[Heard]) -> None:
        for token in frame.acknowledged:
            self._has_come(token)
        # A word about an assignment shows that it came.
        for renewal in frame.renewals:
            self._has_come(renewal.token)
        for outcome in frame.outcomes:
            self._has_come(outcome.token)
        if frame.acknowledged:
            heard.append(Acknowledged(tuple(frame.acknowledged)))
        for start in range(0, len(frame.spawns), DECISIONS_PER_WORD_MAX):
            part = frame.spawns[start : start + DECISIONS_PER_WORD_MAX]
            heard.append(SpawnsAsked(tuple(part)))
        for start in range(0, len(frame.outcomes), DECISIONS_PER_WORD_MAX):
            ended = frame.outcomes[start : start + DECISIONS_PER_WORD_MAX]
            heard.append(Reported(tuple(ended)))
        if frame.renewals:
            heard.append(Renewed(tuple(frame.renewals)))

    def _has_come(self, token: lease_pb2.LeaseToken) -> None:
        key = (token.work_item, token.epoch)
        if self._unacknowledged.pop(key, None) is None and key in self._given_up:
            # The worker counts it as accepted. If we did not, its next word would seem to grant
            # one more than it has room for, and so would its word about that one, for ever.
            del self._given_up[key]
            self._used_count += 1

    def _hear_credits(self, frame: work_service_pb2.WorkRequest) -> None:
        self._credit_total = max(self._credit_total, frame.credit_total_count)
        self._draining = self._draining or frame.draining

    @property
    def free_credits(self) -> int:
        """How many more assignments the worker accepts now."""
        if self._draining or self._doubted:
            return 0
        return max(0, self._credit_total - self._used_count)

    def doubt(self) -> None:
        """A lease of the worker ran out: it is offered nothing until it is heard again."""
        self._doubted = True

    @property
    def is_draining(self) -> bool:
        """The worker takes nothing more."""
        return self._draining

    def welcome(self, drop: list[lease_pb2.LeaseToken]) -> None:
        """Answer the hello; nothing else leaves before this."""
        self._welcome = work_pb2.Welcome(
            drop=drop,
            renew_interval=Duration(seconds=RENEW_INTERVAL_S),
            idle_timeout=Duration(seconds=IDLE_TIMEOUT_NS // NS_PER_S),
        )
        self._welcome_due = True

    def reserve_credit(self) -> None:
        """An assignment is being made for this session."""
        self._used_count += 1

    def return_credit(self) -> None:
        """The assignment that was being made will not come."""
        self._used_count -= 1

    def assign(self, assignment: work_pb2.Assignment, now_mono_ns: int) -> None:
        """Send a committed lease, under a credit reserved before; again until acknowledged."""
        key = (assignment.token.work_item, assignment.token.epoch)
        self._unacknowledged[key] = _Sent(assignment, now_mono_ns + RESEND_NS)
        self._outbox.assignments[key] = assignment

    def forget_assignment(self, key: TokenKey) -> bool:
        """The lease ended; if it was never acknowledged its credit is free again (True).

        Should a word come that it did arrive, the credit counts as used after all.
        """
        sent = self._unacknowledged.pop(key, None)
        if sent is None:
            return False
        self._outbox.assignments.pop(key, None)
        self._used_count -= 1
        self._given_up[key] = None
        if len(self._given_up) > GIVEN_UP_MAX:
            del self._given_up[next(iter(self._given_up))]
        return True

    def answer(self, receipt: work_pb2.Receipt) -> None:
        """Send a receipt."""
        self._outbox.receipts.append(receipt)

    def signal(self, signal: work_pb2.Signal) -> None:
        """Send a request about a lease."""
        self._outbox.signals.append(signal)

    def drain(self, reason: str, *, leave: bool = False) -> None:
        """Ask the worker to take nothing more; with `leave` also to end, and offer it nothing."""
        self._draining = self._draining or leave
        self._outbox.drain = work_pb2.Drain(reason=reason, leave=leave)

    @property
    def heard_mono_ns(self) -> int:
        """When something was heard last."""
        return self._heard_mono_ns

    def next_frame(self, now_mono_ns: int) -> work_service_pb2.WorkResponse | None:
        """Take what is to be sent now, as one frame within its limits; None when nothing is.

        Call again until None. An empty frame shows that the kernel lives.
        """
        if self._welcome is None:
            return None
        if not self._welcome_due:
            self._resend(now_mono_ns)
            is_quiet = now_mono_ns - self._said_mono_ns >= KEEPALIVE_NS
            if self._outbox.is_empty and not is_quiet:
                return None
        frame = work_service_pb2.WorkResponse()
        if self._welcome_due:
            frame.welcome.CopyFrom(self._welcome)
            self._welcome_due = False
        self._fill(frame)
        self._said_mono_ns = now_mono_ns
        return frame

    def next_due_mono_ns(self) -> int:
        """When `next_frame` or `is_silent` may say something new without being told anything."""
        due = min(self._said_mono_ns + KEEPALIVE_NS, self._heard_mono_ns + IDLE_TIMEOUT_NS)
        # Assignments are kept in the order they were sent: the first is due first.
        first = next(iter(self._unacknowledged.values()), None)
        return due if first is None else min(due, first.resend_mono_ns)

    def is_silent(self, now_mono_ns: int) -> bool:
        """Whether nothing was heard for so long that the stream counts as lost."""
        return now_mono_ns - self._heard_mono_ns >= IDLE_TIMEOUT_NS

    @property
    def is_overfull(self) -> bool:
        """Whether the worker reads so slowly that the stream is to be ended."""
        return self._outbox.item_count > OUTBOX_ITEMS_MAX

    def _resend(self, now_mono_ns: int) -> None:
        while self._unacknowledged:
            key, sent = next(iter(self._unacknowledged.items()))
            if sent.resend_mono_ns > now_mono_ns:
                return
            del self._unacknowledged[key]
            self._unacknowledged[key] = _Sent(sent.assignment, now_mono_ns + RESEND_NS)
            self._outbox.assignments[key] = sent.assignment

    def _fill(self, frame: work_service_pb2.WorkResponse) -> None:
        outbox = self._outbox
        count = bytes_count = 0
        while outbox.assignments and count < FRAME_ITEMS_MAX:
            key, assignment = next(iter(outbox.assignments.items()))
            bytes_count += assignment.ByteSize()
            if count and bytes_count > FRAME_BYTES_MAX:
                break
            del outbox.assignments[key]
            frame.assignments.append(assignment)
            count += 1
        frame.receipts.extend(outbox.receipts[:FRAME_ITEMS_MAX])
        del outbox.receipts[:FRAME_ITEMS_MAX]
        frame.signals.extend(outbox.signals[:FRAME_ITEMS_MAX])
        del outbox.signals[:FRAME_ITEMS_MAX]
        if outbox.drain is not None:
            frame.drain.CopyFrom(outbox.drain)
            outbox.drain = None


def _refuse_oversize(frame: work_service_pb2.WorkRequest) -> None:
    parts = (frame.acknowledged, frame.renewals, frame.outcomes, frame.spawns)
    if any(len(part) > FRAME_ITEMS_MAX for part in parts):
        raise InvalidArgument("a frame holds too many items", items_max=str(FRAME_ITEMS_MAX))
