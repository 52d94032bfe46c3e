"""How a run is started: in one call, or slice by slice when its plan is larger than one takes.

A large plan is checked whole before anything of it is stored. Each of its calls has a request id
derived from the start's own, so a start that is repeated after any break goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import InvalidArgument, Refusal, Unavailable

from stretto_sdk.client_calls import Calls
from stretto_sdk.slices import Slice, alone, is_sliced, slices_of

Answer = TypeVar("Answer")

_ENDED = {
    run_pb2.RUN_STATE_SUCCEEDED,
    run_pb2.RUN_STATE_FAILED,
    run_pb2.RUN_STATE_CANCELLED,
    run_pb2.RUN_STATE_KILLED,
}
_START = "task_graph.tasks"
_GROW = "tasks"
"""How the kernel calls the list of tasks in either call."""


async def start_run(calls: Calls, request: pb.StartRunRequest) -> pb.StartRunResponse:
    """Start a run, or only check it as `validate_only` says; its whole plan is recorded on return.

    Raises InvalidArgument with the mistakes: then nothing was stored. Should the kernel refuse a
    slice for another reason once the run has begun, the run is killed before that is raised. After
    Unavailable the run may have begun: repeat the same request, else it ends as PLAN_NOT_SEALED.
    """
    if not is_sliced(request.task_graph):
        wait_s = request.wait_timeout.ToTimedelta().total_seconds()
        give_up_s = asyncio.get_running_loop().time() + wait_s
        return await _ended(calls, request, await calls.starts.start(request), give_up_s)
    slices = slices_of(request.task_graph)
    first = _first_of(request, slices[0])
    for piece in slices if request.validate_only else slices[1:]:
        await _check(calls, request, piece)
    answer = await _told_in_the_plan(calls.unary(calls.runs.StartRun, first), slices[0], _START)
    if request.validate_only:
        return answer
    for index, piece in enumerate(slices[1:], start=1):
        grow = pb.AddTasksRequest(
            name=answer.run.name,
            request_id=_derived_id(request.request_id, index),
            tasks=piece.tasks,
            sealed=index == len(slices) - 1 and not request.task_graph.growing,
        )
        try:
            grown = await _told_in_the_plan(calls.unary(calls.runs.AddTasks, grow), piece, _GROW)
        except Unavailable:
            raise
        except Refusal as refusal:
            if refusal.reason_word == "RUN_CLOSED":
                break  # It was cancelled or it failed meanwhile: it needs no more tasks.
            await _kill(calls, grow, refusal)
            raise
        answer = pb.StartRunResponse(run=grown.run, position=grown.position)
    if request.HasField("wait_timeout"):
        # The same start again changes nothing; it is answered once the run has ended.
        first.wait_timeout.CopyFrom(request.wait_timeout)
        return await calls.unary(calls.runs.StartRun, first)
    return answer


async def _ended(
    calls: Calls, request: pb.StartRunRequest, started: pb.StartRunResponse, give_up_s: float
) -> pb.StartRunResponse:
    """Wait for the end as the request says, unless the start waited for it."""
    if not request.HasField("wait_timeout") or started.run.state in _ENDED:
        return started
    try:
        async with asyncio.timeout_at(give_up_s):
            ended = await calls.ends.wait(started.run.name)
    except TimeoutError:
        answer = await calls.unary(calls.runs.GetRun, pb.GetRunRequest(name=started.run.name))
        return pb.StartRunResponse(run=answer.run, position=started.position)
    return pb.StartRunResponse(run=ended.ended, position=ended.position)


def _first_of(request: pb.StartRunRequest, piece: Slice) -> pb.StartRunRequest:
    first = pb.StartRunRequest()
    first.CopyFrom(request)
    first.ClearField("wait_timeout")
    first.task_graph.growing = True
    del first.task_graph.tasks[:]
    first.task_graph.tasks.extend(alone(piece) if request.validate_only else piece.tasks)
    return first


async def _check(calls: Calls, request: pb.StartRunRequest, piece: Slice) -> None:
    """Have the kernel check a slice's tasks, each by itself, without storing anything."""
    check = pb.StartRunRequest(
        parent=request.parent,
        request_id=_derived_id(request.request_id, 0),
        task_graph=plan_pb2.TaskGraph(tasks=alone(piece), growing=True),
        validate_only=True,
    )
    await _told_in_the_plan(calls.unary(calls.runs.StartRun, check), piece, _START)


async def _told_in_the_plan(call: Awaitable[Answer], piece: Slice, path: str) -> Answer:
    """Return the answer to a call about a slice; its mistakes get the paths of the whole plan."""
    try:
        return await call
    except InvalidArgument as refused:
        raise piece.in_the_plan(refused, path) from None


async def _kill(calls: Calls, grow: pb.AddTasksRequest, refusal: Refusal) -> None:
    kill = pb.KillRunRequest(
        name=grow.name,
        request_id=f"{grow.request_id}-kill",
        reason=f"a part of its plan was refused: {refusal.reason_word}",
    )
    # Why the plan was refused is what the caller must hear.
    with suppress(Refusal):
        await calls.unary(calls.runs.KillRun, kill)


def _derived_id(request_id: str, index: int) -> str:
    """Return the id of a start's further call: the same for the same start, short enough."""
    return f"{hashlib.sha256(request_id.encode()).hexdigest()[:32]}-{index}"
