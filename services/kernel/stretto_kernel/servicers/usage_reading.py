"""GetUsage: of a run, or of all runs of a namespace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.eventlog.port import EventLog

from stretto_kernel.app.moments import newest_position
from stretto_kernel.app.usage_reading import UsageView, Used
from stretto_kernel.projections.usage import USAGE
from stretto_kernel.projections.view_reach import ViewReach
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.view_positions import least_position

SHARES_MAX = 1_000


class UsageReading:
    """Answers GetUsage of the partition whose log is given."""

    def __init__(self, view: UsageView, log: EventLog, reach: ViewReach) -> None:
        self._view = view
        self._log = log
        self._reach = reach

    async def get_usage(self, request: pb.GetUsageRequest) -> pb.GetUsageResponse:
        """Return what was used.

        Raises InvalidArgument, RunNotFound, BeyondTheLog, ViewBehind, StoreDown.
        """
        fields = Fields()
        run_id = None
        if "/runs/" in request.parent:
            namespace, run_id = fields.run("parent", request.parent)
        else:
            namespace = fields.namespace("parent", request.parent)
        least = least_position(fields, request.min_position, self._log.partition)
        fields.refuse("the request")
        if run_id is not None:
            least = max(least, await newest_position(self._log, namespace, run_id))
        found = await self._reach.read(
            least, [USAGE], lambda: self._view.usage_of(namespace, run_id, count_max=SHARES_MAX)
        )
        position = Position(partition=self._log.partition, number=found.position)
        return pb.GetUsageResponse(
            total=_usage(found.total),
            queues=_shares(found.queues),
            workers=_shares(found.workers),
            view_position=position if found.position else None,
        )


def _shares(shares: Iterable[tuple[str, Used]]) -> Iterator[run_pb2.UsageShare]:
    return (run_pb2.UsageShare(name=name, usage=_usage(used)) for name, used in shares)


def _usage(used: Used) -> run_pb2.Usage:
    held, succeeded_held = Duration(), Duration()
    held.FromNanoseconds(used.held_ns)
    succeeded_held.FromNanoseconds(used.succeeded_ns)
    return run_pb2.Usage(
        attempt_count=used.attempt_count,
        running_count=used.attempt_count - used.ended_count,
        succeeded_count=used.succeeded_count,
        held=held,
        succeeded_held=succeeded_held,
    )
