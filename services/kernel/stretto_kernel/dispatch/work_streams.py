"""The work streams of this process: which worker processes are connected, and what they say.

Owns the streams, the newest process known of each worker, and what is known of processes that are
gone. Turns what a session machine heard into renewals, releases, losses and holder writes. Frames
go out through the function each stream was opened with; nothing here knows gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial

import structlog
from stretto.common.v1 import lease_pb2
from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import events_pb2 as ev
from stretto.work.v1 import work_pb2, work_service_pb2
from stretto_core.errors import Refusal, Unavailable

from stretto_kernel.dispatch.assignments import parse_work_item
from stretto_kernel.dispatch.held_tokens import tokens_over
from stretto_kernel.dispatch.hello import WorkerHello
from stretto_kernel.dispatch.lease_keys import is_lease_secret
from stretto_kernel.dispatch.lease_table import Lease
from stretto_kernel.dispatch.ready_queues import SessionKey
from stretto_kernel.dispatch.session import (
    Acknowledged,
    CreditsChanged,
    Greeted,
    Heard,
    Renewed,
    Reported,
    SaidGoodbye,
    SpawnsAsked,
    WorkSession,
)
from stretto_kernel.dispatch.shared import Shared
from stretto_kernel.dispatch.takers import HolderWrites
from stretto_kernel.dispatch.work_stream import (
    EndStream,
    SendFrame,
    TooManyStreams,
    WorkerTooSlow,
    WorkStream,
)
from stretto_kernel.dispatch.worker_processes import SessionReplaced, WorkerProcesses

_DECISIONS = (Reported, SpawnsAsked)


class WorkStreams:
    """The open work streams of one ownership of the partition."""

    def __init__(
        self,
        shared: Shared,
        *,
        processes: WorkerProcesses,
        streams_max: int,
    ) -> None:
        self._host = shared.host
        self._clock = shared.clock
        self._keys = shared.keys
        self._own = shared.own
        self._queues = shared.queues
        self._leases = shared.leases
        self._session_keys = shared.session_keys
        self._processes = processes
        processes.follow(self._end_older)
        self._streams_max = streams_max
        self._streams: dict[SessionKey, WorkStream] = {}
        self._marked: dict[SessionKey, WorkStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes: HolderWrites | None = None
        self._pump: Callable[[], None] = lambda: None
        self._draining = ""
        self._log = structlog.get_logger("stretto.kernel.workers")

    def connect(self, writes: HolderWrites, pump: Callable[[], None]) -> None:
        """Let `writes` take what lease holders write, and `pump` lease what became possible."""
        self._writes = writes
        self._pump = pump

    def open(
        self, send: SendFrame, end: EndStream, principal: Principal, traceparent: str = ""
    ) -> WorkStream:
        """Return a new stream, which is nobody's until its hello. Raises TooManyStreams."""
        if len(self._streams) >= self._streams_max:
            raise TooManyStreams("too many work streams", streams_max=str(self._streams_max))
        key = next(self._session_keys)
        session = WorkSession(key, self._clock.mono_ns())
        stream = WorkStream(key, session, self, principal, traceparent, send, end)
        self._streams[stream.key] = stream
        return stream

    def receive(self, stream: WorkStream, frame: work_service_pb2.WorkRequest) -> None:
        """Act on a frame. Raises InvalidArgument, SessionReplaced: end the stream with it."""
        if not stream.open:
            return
        stream.heard.extend(stream.session.receive(frame, self._clock.mono_ns()))
        if not stream.busy:
            self._act_on_heard(stream)

    def lost(self, stream: WorkStream) -> None:
        """The stream ended without a goodbye: release what was not acknowledged, watch the rest."""
        self._hear_out(stream)
        if not self._forget(stream) or stream.session.hello is None:
            return
        hello = stream.hello
        if not self._processes.disconnected(stream):
            return  # Replaced: its successor has settled its leases.
        held = self._leases.held_by_session(hello.session_id)
        for lease in held:
            if not lease.acknowledged and lease.reclaimed:
                self._own.release(lease, ev.RELEASE_CAUSE_NOT_ACKNOWLEDGED)
        self._processes.watch_death(hello)

    def close_all(self, cause: Refusal) -> None:
        """End every stream with `cause`; what they held is no longer this process's business."""
        for stream in list(self._streams.values()):
            self._forget(stream)
            stream.end(cause)
        for task in self._tasks:
            task.cancel()

    def drain(self, reason: str) -> None:
        """Tell every worker to take nothing more from this kernel."""
        self._draining = reason
        for stream in self._streams.values():
            if stream.session.hello is not None:
                stream.session.drain(reason)
                self.flush_one(stream)

    def ask_to_leave(self, stream: WorkStream, reason: str) -> None:
        """Lease nothing more to the stream's process, and ask it to finish and end."""
        stream.session.drain(reason, leave=True)
        self.credits_changed(stream)
        self.flush_one(stream)

    def by_key(self, key: SessionKey) -> WorkStream | None:
        """The open stream of that key."""
        return self._streams.get(key)

    def credits_changed(self, stream: WorkStream) -> None:
        """Tell the queues how many assignments the stream's worker accepts now."""
        if stream.open:
            self._queues.set_credits(stream.key, stream.session.free_credits)

    def mark(self, stream: WorkStream) -> None:
        """The stream has something to say at the next flush."""
        self._marked[stream.key] = stream

    def flush(self) -> None:
        """Send what the marked streams have to say, as few frames as the limits allow."""
        marked, self._marked = self._marked, {}
        for stream in marked.values():
            self.flush_one(stream)

    def flush_one(self, stream: WorkStream) -> None:
        """Send what this stream has to say."""
        now_mono_ns = self._clock.mono_ns()
        while stream.open and (frame := stream.session.next_frame(now_mono_ns)) is not None:
            stream.send(frame)

    def signal(self, lease: Lease, signal: work_pb2.Signal) -> None:
        """Tell the lease's holder something, if it is connected."""
        stream = self._stream_of(lease)
        if stream is not None:
            stream.session.signal(signal)
            self.mark(stream)

    def lease_closed(self, lease: Lease, work_item: str) -> None:
        """The lease ended: an assignment never acknowledged gives its credit back."""
        stream = self._stream_of(lease)
        if stream is not None and stream.session.forget_assignment((work_item, lease.epoch)):
            self.credits_changed(stream)

    def lease_expired(self, lease: Lease) -> None:
        """The holder let a lease run out: a frozen process must not be offered the task again."""
        stream = self._stream_of(lease)
        if stream is not None:
            stream.session.doubt()
            self.credits_changed(stream)

    def lease_folded(self, lease: Lease) -> None:
        """A lease came out of the log: end it if its holder is known to be gone."""
        cause = self._processes.loss_cause(lease)
        loop = asyncio.get_running_loop()
        if cause is not None:
            loop.call_soon(self._own.lose, lease, cause)
        elif lease.reclaimed and not lease.acknowledged and self._stream_of(lease) is None:
            # Its release was decided on facts that were dropped.
            loop.call_soon(self._own.release, lease, ev.RELEASE_CAUSE_NOT_ACKNOWLEDGED)

    def ring(self) -> None:
        """Keep streams alive, send again, and end those that were silent for too long."""
        now_mono_ns = self._clock.mono_ns()
        for stream in list(self._streams.values()):
            if stream.session.is_silent(now_mono_ns):
                self.lost(stream)
                stream.end(Unavailable("nothing was heard on the work stream for too long"))
            elif stream.session.is_overfull:
                self.lost(stream)
                stream.end(WorkerTooSlow("the worker does not read its stream"))
            else:
                self.flush_one(stream)

    @property
    def stream_count(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def _act(self, stream: WorkStream, heard: Heard) -> None:
        assert self._writes is not None, "connect comes before the first frame"
        match heard:
            case Greeted(hello=hello):
                self._greet(stream, hello)
            case CreditsChanged():
                self.credits_changed(stream)
                self._pump()
            case Acknowledged(tokens=tokens):
                for token in tokens:
                    self._acknowledge(token)
            case Renewed(renewals=renewals):
                for renewal in renewals:
                    self._writes.renew(stream, renewal)
            case Reported(outcomes=outcomes):
                for outcome in outcomes:
                    self._writes.report(stream, outcome)
            case SpawnsAsked(spawns=spawns):
                for spawn in spawns:
                    self._writes.spawn(stream, spawn)
            case SaidGoodbye():
                self._goodbye(stream)

    def _act_on_heard(self, stream: WorkStream) -> None:
        """Act on what was heard; after many decisions the rest waits until others had a turn."""
        heard = stream.heard
        while heard:
            acted_on = heard.popleft()
            self._act(stream, acted_on)
            if heard and isinstance(acted_on, _DECISIONS):
                break
        stream.busy = bool(heard)
        if stream.busy:
            asyncio.get_running_loop().call_soon(self._act_on_heard, stream)
        self.flush_one(stream)

    def _hear_out(self, stream: WorkStream) -> None:
        """Act on all that was heard at once: the stream is about to end."""
        while stream.heard:
            self._act(stream, stream.heard.popleft())

    def _acknowledge(self, token: lease_pb2.LeaseToken) -> None:
        lease = self._find(token)
        if lease is not None:
            lease.acknowledged = True

    def _greet(self, stream: WorkStream, hello: WorkerHello) -> None:
        worker = self._processes.greet(hello, unary=False)
        if worker.stream is not None:
            self._end_for_newer(worker.stream, None)
        worker.stream = stream
        self._log.info(
            "worker.connected",
            worker_id=hello.worker_id,
            session_id=hello.session_id,
            held_count=len(hello.held),
        )
        if all(self._keep(hello, token) for token in hello.held):
            self._welcome(stream, hello, [])
        else:
            self._spawn_task(self._judge_and_welcome(stream, hello))

    def _end_older(self, hello: WorkerHello) -> None:
        """A process said hello: an older one of its worker has no stream any more."""
        older = self._processes.newest_stream(hello.worker_id)
        if older is not None and older.hello.session_id != hello.session_id:
            replaced = SessionReplaced("a newer process of this worker is connected")
            self._end_for_newer(older, replaced)

    def _end_for_newer(self, older: WorkStream, cause: Refusal | None) -> None:
        self._hear_out(older)
        self._forget(older)
        older.end(cause)

    async def _judge_and_welcome(self, stream: WorkStream, hello: WorkerHello) -> None:
        """Welcome once it is sure which leases are over: what a worker drops is gone for good."""
        try:
            over = await tokens_over(self._host, hello.held, partial(self._keep, hello))
        except Refusal as refusal:
            # Whether a lease is current cannot be told now: the worker is to come again.
            self.lost(stream)
            stream.end(refusal)
            return
        if stream.open:
            self._welcome(stream, hello, over)
            self.flush_one(stream)

    def _welcome(
        self, stream: WorkStream, hello: WorkerHello, over: Iterable[lease_pb2.LeaseToken]
    ) -> None:
        kept = set()
        for token in hello.held:
            if (lease := self._keep(hello, token)) is not None:
                kept.add(lease.key)
        for lease in self._leases.held_by_session(hello.session_id):
            if lease.key not in kept:
                self._own.release(lease, ev.RELEASE_CAUSE_NOT_HELD)
        stream.session.welcome(
            [lease_pb2.LeaseToken(work_item=token.work_item, epoch=token.epoch) for token in over]
        )
        if self._draining:
            stream.session.drain(self._draining)
        if drain_reason := self._processes.workers[hello.worker_id].drain_reason:
            stream.session.drain(drain_reason, leave=True)
        if hello.takes_tasks:
            self._queues.add_session(stream.key, hello.offer)
            self.credits_changed(stream)
            self._pump()

    def _keep(self, hello: WorkerHello, token: lease_pb2.LeaseToken) -> Lease | None:
        """Renew and return the open lease that the process proves to hold."""
        # Session ids can be read in the log, so only the secret proves a lease.
        lease = self._find(token) if token.secret else None
        if lease is None or lease.session_id != hello.session_id:
            return None
        self._leases.renew(lease, self._clock.mono_ns())
        return lease

    def _goodbye(self, stream: WorkStream) -> None:
        hello = stream.hello
        if not self._forget(stream):
            return
        if self._processes.disconnected(stream):
            self._processes.left(hello)
            for lease in self._leases.held_by_session(hello.session_id):
                self._own.release(lease, ev.RELEASE_CAUSE_RETURNED)
        self._log.info("worker.left", worker_id=hello.worker_id, session_id=hello.session_id)
        stream.end(None)

    def _find(self, token: lease_pb2.LeaseToken) -> Lease | None:
        """The open lease the token proves, secret included when it has one."""
        named = parse_work_item(token.work_item)
        if named is None:
            return None
        lease = self._leases.find((named[1], named[2]), token.epoch)
        if lease is None:
            return None
        if token.secret and not is_lease_secret(
            self._keys, token.work_item, token.epoch, token.secret
        ):
            return None
        return lease

    def _stream_of(self, lease: Lease) -> WorkStream | None:
        return self._processes.stream_of(lease.worker_id, lease.session_id)

    def _forget(self, stream: WorkStream) -> bool:
        """Take the stream out; False when it already was."""
        if not stream.open:
            return False
        stream.open = False
        self._streams.pop(stream.key, None)
        self._marked.pop(stream.key, None)
        self._queues.remove_session(stream.key)
        return True

    def _spawn_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
