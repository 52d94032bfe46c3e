"""Run and Task as protobuf resources: how a state is shown. Reads only."""

from __future__ import annotations

from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import run_pb2 as pb
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.state import RunState


def to_run(
    state: RunState, now_ns: int, *, creator: Principal | None = None, with_input: bool = True
) -> pb.Run:
    """Return the run as read at `now_ns`. `creator` is in the envelope of version 1 only."""
    raise NotImplementedError


def to_task(state: RunState, task: TaskName, now_ns: int) -> pb.Task:
    """Return one task as read at `now_ns`. Raises TaskNotFound."""
    raise NotImplementedError
