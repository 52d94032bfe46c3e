"""What can be asked of the workers of one ownership: who they are, what they hold, to end.

Reads what streams, polls and the lease table know; owns nothing. What is live is no event: all of
it is memory, and after a restart of the kernel a worker is known again when it has said hello.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from stretto.registry.v1 import worker_registry_service_pb2 as pb
from stretto_core.clock import NS_PER_S
from stretto_core.errors import FailedPrecondition, NotFound
from stretto_core.ids import WorkerId

from stretto_kernel.dispatch.assignments import work_item_name
from stretto_kernel.dispatch.shared import Shared
from stretto_kernel.dispatch.work_polls import PRESENCE_NS, WorkPolls
from stretto_kernel.dispatch.work_streams import WorkStreams
from stretto_kernel.dispatch.worker_processes import Worker, WorkerProcesses

REMEMBERED_NS = 3_600 * NS_PER_S
REMEMBERED_MAX = 1_000
LEASES_SHOWN_MAX = 1_000
_CONNECTED = (pb.WORKER_STATE_CONNECTED, pb.WORKER_STATE_DRAINING)


class WorkerNotFound(NotFound):
    """No such worker is connected or remembered."""

    reason = "NOT_FOUND"


class WorkerNotConnected(FailedPrecondition):
    """The worker is lost or gone: nobody is there to ask."""

    reason = "WORKER_NOT_CONNECTED"


class WorkersPage(NamedTuple):
    """Some workers in the order of their ids, and whether there are more."""

    workers: list[pb.Worker]
    more: bool


class WorkerRegistry:
    """The workers of one ownership of the partition."""

    def __init__(
        self, shared: Shared, processes: WorkerProcesses, streams: WorkStreams, polls: WorkPolls
    ) -> None:
        self._host = shared.host
        self._clock = shared.clock
        self._leases = shared.leases
        self._processes = processes
        self._streams = streams
        self._polls = polls

    def page(self, *, after: str, count_max: int, connected_only: bool) -> WorkersPage:
        """Return the workers whose ids follow `after`, at most `count_max`."""
        found = sorted(
            worker_id
            for worker_id in self._listed(connected_only=connected_only)
            if worker_id > after
        )
        shown = [self._show(self._processes.workers[name]) for name in found[:count_max]]
        return WorkersPage(shown, len(found) > count_max)

    def get(self, worker_id: WorkerId) -> tuple[pb.Worker, list[pb.WorkerLease]]:
        """Return a worker and its oldest leases. Raises WorkerNotFound."""
        worker = self._find(worker_id)
        shown = []
        for lease in self._leases.held_by_session(worker.session_id)[:LEASES_SHOWN_MAX]:
            run = self._host.find(lease.run_id)
            if run is not None:
                name = work_item_name(run.namespace, lease.run_id, lease.task)
                shown.append(pb.WorkerLease(work_item=name, epoch=lease.epoch))
        return self._show(worker), shown

    def drain(self, worker_id: WorkerId, reason: str) -> pb.Worker:
        """Lease nothing more to the worker's process, ask it to end, and return it. Idempotent.

        Raises WorkerNotFound, WorkerNotConnected.
        """
        worker = self._find(worker_id)
        if self._state(worker) not in _CONNECTED:
            raise WorkerNotConnected("the worker is not connected", worker_id=worker_id)
        worker.drain_reason = worker.drain_reason or reason
        if worker.stream is not None:
            self._streams.ask_to_leave(worker.stream, worker.drain_reason)
        self._polls.ask_to_leave(worker_id, worker.drain_reason)
        return self._show(worker)

    def _find(self, worker_id: WorkerId) -> Worker:
        worker = self._processes.workers.get(worker_id)
        if worker is None or not self._is_remembered(worker):
            raise WorkerNotFound("no such worker", worker_id=worker_id)
        return worker

    def _listed(self, *, connected_only: bool) -> list[WorkerId]:
        connected, others = [], []
        for worker_id, worker in self._processes.workers.items():
            if self._state(worker) in _CONNECTED:
                connected.append(worker_id)
            elif not connected_only and self._is_remembered(worker):
                others.append(worker_id)
        # The order is that of their newest hellos.
        return connected + others[-REMEMBERED_MAX:]

    def _is_remembered(self, worker: Worker) -> bool:
        recent = self._clock.mono_ns() - worker.heard_mono_ns < REMEMBERED_NS
        return recent or self._state(worker) in _CONNECTED

    def _state(self, worker: Worker) -> pb.WorkerState.ValueType:
        if worker.stream is not None:
            draining = worker.drain_reason or worker.stream.session.is_draining
        elif worker.end:
            return pb.WORKER_STATE_GONE
        elif worker.unary and self._is_present(worker):
            draining = worker.drain_reason
        else:
            return pb.WORKER_STATE_LOST
        return pb.WORKER_STATE_DRAINING if draining else pb.WORKER_STATE_CONNECTED

    def _is_present(self, worker: Worker) -> bool:
        """Whether a worker without a stream counts as there: it asks, asked lately, or holds."""
        return (
            self._clock.mono_ns() - worker.heard_mono_ns < PRESENCE_NS
            or self._polls.is_waiting(worker.hello.worker_id)
            or bool(self._leases.held_by_session(worker.session_id))
        )

    def _show(self, worker: Worker) -> pb.Worker:
        hello, stream = worker.hello, worker.stream
        transport = pb.WORKER_TRANSPORT_UNARY if worker.unary else pb.WORKER_TRANSPORT_STREAM
        heard_mono_ns = worker.heard_mono_ns
        if stream is not None:
            heard_mono_ns = stream.session.heard_mono_ns
        ago_ns = self._clock.mono_ns() - heard_mono_ns
        return pb.Worker(
            worker_id=hello.worker_id,
            session_id=worker.session_id,
            state=self._state(worker),
            transport=transport,
            queues=sorted(hello.offer.queues),
            executors=sorted(hello.offer.executors),
            labels=dict(hello.offer.labels),
            slot_count=hello.slot_count,
            lease_count=len(self._leases.held_by_session(worker.session_id)),
            connect_time=_timestamp(worker.since_ns),
            seen_time=_timestamp(self._clock.now_ns() - ago_ns),
            control_address=hello.control_address,
            version=hello.version,
            reason=worker.end or worker.drain_reason,
        )


def _timestamp(instant_ns: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(instant_ns)
    return stamp
