"""The `sleep` executor: bodies that only take time, thousands of them at once.

arguments_json: {"duration": "1.5s"}; "0s" ends at once. The result is null. A body costs one timer
of the loop's heap: no task, no thread, no crossing to the bodies' loop.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache

from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S
from stretto_core.errors import InvalidArgument

from stretto_sdk.arguments.builtin import read_span
from stretto_sdk.fields import Fields, Mistakes
from stretto_sdk.strict_json import parse_json
from stretto_sdk.worker.effects import LeaseKey, SpawnAnswered, Stop, Stopped, Succeeded, key_of
from stretto_sdk.worker.endings import failed
from stretto_sdk.worker.ports import Reports

_SPANS_KEPT_MAX = 1_024


class SleepExecutor:
    """Ends each body when its span of time has passed, or when it is asked to stop."""

    def __init__(self) -> None:
        self._timers: dict[LeaseKey, asyncio.TimerHandle] = {}
        self._reports: Reports | None = None

    def attach(self, reports: Reports) -> None:
        """Remember whom to report to."""
        self._reports = reports

    def begin(self, assignment: work_pb2.Assignment) -> None:
        """Arm the body's timer; one of no duration ends here."""
        assert self._reports is not None, "attached before the first body"
        key = key_of(assignment.token)
        try:
            span_ns = _span_ns(assignment.arguments_json)
        except InvalidArgument as refusal:
            self._reports.ended(key, failed("INVALID_ARGUMENTS", refusal.message))
            return
        if span_ns == 0:
            self._reports.ended(key, Succeeded())
            return
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(span_ns / NS_PER_S, self._awake, key)

    def stop(self, stop: Stop) -> None:
        """End a body that sleeps."""
        timer = self._timers.pop(stop.key, None)
        if timer is not None:
            assert self._reports is not None, "attached before the first body"
            timer.cancel()
            self._reports.ended(stop.key, Stopped())

    def spawn_answered(self, answer: SpawnAnswered) -> None:
        """Nothing: a body that sleeps asks for no tasks."""

    async def close(self) -> None:
        """Disarm every timer."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _awake(self, key: LeaseKey) -> None:
        assert self._reports is not None, "attached before the first body"
        del self._timers[key]
        self._reports.ended(key, Succeeded())


@lru_cache(maxsize=_SPANS_KEPT_MAX)
def _span_ns(arguments_json: str) -> int:
    """Return the duration that the arguments name. Raises InvalidArgument."""
    mistakes = Mistakes()
    value = parse_json(arguments_json or "{}", source="the arguments")
    span = read_span(Fields(value, "arguments", mistakes))
    mistakes.raise_if_any("the task")
    return 0 if span is None else span.ToNanoseconds()
