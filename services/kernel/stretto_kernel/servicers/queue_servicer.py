"""QueueService: the queues of the partition a kernel owns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from stretto.common.v1.lease_pb2 import Position
from stretto.queue.v1 import queue_pb2
from stretto.queue.v1 import queue_service_pb2 as pb
from stretto.queue.v1.queue_service_pb2_grpc import QueueServiceServicer

from stretto_kernel.domain.queue import Change, Pause, RateLimit, UpdateQueue
from stretto_kernel.domain.run.canonical import digest_of
from stretto_kernel.kernel import Kernel
from stretto_kernel.projections.past_queues import PastQueues, QueuesSeen
from stretto_kernel.servicers.asked import asked_now
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.name_pages import parse_name_page
from stretto_kernel.servicers.run_requests import position_of
from stretto_kernel.servicers.view_positions import least_position

LEASES_MAX = 1_000_000
TOKENS_PER_SECOND_MIN, TOKENS_PER_SECOND_MAX = 0.001, 1_000_000.0
REASON_CHARACTERS_MAX = 1_000
ETAG_CHARACTERS_MAX = 64
PATHS = ("concurrency_limit", "rate_limit", "paused")
_QUEUE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class QueueServicer(QueueServiceServicer):
    """Answers from the memory of the ownership at hand, and of the past from a view."""

    def __init__(self, kernel: Kernel, past: PastQueues) -> None:
        self._kernel = kernel
        self._past = past

    async def GetQueue(self, request: pb.GetQueueRequest, context: Any) -> pb.GetQueueResponse:
        """See the contract."""
        fields = Fields()
        name = _queue(fields, "queue", request.queue)
        least = self._least(fields, request.min_position)
        fields.refuse("the request")
        seen = await self._past.named([name], least)
        queue = await self._kernel.partition.queues.get(name, past=seen.rows)
        _tell_history([queue], seen)
        return pb.GetQueueResponse(queue=queue, view_position=self._position(seen))

    async def ListQueues(
        self, request: pb.ListQueuesRequest, context: Any
    ) -> pb.ListQueuesResponse:
        """See the contract."""
        fields = Fields()
        least = self._least(fields, request.min_position)
        page = parse_name_page(fields, "queues", request.page_size, request.page_token)
        after, size = page.after, page.size
        seen = None
        if request.with_history:
            seen = await self._past.page(after=after, count_max=size + 1, least=least)
        queues, more = await self._kernel.partition.queues.page(
            after=after, count_max=size, past=seen.rows if seen else ()
        )
        if seen is None:
            seen = await self._past.named([queue.queue for queue in queues], least)
        _tell_history(queues, seen)
        return pb.ListQueuesResponse(
            queues=queues,
            next_page_token=page.next_token(queues[-1].queue) if more else "",
            view_position=self._position(seen),
        )

    async def UpdateQueue(
        self, request: pb.UpdateQueueRequest, context: Any
    ) -> pb.UpdateQueueResponse:
        """See the contract."""
        asked = asked_now(self._kernel.ports.clock)
        command = _parse(request, asked.now_ns)
        caller = asked.caller(command.request_id, command.request_digest)
        queue, number = await self._kernel.partition.queues.update(command, caller)
        position = position_of(self._kernel.ports.log.partition, number)
        return pb.UpdateQueueResponse(queue=queue, position=position)

    def _least(self, fields: Fields, position: Position) -> int:
        return least_position(fields, position, self._kernel.ports.log.partition)

    def _position(self, seen: QueuesSeen) -> Position | None:
        if not seen.position:
            return None
        return position_of(self._kernel.ports.log.partition, seen.position)


def _tell_history(queues: Iterable[queue_pb2.Queue], seen: QueuesSeen) -> None:
    for queue in queues:
        row = seen.rows.get(queue.queue)
        if row is None:
            continue
        told = queue.history
        told.task_count = row.task_count
        told.granted_lease_count = row.lease_count
        told.succeeded_attempt_count = row.succeeded_count
        told.failed_attempt_count = row.failed_count
        told.first_time.FromNanoseconds(row.first_ns)
        told.last_time.FromNanoseconds(row.last_ns)
        if row.last_lease_ns:
            told.last_lease_time.FromNanoseconds(row.last_lease_ns)
        if row.changed_ns:
            told.updater.ParseFromString(row.changed_by)


def _parse(request: pb.UpdateQueueRequest, now_ns: int) -> UpdateQueue:
    fields, queue = Fields(), request.queue
    name = _queue(fields, "queue.queue", queue.queue)
    request_id = fields.request_id(request.request_id)
    etag = fields.text("queue.etag", queue.etag, characters_max=ETAG_CHARACTERS_MAX)
    paths = set(request.update_mask.paths)
    if not paths or not paths <= set(PATHS):
        fields.wrong("update_mask", f"must name at least one of {', '.join(PATHS)}, nothing else")
    concurrency = Change(_limit(fields, queue)) if "concurrency_limit" in paths else None
    rate = Change(_rate(fields, queue)) if "rate_limit" in paths else None
    reason = fields.text(
        "queue.pause_reason", queue.pause_reason, characters_max=REASON_CHARACTERS_MAX
    )
    pause = Change(Pause(reason) if queue.paused else None) if "paused" in paths else None
    fields.refuse("the request")
    settings = (concurrency, rate, pause)
    return UpdateQueue(
        now_ns=now_ns,
        request_id=request_id,
        request_digest=digest_of("UpdateQueue", name, etag, *map(repr, settings)),
        queue=name,
        etag=etag,
        concurrency_limit=concurrency,
        rate_limit=rate,
        pause=pause,
    )


def _queue(fields: Fields, field: str, text: str) -> str:
    if not _QUEUE.fullmatch(text):
        fields.wrong(field, "must be 1-64 characters of [A-Za-z0-9._-]")
    return text


def _limit(fields: Fields, queue: queue_pb2.Queue) -> int | None:
    if not queue.HasField("concurrency_limit"):
        return None
    if not 1 <= queue.concurrency_limit <= LEASES_MAX:
        fields.wrong(
            "queue.concurrency_limit", f"must be 1-{LEASES_MAX}; to lease nothing, pause the queue"
        )
    return queue.concurrency_limit


def _rate(fields: Fields, queue: queue_pb2.Queue) -> RateLimit | None:
    if not queue.HasField("rate_limit"):
        return None
    rate, burst = queue.rate_limit.tokens_per_second, queue.rate_limit.burst
    if not TOKENS_PER_SECOND_MIN <= rate <= TOKENS_PER_SECOND_MAX:
        fields.wrong(
            "queue.rate_limit.tokens_per_second",
            f"must be {TOKENS_PER_SECOND_MIN:g}-{TOKENS_PER_SECOND_MAX:.0f}",
        )
        return None
    if not 0 <= burst <= LEASES_MAX:
        fields.wrong("queue.rate_limit.burst", f"must be 0-{LEASES_MAX}")
    return RateLimit(rate, burst or math.ceil(rate))
