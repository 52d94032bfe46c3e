"""The part of the client that is about queues: how they stand, and setting their limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from stretto.queue.v1 import queue_pb2
from stretto.queue.v1 import queue_service_pb2 as pb
from stretto_core.ids import IdSource

from stretto_sdk.client_calls import Calls
from stretto_sdk.runs import optional_time


class Unchanged(Enum):
    """Stands for a setting that is left as it is."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHistory:
    """What became of a queue, since ever.

    task_count: tasks that came to be. granted_lease_count: leases, the newest at last_lease_time.
    succeeded_attempt_count: attempts that gave their task its result. failed_attempt_count: those
    that failed, were lost or ran out of time. first_time, last_time: of facts that name it.
    updater: who changed its settings last, "" = nobody.
    """

    task_count: int
    granted_lease_count: int
    succeeded_attempt_count: int
    failed_attempt_count: int
    first_time: datetime
    last_time: datetime
    last_lease_time: datetime | None
    updater: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue as it stands.

    concurrency_limit: most leases at once; rate: leases a second, burst: how many at once after a
    rest; None: no limit. ready_task_count: tasks that wait, those of held runs included.
    oldest_ready_time: since when the longest waiting one is ready. served: whether a connected
    worker serves it. etag: for `Client.update_queue`. history: as a view says it that trails the
    record by moments; None: not yet, or the answer of an update.
    """

    queue: str
    concurrency_limit: int | None
    rate: float | None
    burst: int | None
    paused: bool
    pause_reason: str
    ready_task_count: int
    running_task_count: int
    oldest_ready_time: datetime | None
    served: bool
    update_time: datetime | None
    etag: str
    history: QueueHistory | None = None


class QueueCalls:
    """What a client can ask about queues; `Client` has it all."""

    _calls: Calls
    _ids: IdSource

    async def queues(self, *, history: bool = False) -> Sequence[Queue]:
        """Read the queues by name: those that tasks in work, workers or settings name.

        >>> full = [one.queue for one in await client.queues() if one.ready_task_count > 1_000]

        history: also those that ever had a task.
        """
        request = pb.ListQueuesRequest(page_size=1_000, with_history=history)
        found: list[Queue] = []
        while True:
            page = await self._calls.unary(self._calls.queues.ListQueues, request)
            found += [_queue(each) for each in page.queues]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def queue(self, queue: str) -> Queue:
        """Read one queue. Raises NotFound when nothing ever named it.

        >>> print((await client.queue("gpu")).running_task_count)
        """
        answer = await self._calls.unary(
            self._calls.queues.GetQueue, pb.GetQueueRequest(queue=queue)
        )
        return _queue(answer.queue)

    async def update_queue(
        self,
        queue: str,
        *,
        concurrency_limit: int | Unchanged | None = UNCHANGED,
        rate: float | Unchanged | None = UNCHANGED,
        burst: int = 0,
        paused: bool | Unchanged = UNCHANGED,
        reason: str = "",
        etag: str = "",
    ) -> Queue:
        """Change settings of a queue; the next lease heeds them, and what runs goes on.

        >>> await client.update_queue("gpu", concurrency_limit=2, rate=None)

        None lifts a limit. rate: leases a second. burst: 0: a second's. etag: else it is refused.
        """
        request = pb.UpdateQueueRequest(
            queue=queue_pb2.Queue(queue=queue, etag=etag), request_id=self._ids.uuid7()
        )
        if not isinstance(concurrency_limit, Unchanged):
            request.update_mask.paths.append("concurrency_limit")
            if concurrency_limit is not None:
                request.queue.concurrency_limit = concurrency_limit
        if not isinstance(rate, Unchanged):
            request.update_mask.paths.append("rate_limit")
            if rate is not None:
                request.queue.rate_limit.tokens_per_second = rate
                request.queue.rate_limit.burst = burst
        if not isinstance(paused, Unchanged):
            request.update_mask.paths.append("paused")
            request.queue.paused = paused
            request.queue.pause_reason = reason
        answer = await self._calls.unary(self._calls.queues.UpdateQueue, request)
        return _queue(answer.queue)


def _queue(message: queue_pb2.Queue) -> Queue:
    limited, rated = message.HasField("concurrency_limit"), message.HasField("rate_limit")
    return Queue(
        queue=message.queue,
        concurrency_limit=message.concurrency_limit if limited else None,
        rate=message.rate_limit.tokens_per_second if rated else None,
        burst=message.rate_limit.burst if rated else None,
        paused=message.paused,
        pause_reason=message.pause_reason,
        ready_task_count=message.ready_task_count,
        running_task_count=message.running_task_count,
        oldest_ready_time=optional_time(message, message.oldest_ready_time, "oldest_ready_time"),
        served=message.served,
        update_time=optional_time(message, message.update_time, "update_time"),
        etag=message.etag,
        history=_history(message.history) if message.HasField("history") else None,
    )


def _history(message: queue_pb2.QueueHistory) -> QueueHistory:
    return QueueHistory(
        task_count=message.task_count,
        granted_lease_count=message.granted_lease_count,
        succeeded_attempt_count=message.succeeded_attempt_count,
        failed_attempt_count=message.failed_attempt_count,
        first_time=message.first_time.ToDatetime(tzinfo=UTC),
        last_time=message.last_time.ToDatetime(tzinfo=UTC),
        last_lease_time=optional_time(message, message.last_lease_time, "last_lease_time"),
        updater=message.updater.name,
    )
