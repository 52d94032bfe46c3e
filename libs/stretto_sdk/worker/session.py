"""The worker's end of the work stream as a pure machine: frames and inputs in, frames and effects
out.

It owns which leases this process holds, what was said about each on this stream, and what is due.
It may not read a clock, wait or do I/O: `now_ns` (monotonic nanoseconds) comes with each call, the
shell carries out the effects and sends what `take_frame` returns. gRPC carries the frames in
production, a faulty network in the simulator. It stands in the SDK because the SDK's Worker and the
worker service share this one implementation, and imports point from services to the SDK.

Promises, whatever is lost, repeated, reordered or cut: a token starts at most one body; at most
`slot_count` bodies are started at once; an outcome is kept and sent on every new stream until a
receipt, a refusal or the welcome settles it. Protocol: proto/stretto/work/v1.
"""

from __future__ import annotations

from typing import Final

from stretto.common.v1 import lease_pb2, payload_pb2
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire

from stretto_sdk.worker import verdicts
from stretto_sdk.worker.effects import (
    CloseStream,
    Effect,
    Ending,
    Exit,
    LeaseKey,
    Leave,
    SessionSettings,
    SpawnAnswered,
    Start,
    Stop,
    StopKind,
    key_of,
)
from stretto_sdk.worker.held import HeldLeases
from stretto_sdk.worker.receipts import lose, settle
from stretto_sdk.worker.stream import FRAME_BYTES_MAX, StreamState, fill

RENEW_SHARE_OF_TTL: Final = 3
"""A lease is renewed at least so often within its TTL."""
TTL_NS_DEFAULT: Final = 30_000_000_000


class WorkSession:
    """One process's session with the kernel, over any number of streams one after another.

    The shell calls, in whatever order the world dictates: `connected` and `disconnected` around
    each stream, `receive` for each frame, `end`, `heartbeat` and `spawn` for bodies, `tick` at
    `next_wake_ns`; and after each of these sends `take_frame` until it returns None.
    """

    def __init__(self, settings: SessionSettings) -> None:
        assert settings.slot_count >= 1, "a worker without slots can do nothing"
        self._settings = settings
        self._leases = HeldLeases()
        self._bodies: set[LeaseKey] = set()
        self._stream: StreamState | None = None
        self._renew_interval_ns = TTL_NS_DEFAULT // RENEW_SHARE_OF_TTL
        self._draining = False
        self._leaving = False

    # What people and the shell may ask.

    @property
    def body_count(self) -> int:
        """Bodies started and not ended, revoked ones included."""
        return len(self._bodies)

    @property
    def held(self) -> tuple[LeaseKey, ...]:
        """Leases held: bodies running, and outcomes without their receipt."""
        return tuple(key for key, _ in self._leases)

    @property
    def is_connected(self) -> bool:
        """Whether a stream is open and welcome."""
        return self._stream is not None and self._stream.welcomed

    @property
    def is_draining(self) -> bool:
        """Whether this process takes nothing more, for ever."""
        return self._draining

    @property
    def is_done(self) -> bool:
        """Whether a draining process has nothing left to do or to say: it may exit."""
        said = self._stream is None or self._stream.goodbye_sent
        if self._leaving:
            return said
        return self._draining and said and not self._leases and not self._bodies

    def next_wake_ns(self, now_ns: int) -> int | None:
        """Return when `tick` and `take_frame` are to be called next if nothing happens before."""
        stream = self._stream
        if stream is None or stream.closing:
            return None
        due_ns = stream.idle_due_ns()
        if stream.welcomed and not stream.goodbye_sent:
            due_ns = min(due_ns, stream.keepalive_due_ns())
            for other_ns in (
                stream.acknowledge_due_ns(),
                self._leases.next_renewal_ns(),
                self._leases.next_send_ns(now_ns),
            ):
                if other_ns is not None:
                    due_ns = min(due_ns, other_ns)
        return max(due_ns, now_ns)

    # The stream.

    def connected(self, now_ns: int) -> None:
        """A stream is open: its first frame will be a hello that names every lease held."""
        self._stream = StreamState(
            received_ns=now_ns, idle_timeout_ns=self._settings.idle_timeout_ns
        )

    def disconnected(self) -> None:
        """The stream is gone. Bodies run on, also past their TTL: the epoch decides, no clock of
        ours; what is kept is sent on the next stream.
        """
        self._stream = None

    def replaced(self) -> list[Effect]:
        """The kernel refused this session for a newer one: end every body and the process."""
        self._draining = self._leaving = True
        self._stream = None
        effects: list[Effect] = []
        for key, _ in self._leases:
            effects += lose(self._leases, key, "SESSION_REPLACED")
        return [*effects, Exit("SESSION_REPLACED")]

    def receive(self, frame: wire.WorkResponse, now_ns: int) -> list[Effect]:
        """Take in a frame of the current stream and return what the shell is to do, in order."""
        stream = self._stream
        if stream is None or stream.closing:
            return []
        stream.received_ns = now_ns
        effects: list[Effect] = []
        if frame.HasField("welcome"):
            effects += self._welcome(stream, frame.welcome, now_ns)
        elif not stream.welcomed:
            stream.closing = True
            return [CloseStream("the first frame is no welcome")]
        # Signals and receipts first: they free what the new assignments may need.
        for receipt in frame.receipts:
            effects += settle(self._leases, receipt, now_ns)
        for signal in frame.signals:
            effects += self._signal(signal)
        if frame.HasField("drain"):
            stream.drain_asked = True
            if frame.drain.leave:
                effects.append(Leave(frame.drain.reason))
        for assignment in frame.assignments:
            effects += self._assignment(stream, assignment, now_ns)
        return effects

    def tick(self, now_ns: int) -> list[Effect]:
        """Return what time alone makes due: the end of a stream that has been silent too long."""
        stream = self._stream
        if stream is None or stream.closing:
            return []
        if now_ns < stream.idle_due_ns():
            return []
        stream.closing = True
        return [CloseStream("the kernel has been silent for the idle timeout")]

    # Bodies.

    def end(self, key: LeaseKey, ending: Ending) -> None:
        """A body ended. Its outcome is kept until settled; of a lost lease it is dropped.

        Ending the same body again changes nothing.
        """
        if key not in self._bodies:
            return
        self._bodies.discard(key)
        held = self._leases.get(key)
        if held is None:
            return
        outcome = verdicts.outcome_of(held.token, ending, held.stop)
        if outcome.ByteSize() > FRAME_BYTES_MAX:
            outcome = verdicts.too_large(held.token, outcome.ByteSize(), FRAME_BYTES_MAX)
        if held.details is not None:
            outcome.details.CopyFrom(held.details)
        self._leases.set_outcome(key, held, outcome)

    def heartbeat(self, key: LeaseKey, details: payload_pb2.Payload, now_ns: int) -> None:
        """Keep the newest details of a running body; they leave within the details interval."""
        held = self._leases.get(key)
        if held is None or held.outcome is not None:
            return
        held.details = details
        due_ns = now_ns
        if held.details_sent_ns is not None:
            due_ns = max(now_ns, held.details_sent_ns + self._settings.details_interval_ns)
        if due_ns < held.renew_due_ns:
            self._leases.renew_at(key, held, due_ns)

    def spawn(
        self, key: LeaseKey, request_id: str, tasks: tuple[plan_pb2.TaskSpec, ...]
    ) -> list[Effect]:
        """Ask for tasks below a running one; `SpawnAnswered` follows, at once if it cannot be."""
        held = self._leases.get(key)
        if held is None or held.outcome is not None:
            return [SpawnAnswered(key, request_id, "LEASE_LOST", "the lease is no longer held")]
        spawn = work_pb2.Spawn(token=held.token, request_id=request_id, tasks=tasks)
        if spawn.ByteSize() > FRAME_BYTES_MAX:
            return [SpawnAnswered(key, request_id, "MESSAGE_TOO_LARGE", "spawn fewer at once")]
        self._leases.add_spawn(key, held, spawn)
        return []

    # Leaving.

    def drain(self) -> None:
        """Take nothing more, finish what runs, then say goodbye: `is_done` tells when."""
        self._draining = True

    def hand_back(self, reason: str) -> list[Effect]:
        """Drain, and ask every running body to stop and give its work item back."""
        self._draining = True
        effects: list[Effect] = []
        for key, held in self._leases:
            if held.outcome is None and (held.stop or 0) < StopKind.INTERRUPT:
                held.stop = StopKind.INTERRUPT
                effects.append(Stop(key, StopKind.INTERRUPT, reason))
        return effects

    def leave(self) -> None:
        """Say goodbye with the next frame, whatever still runs: the kernel releases it at once."""
        self._draining = self._leaving = True

    # Frames out.

    def take_frame(self, now_ns: int) -> wire.WorkRequest | None:
        """Return the next frame with everything due now, or None when nothing is.

        What is returned counts as sent. Call again until None: a frame has limits.
        """
        stream = self._stream
        if stream is None or stream.closing or stream.goodbye_sent:
            return None
        if not stream.hello_sent:
            stream.hello_sent = True
            stream.sent_ns = now_ns
            return self._hello(stream)
        if not stream.welcomed:
            return None
        frame = wire.WorkRequest()
        something = fill(frame, stream, self._leases, now_ns)
        something |= self._add_credit(stream, frame)
        something |= self._add_leaving(stream, frame)
        if not something and now_ns < stream.keepalive_due_ns():
            return None
        stream.sent_ns = now_ns
        return frame

    def _hello(self, stream: StreamState) -> wire.WorkRequest:
        settings = self._settings
        hello = work_pb2.Hello(
            worker_id=settings.worker_id,
            session_id=settings.session_id,
            queues=settings.queues,
            executors=settings.executors,
            labels=dict(settings.labels),
            kinds=[lease_pb2.WORK_ITEM_KIND_TASK],
            held=[held.token for _, held in self._leases],
            control_address=settings.control_address,
            slot_count=settings.slot_count,
            version=settings.version,
        )
        frame = wire.WorkRequest(hello=hello)
        self._add_credit(stream, frame)
        self._add_leaving(stream, frame)
        return frame

    def _add_credit(self, stream: StreamState, frame: wire.WorkRequest) -> bool:
        """Say how many assignments fit in all on this stream, if that is more than was said."""
        total_count = stream.accepted_count + self._free_count(stream)
        frame.credit_total_count = max(total_count, stream.credit_sent_count)
        more = total_count > stream.credit_sent_count
        stream.credit_sent_count = frame.credit_total_count
        return more

    def _add_leaving(self, stream: StreamState, frame: wire.WorkRequest) -> bool:
        """Say that the process drains, once a stream; and goodbye when nothing is left."""
        frame.draining = self._draining
        something = self._draining and not stream.draining_sent
        stream.draining_sent = self._draining
        nothing_left = self._draining and not self._leases and not self._bodies
        if stream.welcomed and (self._leaving or nothing_left):
            frame.goodbye.SetInParent()
            stream.goodbye_sent = something = True
        return something

    # Frames in.

    def _welcome(self, stream: StreamState, welcome: work_pb2.Welcome, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        for token in welcome.drop:
            effects += lose(self._leases, key_of(token), "LEASE_LOST")
        self._renew_interval_ns = (
            welcome.renew_interval.ToNanoseconds() or TTL_NS_DEFAULT // RENEW_SHARE_OF_TTL
        )
        stream.idle_timeout_ns = (
            welcome.idle_timeout.ToNanoseconds() or self._settings.idle_timeout_ns
        )
        if not stream.welcomed:
            stream.welcomed = True
            self._leases.restart_sending(now_ns)
        return effects

    def _assignment(
        self, stream: StreamState, assignment: work_pb2.Assignment, now_ns: int
    ) -> list[Effect]:
        key = key_of(assignment.token)
        if self._leases.get(key) is not None:
            stream.acknowledge(key, now_ns)  # Sent twice: it runs already.
            return []
        if self._leases.is_known(key):
            return []  # Ended here, or passed on to a later lease: acknowledging would be a lie.
        older = self._leases.held_of(key.work_item)
        effects = [] if older is None else lose(self._leases, older, "LEASE_LOST")
        stream.accepted_count += 1
        stream.acknowledge(key, now_ns)
        has_room = self._free_count(stream, with_backlog=False) > 0
        ttl_ns = assignment.ttl.ToNanoseconds() or TTL_NS_DEFAULT
        interval_ns = max(2, min(ttl_ns // RENEW_SHARE_OF_TTL, self._renew_interval_ns))
        held = self._leases.add(assignment.token, interval_ns, now_ns)
        if self._draining or not has_room or assignment.kind != lease_pb2.WORK_ITEM_KIND_TASK:
            # It crossed a drain on the way, or the kernel gave more than it was granted.
            outcome = work_pb2.Outcome(
                token=held.token, released=work_pb2.OutcomeReleased(reason="not taken")
            )
            self._leases.set_outcome(key, held, outcome)
            return effects
        self._bodies.add(key)
        return [*effects, Start(assignment)]

    def _signal(self, signal: work_pb2.Signal) -> list[Effect]:
        key = key_of(signal.token)
        kind = verdicts.stop_kind(signal.kind)
        if kind is StopKind.REVOKE:
            self._leases.mark_seen(key)  # A late assignment of it must not start.
            return lose(self._leases, key, signal.reason or "LEASE_LOST")
        held = self._leases.get(key)
        if kind is None or held is None or held.outcome is not None or (held.stop or 0) > kind:
            return []
        held.stop = kind
        has_deadline = signal.HasField("deadline_time")
        deadline_ns = signal.deadline_time.ToNanoseconds() if has_deadline else None
        return [Stop(key, kind, signal.reason, deadline_ns)]

    def _free_count(self, stream: StreamState, *, with_backlog: bool = True) -> int:
        """How many more bodies may begin."""
        if self._draining:
            return 0
        pending_max = self._settings.outcome_pending_count_max
        if with_backlog and (stream.drain_asked or self._leases.pending_count >= pending_max):
            return 0
        return max(0, self._settings.slot_count - len(self._bodies))
