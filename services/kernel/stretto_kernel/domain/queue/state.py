"""The settings of the queues as folded, and what each fact changes of them. Pure.

Instants are UTC nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message
from stretto.queue.v1 import events_pb2 as ev
from stretto_core.eventlog.recorded import Recorded

from stretto_kernel.domain.requests import Requests

KIND = "queues"
"""What their stream is named by, after the partition."""
QueueEvent = ev.ConcurrencyLimitChanged | ev.RateLimitChanged | ev.QueuePaused | ev.QueueResumed


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of `burst` tokens that `tokens_per_second` drip into."""

    tokens_per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is leased, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How much of a queue goes to workers; None = no limit, not paused.

    limit_stated: a fact says the concurrency limit, not the kernel's environment.
    version, changed_ns: of the newest fact about the queue; 0 = there is none.
    """

    concurrency_limit: int | None = None
    rate_limit: RateLimit | None = None
    pause: Pause | None = None
    limit_stated: bool = False
    version: int = 0
    changed_ns: int = 0

    @property
    def etag(self) -> str:
        """Changes with every change of the settings."""
        return str(self.version)


class QueuesState:
    """The settings of all queues of a partition.

    concurrency_defaults: limits of queues for which no fact says one.
    """

    def __init__(self, concurrency_defaults: Mapping[str, int]) -> None:
        self.version = 0
        self.requests = Requests()
        self.changed: dict[str, None] = {}
        """Queues that facts have changed since this was emptied last (values unused)."""
        self._settings = {
            name: QueueSettings(concurrency_limit=limit)
            for name, limit in concurrency_defaults.items()
        }

    @property
    def settings(self) -> Mapping[str, QueueSettings]:
        """Those of every queue that has any."""
        return self._settings

    def of(self, queue: str) -> QueueSettings:
        """Those of any queue."""
        return self._settings.get(queue, _NONE)

    def put(self, queue: str, settings: QueueSettings) -> None:
        """For `evolve` alone."""
        self._settings[queue] = settings
        self.changed[queue] = None


_NONE = QueueSettings()


def evolve(state: QueuesState, recorded: Recorded[Any]) -> None:
    """Apply one recorded fact in place. Never refuses."""
    assert recorded.version == state.version + 1, "a fold takes every version once, in order"
    state.version = recorded.version
    event = recorded.event
    settings = _EVOLVE[type(event)](state.of(event.queue), event)
    state.put(event.queue, replace(settings, version=recorded.version, changed_ns=recorded.time_ns))
    if recorded.request_id:
        state.requests.remember(recorded)


def _concurrency(settings: QueueSettings, event: ev.ConcurrencyLimitChanged) -> QueueSettings:
    limit = event.limit if event.HasField("limit") else None
    return replace(settings, concurrency_limit=limit, limit_stated=True)


def _rate(settings: QueueSettings, event: ev.RateLimitChanged) -> QueueSettings:
    if not event.HasField("limit"):
        return replace(settings, rate_limit=None)
    limit = RateLimit(event.limit.tokens_per_second, event.limit.burst)
    return replace(settings, rate_limit=limit)


def _paused(settings: QueueSettings, event: ev.QueuePaused) -> QueueSettings:
    return replace(settings, pause=Pause(event.reason))


def _resumed(settings: QueueSettings, _: ev.QueueResumed) -> QueueSettings:
    return replace(settings, pause=None)


_EVOLVE: dict[type[Message], Callable[[QueueSettings, Any], QueueSettings]] = {
    ev.ConcurrencyLimitChanged: _concurrency,
    ev.RateLimitChanged: _rate,
    ev.QueuePaused: _paused,
    ev.QueueResumed: _resumed,
}
EVENTS = tuple(_EVOLVE)
"""Every event type of the stream."""
