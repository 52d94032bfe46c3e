"""The queues as they are shown: their settings, and what stands in them now."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from stretto.queue.v1 import queue_pb2
from stretto_core.clock import Clock
from stretto_core.errors import NotFound

from stretto_kernel.app.asking import Answered
from stretto_kernel.app.queue_calls import QueueCalls
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.dispatch.ready_queues import ReadyQueues
from stretto_kernel.domain.queue import QueueSettings, QueuesState, UpdateQueue

OTHERS = "all others"


class QueueNotFound(NotFound):
    """No task, worker or setting names the queue."""

    reason = "NOT_FOUND"


class QueuesPage(NamedTuple):
    """Some queues in the order of their names, and whether there are more."""

    queues: list[queue_pb2.Queue]
    more: bool


class QueueCounts(NamedTuple):
    """How much of a queue waits and runs."""

    ready_count: int
    leased_count: int


class QueueRegistry:
    """The queues of one ownership of the partition."""

    def __init__(self, queues: ReadyQueues, calls: QueueCalls, clock: Clock) -> None:
        self._queues = queues
        self._calls = calls
        self._clock = clock

    async def get(self, name: str, *, past: Collection[str] = ()) -> queue_pb2.Queue:
        """Return a queue; one of the `past` need not be live. Raises QueueNotFound, Unavailable."""

        def show(state: QueuesState) -> queue_pb2.Queue:
            if not (name in past or name in self._queues.names() or name in state.settings):
                raise QueueNotFound(f"nothing names a queue {name!r}", queue=name)
            return self._show(name, state.of(name), self._queues.served())

        return await self._calls.read(show)

    async def page(self, *, after: str, count_max: int, past: Collection[str] = ()) -> QueuesPage:
        """Return the queues, and those of the `past`, whose names follow `after`, at most so many.

        Raises Unavailable.
        """

        def show(state: QueuesState) -> QueuesPage:
            known = {*self._queues.names(), *state.settings, *past}
            names = sorted(name for name in known if name > after)
            served = self._queues.served()
            shown = [self._show(name, state.of(name), served) for name in names[:count_max]]
            return QueuesPage(shown, len(names) > count_max)

        return await self._calls.read(show)

    async def update(self, command: UpdateQueue, caller: Caller) -> Answered[queue_pb2.Queue]:
        """Change settings of a queue. Raises what the decider refuses, Unavailable."""

        def show(state: QueuesState) -> queue_pb2.Queue:
            return self._show(command.queue, state.of(command.queue), self._queues.served())

        return await self._calls.update(command, caller, show)

    def counts(self, count_max: int) -> dict[str, QueueCounts]:
        """Count what waits and runs in the `count_max` first queues by name, and in all others.

        The others stand under OTHERS, which no queue is named.
        """
        gates = self._queues.gates
        found: dict[str, QueueCounts] = {}
        for index, name in enumerate(sorted(gates.names())):
            label = name if index < count_max else OTHERS
            ready, leased = found.get(label, (0, 0))
            found[label] = QueueCounts(
                ready + gates.ready_count(name), leased + gates.leased_count(name)
            )
        return found

    def _show(self, name: str, settings: QueueSettings, served: set[str]) -> queue_pb2.Queue:
        gates = self._queues.gates
        shown = queue_pb2.Queue(
            queue=name,
            concurrency_limit=settings.concurrency_limit,
            paused=settings.pause is not None,
            pause_reason="" if settings.pause is None else settings.pause.reason,
            etag=settings.etag,
            ready_task_count=gates.ready_count(name),
            running_task_count=gates.leased_count(name),
            served=name in served,
        )
        if settings.rate_limit is not None:
            shown.rate_limit.tokens_per_second = settings.rate_limit.tokens_per_second
            shown.rate_limit.burst = settings.rate_limit.burst
        if settings.version:
            shown.update_time.FromNanoseconds(settings.changed_ns)
        oldest_ns = self._queues.oldest_ready_ns(name)
        if oldest_ns is not None:
            shown.oldest_ready_time.FromNanoseconds(oldest_ns)
        return shown
