"""QueueService: the queues of the partition a kernel owns."""

from __future__ import annotations

import math
import re
from typing import Any

from stretto.queue.v1 import queue_pb2
from stretto.queue.v1 import queue_service_pb2 as pb
from stretto.queue.v1.queue_service_pb2_grpc import QueueServiceServicer

from stretto_kernel.domain.queue import Change, Pause, RateLimit, UpdateQueue
from stretto_kernel.domain.run.canonical import digest_of
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.asked import asked_now
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.name_pages import parse_name_page
from stretto_kernel.servicers.run_requests import position_of

LEASES_MAX = 1_000_000
TOKENS_PER_SECOND_MIN, TOKENS_PER_SECOND_MAX = 0.001, 1_000_000.0
REASON_CHARACTERS_MAX = 1_000
ETAG_CHARACTERS_MAX = 64
PATHS = ("concurrency_limit", "rate_limit", "paused")
_QUEUE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class QueueServicer(QueueServiceServicer):
    """Answers from the ownership at hand."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def GetQueue(self, request: pb.GetQueueRequest, context: Any) -> pb.GetQueueResponse:
        """See the contract."""
        fields = Fields()
        name = _queue(fields, "queue", request.queue)
        fields.refuse("the request")
        return pb.GetQueueResponse(queue=await self._kernel.partition.queues.get(name))

    async def ListQueues(
        self, request: pb.ListQueuesRequest, context: Any
    ) -> pb.ListQueuesResponse:
        """See the contract."""
        page = parse_name_page(Fields(), "queues", request.page_size, request.page_token)
        queues, more = await self._kernel.partition.queues.page(
            after=page.after, count_max=page.size
        )
        token = page.next_token(queues[-1].queue) if more else ""
        return pb.ListQueuesResponse(queues=queues, next_page_token=token)

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
