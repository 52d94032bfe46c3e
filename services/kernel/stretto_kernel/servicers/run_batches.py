"""StartRuns and AwaitRuns: items to values and back. Each item is judged by itself.

An item's refusal is the google.rpc.Status that StartRun or GetRun would have ended with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
from google.rpc import status_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import FieldViolation, InvalidArgument, Refusal
from stretto_core.ids import RunId
from stretto_core.rpc.guard import MessageTooLarge
from stretto_core.rpc.status import to_status

from stretto_kernel.app.in_parts import in_parts
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX
from stretto_kernel.app.run_calls import RunStart
from stretto_kernel.app.run_ends import Named, RunEnd, RunEnds
from stretto_kernel.app.start_batch import Outcome
from stretto_kernel.domain.run.parts import has_parts
from stretto_kernel.servicers.asked import Asked
from stretto_kernel.servicers.fields import DEFAULT_NAMESPACE, Fields
from stretto_kernel.servicers.run_requests import (
    encoding_plan,
    parse_run_name,
    parse_start,
    position_of,
)

STARTS_MAX = 500
NAMES_MAX = 1_000
NAME_CHARACTERS_MAX = 512
"""Of a name that is refused by itself: it comes back with its refusal."""


def parse_starts(request: pb.StartRunsRequest, asked: Asked) -> AsyncIterator[RunStart | Refusal]:
    """Return the starts, each parsed as it is taken. Raises InvalidArgument for the call itself."""
    fields = Fields()
    if not 1 <= len(request.requests) <= STARTS_MAX:
        fields.wrong("requests", f"must be 1-{STARTS_MAX}")
    fields.refuse("the request")
    return _parse_each(request, asked)


async def _parse_each(
    request: pb.StartRunsRequest, asked: Asked
) -> AsyncIterator[RunStart | Refusal]:
    for each in request.requests:
        yield await _parse_one(each, asked)


async def _parse_one(request: pb.StartRunRequest, asked: Asked) -> RunStart | Refusal:
    try:
        plan = None
        if has_parts(request.task_graph.tasks):
            plan = await in_parts(encoding_plan(request))
        start = parse_start(request, asked, plan)
        alone = [("wait_timeout", start.wait_ns > 0), ("validate_only", start.validate_only)]
        wrong = [FieldViolation(f, "belongs to StartRun only") for f, given in alone if given]
        if wrong:
            raise InvalidArgument("the request is not one of a batch", violations=wrong)
    except Refusal as refusal:
        return refusal
    return RunStart(start.namespace, start.command, start.caller)


def to_results(outcomes: Sequence[Outcome], partition: str) -> pb.StartRunsResponse:
    """Return the answer, item by item in the order asked.

    All of it is true already, so it must not fail for its size: what has no room says so.
    """
    results = [_to_result(outcome, partition) for outcome in outcomes]
    bytes_left = PAGE_BYTES_MAX - sum(
        each.ByteSize() for each in results if each.HasField("refused")
    )
    for index, result in enumerate(results):
        if result.HasField("started"):
            size_bytes = result.ByteSize()
            if size_bytes > bytes_left:
                results[index] = pb.StartRunResult(refused=_no_room(result.started.run.name))
            else:
                bytes_left -= size_bytes
    return pb.StartRunsResponse(results=results)


def _to_result(outcome: Outcome, partition: str) -> pb.StartRunResult:
    if isinstance(outcome, Refusal):
        return pb.StartRunResult(refused=to_status(outcome))
    started = pb.StartRunResponse(
        run=outcome.answer, position=position_of(partition, outcome.position)
    )
    return pb.StartRunResult(started=started)


def _no_room(name: str) -> status_pb2.Status:
    return to_status(MessageTooLarge("it was started; StartRun alone answers it", name=name))


async def hear_names(requests: AsyncIterator[pb.AwaitRunsRequest], ends: RunEnds) -> None:
    """Hand the names on as they come, until the caller has said all or is gone."""
    cause: Exception | None = None
    try:
        async for request in requests:
            fields = Fields()
            if len(request.names) > NAMES_MAX:
                fields.wrong("names", f"must be at most {NAMES_MAX}")
            if any(len(name) > NAME_CHARACTERS_MAX for name in request.names):
                fields.wrong("names", f"each has at most {NAME_CHARACTERS_MAX} characters")
            fields.refuse("the request")
            for name in request.names:
                ends.name(_named(name))
            # A caller who names and does not read is not read any more.
            await ends.until_room()
    except grpc.RpcError:
        pass  # The transport failed: nobody listens any more.
    except Exception as error:
        cause = error
    ends.end_names(cause)


def _named(name: str) -> Named:
    try:
        return Named(name, *parse_run_name("names", name))
    except Refusal as refusal:
        return Named(name, DEFAULT_NAMESPACE, RunId(""), refusal)


def to_ends(ends: Sequence[RunEnd], partition: str) -> pb.AwaitRunsResponse:
    """Return a message that tells of these ends."""
    runs = []
    for end in ends:
        if end.refused is not None:
            runs.append(pb.AwaitedRun(name=end.name, refused=to_status(end.refused)))
        else:
            position = position_of(partition, end.position)
            runs.append(pb.AwaitedRun(name=end.name, ended=end.run, position=position))
    return pb.AwaitRunsResponse(runs=runs)
