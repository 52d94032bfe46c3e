"""Deciding what an update of a queue makes true: one fact for each setting that changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from stretto.queue.v1 import events_pb2 as ev
from stretto.queue.v1 import queue_pb2
from stretto_core.errors import Exhausted
from stretto_core.ids import RequestId

from stretto_kernel.domain.queue.state import Pause, QueueEvent, QueuesState, RateLimit
from stretto_kernel.domain.revisions import require_etag

QUEUES_MAX = 10_000

Value = TypeVar("Value")


class QueueLimit(Exhausted):
    """As many queues have settings as may."""

    reason = "QUEUE_LIMIT"


@dataclass(frozen=True, slots=True)
class Change(Generic[Value]):
    """A setting is to have this value; None = no limit, not paused."""

    value: Value | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateQueue:
    """Change settings of a queue; those that are None stay as they are.

    request_digest: SHA-256 over the parsed request's fields, 32 bytes.
    etag: of the settings that the caller saw; empty = not compared.
    """

    now_ns: int
    request_id: RequestId
    request_digest: bytes
    queue: str
    etag: str = ""
    concurrency_limit: Change[int] | None = None
    rate_limit: Change[RateLimit] | None = None
    pause: Change[Pause] | None = None


def decide(state: QueuesState, command: UpdateQueue) -> tuple[QueueEvent, ...]:
    """Return the facts `command` makes true; () when it repeats one, or nothing would change.

    Values are in their bounds: the edge has checked them. Raises RequestIdReused, RequestIdLimit,
    RevisionMismatch, QueueLimit.
    """
    repeated = state.requests.had_effect(
        command.request_id, command.request_digest, now_ns=command.now_ns
    )
    if repeated:
        return ()
    settings = state.of(command.queue)
    require_etag(f"queue {command.queue!r}", command.etag, settings.etag)
    facts: list[QueueEvent] = []
    concurrency, rate, pause = command.concurrency_limit, command.rate_limit, command.pause
    if concurrency and (
        concurrency.value != settings.concurrency_limit or not settings.limit_stated
    ):
        facts.append(ev.ConcurrencyLimitChanged(queue=command.queue, limit=concurrency.value))
    if rate and rate.value != settings.rate_limit:
        facts.append(ev.RateLimitChanged(queue=command.queue, limit=_rate_message(rate.value)))
    if pause and pause.value != settings.pause:
        facts.append(
            ev.QueueResumed(queue=command.queue)
            if pause.value is None
            else ev.QueuePaused(queue=command.queue, reason=pause.value.reason)
        )
    if facts and command.queue not in state.settings and len(state.settings) >= QUEUES_MAX:
        raise QueueLimit(
            f"{QUEUES_MAX} queues have settings already", queue_count_max=str(QUEUES_MAX)
        )
    return tuple(facts)


def _rate_message(limit: RateLimit | None) -> queue_pb2.RateLimit | None:
    if limit is None:
        return None
    return queue_pb2.RateLimit(tokens_per_second=limit.tokens_per_second, burst=limit.burst)
