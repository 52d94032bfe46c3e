"""The part of the client that asks what runs used of workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from stretto.common.v1.lease_pb2 import Position as PositionMessage
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb

from stretto_sdk.client_logs import AnyRun, LogReading
from stretto_sdk.runs import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What attempts used of workers.

    attempts: leased ever; running: those that have not ended; succeeded: those with the accepted
    result of their task. held: how long those that ended held a worker, together; succeeded_held:
    how much of it those with a result did. The rest led to nothing.
    """

    attempts: int
    running: int
    succeeded: int
    held: timedelta
    succeeded_held: timedelta


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used by all, and by queue and worker, the longest held first.

    by_queue, by_worker: the first 1,000; total has all of it.
    """

    total: Used
    by_queue: Mapping[str, Used]
    by_worker: Mapping[str, Used]


class UsageReading(LogReading):
    """What a client can ask about usage; `Client` has it all."""

    async def usage(self, run: AnyRun | None = None, *, after: Position | None = None) -> Usage:
        """Read what the attempts of one run, or of all runs of the namespace, used of workers.

        >>> used = (await client.usage(run)).total
        >>> print(used.attempts, used.held, used.succeeded_held / used.held)

        What one run was acknowledged before is in it; of all runs it trails the record by moments.
        after: only answer once the view holds that position (`run.position` of your own write).
        Raises NotFound.
        """
        request = pb.GetUsageRequest(parent=self._parent if run is None else self._name_of(run))
        if after is not None:
            position = PositionMessage(partition=after.partition, number=after.number)
            request.min_position.CopyFrom(position)
        answer = await self._calls.unary(self._calls.runs.GetUsage, request)
        return Usage(_used(answer.total), _shares(answer.queues), _shares(answer.workers))


def _shares(shares: Iterable[run_pb2.UsageShare]) -> dict[str, Used]:
    return {share.name: _used(share.usage) for share in shares}


def _used(message: run_pb2.Usage) -> Used:
    return Used(
        attempts=message.attempt_count,
        running=message.running_count,
        succeeded=message.succeeded_count,
        held=message.held.ToTimedelta(),
        succeeded_held=message.succeeded_held.ToTimedelta(),
    )
