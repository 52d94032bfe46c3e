"""ProjectionService: how the views stand, and fresh folds of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from stretto.projection.v1 import projection_service_pb2 as pb
from stretto.projection.v1.projection_service_pb2_grpc import ProjectionServiceServicer
from stretto_core.ids import Partition

from stretto_kernel.projections.fresh_folds import FreshFold
from stretto_kernel.projections.store import Stop
from stretto_kernel.projections.view_calls import RelayStanding, ViewCalls, ViewStanding
from stretto_kernel.servicers.fields import Fields

NAME_CHARACTERS_MAX = 63


class ProjectionServicer(ProjectionServiceServicer):
    """Serves the views of one partition."""

    def __init__(self, calls: ViewCalls, partition: Partition) -> None:
        self._calls = calls
        self._partition = partition

    async def ListViews(self, request: pb.ListViewsRequest, context: Any) -> pb.ListViewsResponse:
        """See the contract."""
        standing = await self._calls.standing()
        response = pb.ListViewsResponse(
            views=map(_view, standing.views),
            partition=self._partition,
            log_position=standing.log_position,
            snapshot_count=standing.snapshot_count,
            snapshot_bytes=standing.snapshot_bytes,
        )
        if standing.relay is not None:
            response.relay.CopyFrom(_relay(standing.relay))
        for chore in standing.failing_chores:
            shown = response.failing_chores.add(name=chore.name, message=chore.message)
            shown.failing_time.FromNanoseconds(chore.failing_ns)
        return response

    async def MoveRelay(self, request: pb.MoveRelayRequest, context: Any) -> pb.MoveRelayResponse:
        """See the contract."""
        fields = Fields()
        after_position = fields.count("after_position", request.after_position)
        fields.refuse("the request")
        return pb.MoveRelayResponse(relay=_relay(await self._calls.move_relay(after_position)))

    async def RebuildViews(
        self, request: pb.RebuildViewsRequest, context: Any
    ) -> AsyncIterator[pb.RebuildViewsResponse]:
        """See the contract."""
        async with aclosing(self._fold(list(request.views), swaps=True)) as folds:  # type: ignore[type-var]
            async for fold in folds:
                yield pb.RebuildViewsResponse(progress=_progress(fold))

    async def CompareViews(
        self, request: pb.CompareViewsRequest, context: Any
    ) -> AsyncIterator[pb.CompareViewsResponse]:
        """See the contract."""
        async with aclosing(self._fold(list(request.views), swaps=False)) as folds:  # type: ignore[type-var]
            async for fold in folds:
                yield pb.CompareViewsResponse(progress=_progress(fold))

    def _fold(self, names: list[str], *, swaps: bool) -> AsyncIterator[FreshFold]:
        fields = Fields()
        for index, name in enumerate(names):
            fields.text(f"views[{index}]", name, characters_max=NAME_CHARACTERS_MAX)
            if name in names[:index]:
                fields.wrong(f"views[{index}]", "is there twice")
        fields.refuse("the request")
        return self._calls.fold(names, swaps=swaps)


def _view(standing: ViewStanding) -> pb.View:
    state = pb.VIEW_STATE_FOLLOWING if standing.exists else pb.VIEW_STATE_ABSENT
    shown = pb.View(
        name=standing.view.name,
        version=standing.view.version,
        state=state if standing.stop is None else pb.VIEW_STATE_STOPPED,
        position=standing.position,
        row_count=standing.row_count,
    )
    if standing.event_count is not None:
        shown.event_count = standing.event_count
        shown.log_event_count = standing.log_event_count
    _show_stop(shown.stop, standing.stop, standing.stop_time_ns)
    return shown


def _relay(standing: RelayStanding) -> pb.RelayStanding:
    shown = pb.RelayStanding(position=standing.position)
    _show_stop(shown.stop, standing.stop, standing.stop_time_ns)
    return shown


def _show_stop(shown: pb.ViewStop, stop: Stop | None, stop_time_ns: int) -> None:
    if stop is not None:
        shown.position = stop.position
        shown.reason = stop.reason
        shown.message = stop.message
        shown.time.FromNanoseconds(stop_time_ns)


def _progress(fold: FreshFold) -> pb.FreshFold:
    shown = pb.FreshFold(
        fold_id=fold.fold_id,
        views=fold.views,
        phase=pb.FoldPhase.Name(fold.phase),  # type: ignore[arg-type]
        position=fold.position,
        log_position=fold.log_position,
        events_per_s=fold.events_per_s,
        done=fold.is_done,
        failure=fold.failure,
        failure_reason=fold.failure_reason,
    )
    for proof in fold.proofs:
        shown.proofs.add(
            view=proof.view,
            position=proof.position,
            equal=proof.equal,
            live_row_count=proof.live_row_count,
            fresh_row_count=proof.fresh_row_count,
            live_digest=proof.live_digest,
            fresh_digest=proof.fresh_digest,
        )
    if fold.remaining_s is not None:
        shown.remaining.FromMilliseconds(int(fold.remaining_s * 1_000))
    if fold.swap_ns:
        shown.swap.FromNanoseconds(fold.swap_ns)
    return shown
