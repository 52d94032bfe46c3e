"""The part of the client that is about views: how they stand, and making them again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from stretto.projection.v1 import projection_service_pb2 as pb

from stretto_sdk.client_calls import Calls
from stretto_sdk.words import member_of, word_of


class ViewState(StrEnum):
    """How a view stands."""

    FOLLOWING = "FOLLOWING"
    STOPPED = "STOPPED"
    ABSENT = "ABSENT"
    UNKNOWN = "UNKNOWN"
    """One that only a newer kernel knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view of the log.

    row_count: about. stop_position, stop_reason, stop_message: the event before which it stands
    still, and why; 0 and "" while it follows. event_count: how many events of the log it was given;
    log_event_count: how many the log has up to its position: the same, or some were passed over.
    """

    name: str
    version: int
    state: ViewState
    position: int
    row_count: int
    stop_position: int = 0
    stop_reason: str = ""
    stop_message: str = ""
    event_count: int = 0
    log_event_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """How the relay stands, which publishes the log on the bus.

    position: up to where the bus has everything. stop_position, stop_reason, stop_message: as of a
    view.
    """

    position: int
    stop_position: int = 0
    stop_reason: str = ""
    stop_message: str = ""


@dataclass(frozen=True, slots=True)
class Views:
    """The views by name, and the newest position of the log.

    relay: None = none has ever run. snapshot_count, snapshot_bytes: of the folds of large runs.
    failing_chores: what the projector does now and then and failed the last time, with the reason.
    """

    views: Sequence[View]
    partition: str
    log_position: int
    relay: Relay | None = None
    snapshot_count: int = 0
    snapshot_bytes: int = 0
    failing_chores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewProof:
    """A view and its fresh copy at one position; digests are over the rows in order, as hex."""

    view: str
    position: int
    equal: bool
    live_row_count: int
    fresh_row_count: int
    live_digest: str
    fresh_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshFold:
    """How far views are that are made from the first event.

    phase: ASKED, BUILDING, PROVING, DONE. remaining: None = not known. swap_ms: how long readers
    had to wait for the exchange. failure: why it was given up, "" = it was not.
    """

    fold_id: str
    views: tuple[str, ...]
    phase: str
    position: int
    log_position: int
    events_per_s: float
    remaining: timedelta | None
    done: bool
    proofs: tuple[ViewProof, ...]
    swap_ms: float
    failure: str
    failure_reason: str

    @property
    def all_equal(self) -> bool:
        """Whether every live view was what the log says; only once it is done."""
        return self.done and not self.failure and all(proof.equal for proof in self.proofs)


class ViewCalls:
    """What a client can ask about views; `Client` has it all."""

    _calls: Calls

    async def views(self) -> Views:
        """Read how the views of the log stand.

        >>> stopped = [view.name for view in (await client.views()).views if view.stop_reason]
        """
        answer = await self._calls.unary(self._calls.projections.ListViews, pb.ListViewsRequest())
        return Views(
            [_view(each) for each in answer.views],
            answer.partition,
            answer.log_position,
            _relay(answer.relay) if answer.HasField("relay") else None,
            answer.snapshot_count,
            answer.snapshot_bytes,
            {chore.name: chore.message for chore in answer.failing_chores},
        )

    async def move_relay(self, after_position: int) -> Relay:
        """Let the relay publish the log on the bus again from a position; 0 = from the first event.

        >>> await client.move_relay(0)

        It begins there within seconds, at once when it stands still. Raises NotFound (no relay has
        ever run), OutOfRange (the log ends before it).
        """
        request = pb.MoveRelayRequest(after_position=after_position)
        answer = await self._calls.unary(self._calls.projections.MoveRelay, request)
        return _relay(answer.relay)

    async def rebuild_views(self, *views: str) -> AsyncGenerator[FreshFold, None]:
        """Make views again from the log beside the live ones, and yield how far it is to its end.

        >>> async for progress in client.rebuild_views("tasks"):
        ...     print(progress.phase, progress.events_per_s)

        None named: all. It goes on when nobody listens; asked again, the same one is told of.
        Raises NotFound (metadata `nearest`), FailedPrecondition (REBUILD_RUNS).
        """
        request = pb.RebuildViewsRequest(views=views)
        answers = self._calls.stream(self._calls.projections.RebuildViews, request)
        async with aclosing(answers):
            async for answer in answers:
                yield _fold(answer.progress)

    async def compare_views(self, *views: str) -> AsyncGenerator[FreshFold, None]:
        """Prove that live views are what the log makes, and yield how far it is to its end.

        As `rebuild_views`, and nothing is put in place of anything.
        """
        request = pb.CompareViewsRequest(views=views)
        answers = self._calls.stream(self._calls.projections.CompareViews, request)
        async with aclosing(answers):
            async for answer in answers:
                yield _fold(answer.progress)


def _view(message: pb.View) -> View:
    return View(
        name=message.name,
        version=message.version,
        state=member_of(ViewState, pb.ViewState, message.state),
        position=message.position,
        row_count=message.row_count,
        stop_position=message.stop.position,
        stop_reason=message.stop.reason,
        stop_message=message.stop.message,
        event_count=message.event_count,
        log_event_count=message.log_event_count,
    )


def _relay(message: pb.RelayStanding) -> Relay:
    return Relay(
        position=message.position,
        stop_position=message.stop.position,
        stop_reason=message.stop.reason,
        stop_message=message.stop.message,
    )


def _fold(message: pb.FreshFold) -> FreshFold:
    has_estimate = message.HasField("remaining")
    return FreshFold(
        fold_id=message.fold_id,
        views=tuple(message.views),
        phase=word_of(pb.FoldPhase, message.phase),
        position=message.position,
        log_position=message.log_position,
        events_per_s=message.events_per_s,
        remaining=message.remaining.ToTimedelta() if has_estimate else None,
        done=message.done,
        proofs=tuple(map(_proof, message.proofs)),
        swap_ms=message.swap.ToNanoseconds() / 1e6,
        failure=message.failure,
        failure_reason=message.failure_reason,
    )


def _proof(message: pb.ViewProof) -> ViewProof:
    return ViewProof(
        view=message.view,
        position=message.position,
        equal=message.equal,
        live_row_count=message.live_row_count,
        fresh_row_count=message.fresh_row_count,
        live_digest=message.live_digest.hex(),
        fresh_digest=message.fresh_digest.hex(),
    )
