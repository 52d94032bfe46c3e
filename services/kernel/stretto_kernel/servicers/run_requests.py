"""From the requests of RunService to commands: parse, check every field, stamp.

Pure but for the instant it is given. The plan inside a request is checked by the decider, which
names its fields the same way.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import NamedTuple

from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.ids import Namespace, RunId, TaskName

from stretto_kernel.app.run_calls import Caller
from stretto_kernel.domain.run import commands
from stretto_kernel.domain.run.canonical import (
    Encoded,
    digest_of,
    encoding_graph,
    encoding_tasks,
    graph_encoding,
)
from stretto_kernel.domain.run.parts import Work
from stretto_kernel.domain.run.plan_check import check_task_count
from stretto_kernel.servicers.asked import Asked
from stretto_kernel.servicers.fields import Fields

WAIT_S_MAX = 60
GRACE_S_MAX = 3_600
REASON_CHARACTERS_MAX = 1_000
DISPLAY_NAME_CHARACTERS_MAX = 200
HOLD_ID_CHARACTERS_MAX = 64
DEFAULT_HOLD = "operator"


class Start(NamedTuple):
    """A parsed StartRunRequest. wait_ns: 0 = answer at once."""

    namespace: Namespace
    command: commands.StartRun
    caller: Caller
    wait_ns: int
    validate_only: bool


@dataclass(frozen=True, slots=True)
class Steer:
    """A parsed request that changes one run."""

    namespace: Namespace
    run_id: RunId
    command: commands.Requested
    caller: Caller


def encoding_plan(request: pb.StartRunRequest) -> Work[Encoded]:
    """Encode the plan of a start for its digest, in parts. Raises InvalidArgument."""
    _check_task_count("task_graph.tasks", request.task_graph.tasks)
    if request.validate_only:  # What is never stored is never compared with a repeat.
        return Encoded()
    return (yield from encoding_graph(request.task_graph))


def encoding_slice(request: pb.AddTasksRequest) -> Work[Encoded]:
    """Encode the tasks of a slice for its digest, in parts. Raises InvalidArgument."""
    _check_task_count("tasks", request.tasks)
    return (yield from encoding_tasks(request.tasks))


def parse_start(request: pb.StartRunRequest, asked: Asked, plan: Encoded | None = None) -> Start:
    """Return the start. Raises InvalidArgument with every violation, Unimplemented.

    plan: what `encoding_plan` came to, for one that is large.
    """
    fields = Fields()
    namespace = fields.namespace("parent", request.parent)
    request_id = fields.request_id(request.request_id)
    labels = dict(request.labels)
    fields.check_labels("labels", labels)
    name = fields.text(
        "display_name", request.display_name, characters_max=DISPLAY_NAME_CHARACTERS_MAX
    )
    if request.HasField("input"):
        fields.check_payload("input", request.input)
    wait_ns = fields.span("wait_timeout", request.wait_timeout, most_s=WAIT_S_MAX)
    match request.WhichOneof("source"):
        case "goal":
            fields.unserved("goal", "goal")
        case None:
            fields.wrong("source", "must be a task_graph")
    if request.run_key:
        fields.unserved("run_key", "run_key")
    fields.refuse("the request")
    given = request.input if request.HasField("input") else None
    digest = b""
    if not request.validate_only:
        digest = digest_of(
            "StartRun",
            namespace,
            graph_encoding(request.task_graph) if plan is None else plan,
            given,
            labels,
            name,
        )
    command = commands.StartRun(
        now_ns=asked.now_ns,
        request_id=request_id,
        request_digest=digest,
        graph=request.task_graph,
        input=given,
        labels=labels,
        display_name=name,
    )
    caller = asked.caller(request_id, digest)
    return Start(namespace, command, caller, wait_ns, request.validate_only)


def parse_pause(request: pb.PauseRunRequest, asked: Asked) -> Steer:
    """Raises InvalidArgument with every violation."""
    fields = Fields()
    namespace, run_id = fields.run("name", request.name)
    request_id = fields.request_id(request.request_id)
    hold_id = _hold_id(fields, request.hold_id)
    reason = fields.text("reason", request.reason, characters_max=REASON_CHARACTERS_MAX)
    fields.refuse("the request")
    digest = digest_of("PauseRun", run_id, hold_id, reason)
    command = commands.PlaceHold(
        now_ns=asked.now_ns,
        request_id=request_id,
        request_digest=digest,
        hold_id=hold_id,
        reason=reason,
    )
    return Steer(namespace, run_id, command, asked.caller(request_id, digest))


def parse_resume(request: pb.ResumeRunRequest, asked: Asked) -> Steer:
    """Raises InvalidArgument with every violation."""
    fields = Fields()
    namespace, run_id = fields.run("name", request.name)
    request_id = fields.request_id(request.request_id)
    hold_id = _hold_id(fields, request.hold_id)
    fields.refuse("the request")
    digest = digest_of("ResumeRun", run_id, hold_id)
    command = commands.LiftHold(
        now_ns=asked.now_ns, request_id=request_id, request_digest=digest, hold_id=hold_id
    )
    return Steer(namespace, run_id, command, asked.caller(request_id, digest))


def parse_cancel(request: pb.CancelRunRequest, asked: Asked) -> Steer:
    """Raises InvalidArgument with every violation."""
    fields = Fields()
    namespace, run_id = fields.run("name", request.name)
    request_id = fields.request_id(request.request_id)
    reason = fields.text("reason", request.reason, characters_max=REASON_CHARACTERS_MAX)
    grace_ns = None
    if request.HasField("grace"):
        grace_ns = fields.span("grace", request.grace, most_s=GRACE_S_MAX)
    fields.refuse("the request")
    digest = digest_of("CancelRun", run_id, reason, grace_ns)
    command = commands.Cancel(
        now_ns=asked.now_ns,
        request_id=request_id,
        request_digest=digest,
        reason=reason,
        grace_ns=grace_ns,
    )
    return Steer(namespace, run_id, command, asked.caller(request_id, digest))


def parse_kill(request: pb.KillRunRequest, asked: Asked) -> Steer:
    """Raises InvalidArgument with every violation."""
    fields = Fields()
    namespace, run_id = fields.run("name", request.name)
    request_id = fields.request_id(request.request_id)
    reason = fields.text("reason", request.reason, characters_max=REASON_CHARACTERS_MAX)
    fields.refuse("the request")
    digest = digest_of("KillRun", run_id, reason)
    command = commands.Kill(
        now_ns=asked.now_ns, request_id=request_id, request_digest=digest, reason=reason
    )
    return Steer(namespace, run_id, command, asked.caller(request_id, digest))


def parse_shred(request: pb.ShredRunRequest, asked: Asked) -> Steer:
    """Raises InvalidArgument with every violation."""
    fields = Fields()
    namespace, run_id = fields.run("name", request.name)
    request_id = fields.request_id(request.request_id)
    reason = fields.text("reason", request.reason, characters_max=REASON_CHARACTERS_MAX)
    fields.refuse("the request")
    digest = digest_of("ShredRun", run_id, reason)
    command = commands.Shred(
        now_ns=asked.now_ns, request_id=request_id, request_digest=digest, reason=reason
    )
    return Steer(namespace, run_id, command, asked.caller(request_id, digest))


def parse_add_tasks(request: pb.AddTasksRequest, asked: Asked, tasks: Encoded) -> Steer:
    """Return the slice; tasks: what `encoding_slice` came to.

    Raises InvalidArgument with every violation.
    """
    fields = Fields()
    namespace, run_id = fields.run("name", request.name)
    request_id = fields.request_id(request.request_id)
    if not request.tasks and not request.sealed:
        fields.wrong("tasks", "must not be empty unless the slice seals the plan")
    fields.refuse("the request")
    digest = digest_of("AddTasks", run_id, tasks, request.sealed)
    command = commands.AddTasks(
        now_ns=asked.now_ns,
        request_id=request_id,
        request_digest=digest,
        tasks=tuple(request.tasks),
        sealed=request.sealed,
    )
    return Steer(namespace, run_id, command, asked.caller(request_id, digest))


def parse_retry(request: pb.RetryRunRequest, asked: Asked, *, step_count: int) -> Steer:
    """Raises InvalidArgument with every violation."""
    fields = Fields()
    namespace, run_id = fields.run("name", request.name)
    request_id = fields.request_id(request.request_id)
    tasks = tuple(TaskName(name) for name in request.tasks)
    fields.refuse("the request")
    digest = digest_of("RetryRun", run_id, tasks)
    command = commands.Retry(
        now_ns=asked.now_ns,
        request_id=request_id,
        request_digest=digest,
        tasks=tasks,
        step_count=step_count,
    )
    return Steer(namespace, run_id, command, asked.caller(request_id, digest))


def parse_run_name(field: str, text: str) -> tuple[Namespace, RunId]:
    """Raises InvalidArgument."""
    fields = Fields()
    named = fields.run(field, text)
    fields.refuse("the request")
    return named


def position_of(partition: str, number: int) -> Position:
    """A place in the log as a reply carries it."""
    return Position(partition=partition, number=number)


def _check_task_count(field: str, tasks: Sized) -> None:
    """Refuse too many at once: reading them all is work that nobody asked for."""
    fields = Fields()
    check_task_count(fields, field, len(tasks))
    fields.refuse("the request")


def _hold_id(fields: Fields, text: str) -> str:
    return fields.text("hold_id", text, characters_max=HOLD_ID_CHARACTERS_MAX) or DEFAULT_HOLD
