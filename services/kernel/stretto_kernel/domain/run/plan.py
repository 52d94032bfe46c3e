"""The plan as the rules read it: frozen values made from recorded protobuf, nothing left out.

Reading never checks and never fills in: `plan_check` and `plan_defaults` did so before the plan was
recorded, so that a later default never changes what an old stream means. Spans are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.clock import NS_PER_S
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.parts import Work, parts_of

PLANS_REMEMBERED_MAX = 256
_SHARED_MAX = 1_024
_TASKS_REMEMBERED_MAX = 4_096
"""Four slices of the largest size: each is read in parts ahead of the step that takes it in."""
_REMEMBERED_BYTES_MAX = 4 * 1024

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Dependency:
    """An edge: the task waited for, and whether everything spawned below it counts too."""

    task: TaskName
    subtree: bool


@dataclass(frozen=True, slots=True)
class Join:
    """When dependencies are met. `count` is 0 but for N_SUCCEEDED and ANY_SUCCEEDED (1)."""

    kind: pb.JoinKind.ValueType
    count: int
    cancels_rest: bool


@dataclass(frozen=True, slots=True)
class Literal:
    """The value itself."""

    payload: Payload


@dataclass(frozen=True, slots=True)
class RunInput:
    """A part of the run's input, by JSON Pointer."""

    pointer: str


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """A part of a task's output, by JSON Pointer."""

    task: TaskName
    pointer: str


@dataclass(frozen=True, slots=True)
class SubtreeOutputs:
    """Outputs of everything spawned below a task, in spawn order, a JSON Pointer into each."""

    task: TaskName
    pointer: str


@dataclass(frozen=True, slots=True)
class BoardValue:
    """A part of an entry of the blackboard, by JSON Pointer; null if it may be missing and is."""

    key: str
    pointer: str
    may_be_missing: bool


Binding = Literal | RunInput | TaskOutput | SubtreeOutputs | BoardValue


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often to try again. `jitter` is the share of a wait that varies, 0 to 1."""

    max_attempts: int
    initial_interval_ns: int
    max_interval_ns: int
    coefficient: float
    jitter: float
    non_retryable_reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits in time of one task; None = off."""

    queue_ns: int | None
    attempt_ns: int | None
    heartbeat_ns: int
    task_ns: int | None


class TaskSpec(NamedTuple):
    """One task; names are full names inside the run."""

    name: TaskName
    executor: str
    arguments_json: str
    dependencies: tuple[Dependency, ...]
    join: Join
    inputs: tuple[tuple[str, Binding], ...]
    retry: Retry
    timeouts: Timeouts
    queue: str
    priority: int
    required_labels: Labels
    preferred_labels: Labels
    failure_ignored: bool
    clean_up: bool
    may_spawn: bool
    output_schema_json: str
    fairness_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What holds for the whole run."""

    growing: bool
    slice_timeout_ns: int
    output: Binding | None
    fails_fast: bool
    run_timeout_ns: int | None
    cancel_grace_ns: int
    clean_up_timeout_ns: int
    task_count_max: int
    output_schema_json: str
    fairness_key: str


def remembered_bytes(graph: pb.TaskGraph) -> bytes | None:
    """Return what a small plan is remembered by, None for one too large to be.

    Runs of one plan come by the thousand, told apart by their input. What is remembered is only
    ever what the same bytes would be read as again.
    """
    serialized = graph.SerializeToString(deterministic=True)
    return serialized if len(serialized) <= _REMEMBERED_BYTES_MAX else None


def read_graph(graph: pb.TaskGraph) -> tuple[Policies, Sequence[TaskSpec]]:
    """Return a recorded plan: its run-wide part and its tasks."""
    serialized = remembered_bytes(graph)
    return _read_graph(graph) if serialized is None else _read_remembered_graph(serialized)


def _read_graph(graph: pb.TaskGraph) -> tuple[Policies, Sequence[TaskSpec]]:
    return read_policies(graph), tuple(read_tasks(graph.tasks))


@lru_cache(maxsize=PLANS_REMEMBERED_MAX)
def _read_remembered_graph(serialized: bytes) -> tuple[Policies, Sequence[TaskSpec]]:
    return _read_graph(pb.TaskGraph.FromString(serialized))


def read_policies(graph: pb.TaskGraph) -> Policies:
    """Return the run-wide part of a recorded plan."""
    return Policies(
        growing=graph.growing,
        slice_timeout_ns=duration_ns(graph.slice_timeout),
        output=_read_binding(graph.output, TaskName) if graph.HasField("output") else None,
        fails_fast=graph.failure_policy == pb.FAILURE_POLICY_FAIL_FAST,
        run_timeout_ns=_optional_ns(graph, "run_timeout"),
        cancel_grace_ns=duration_ns(graph.cancel_grace),
        clean_up_timeout_ns=duration_ns(graph.clean_up_timeout),
        task_count_max=graph.task_count_max,
        output_schema_json=graph.output_schema_json,
        fairness_key=graph.fairness_key,
    )


def read_tasks(specs: Iterable[pb.TaskSpec]) -> list[TaskSpec]:
    """Return the tasks of a recorded slice."""
    return [_read_planned(spec) for spec in specs]


def reading_graph(graph: pb.TaskGraph) -> Work[tuple[Policies, Sequence[TaskSpec]]]:
    """Do what `read_graph` does, in parts."""
    serialized = remembered_bytes(graph)
    if serialized is not None:
        return _read_remembered_graph(serialized)
    return read_policies(graph), (yield from reading_tasks(graph.tasks))


def reading_tasks(specs: Sequence[pb.TaskSpec]) -> Work[list[TaskSpec]]:
    """Do what `read_tasks` does, in parts."""
    read: list[TaskSpec] = []
    for part in parts_of(specs):
        if read:
            yield
        read += read_tasks(part)
    return read


def read_spawned(
    specs: Iterable[pb.TaskSpec], spawner: TaskSpec, exists: Callable[[TaskName], bool]
) -> list[TaskSpec]:
    """Return spawned tasks under their full names.

    A name in a dependency or binding means a sibling when there is one of that child part, in
    this spawn or an earlier one, else a task by its full name. A child of a clean-up task is a
    clean-up task.
    """
    specs = list(specs)
    own = {spec.name for spec in specs}

    def full_name(name: str) -> TaskName:
        full = child_name(spawner.name, name)
        return full if name in own or exists(full) else TaskName(name)

    return [
        _read_task(spec, child_name(spawner.name, spec.name), full_name, clean_up=spawner.clean_up)
        for spec in specs
    ]


def child_name(spawner: TaskName, child_part: str) -> TaskName:
    """Return the full name of a spawned task."""
    return TaskName(f"{spawner}/{child_part}")


def duration_ns(duration: Duration) -> int:
    """Return a span in nanoseconds."""
    return duration.seconds * NS_PER_S + duration.nanos


def _optional_ns(message: pb.TaskGraph | pb.Timeouts, field: str) -> int | None:
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    return duration_ns(getattr(message, field))


_FullName = Callable[[str], TaskName]


def _read_planned(spec: pb.TaskSpec) -> TaskSpec:
    serialized = spec.SerializeToString()
    if len(serialized) > _REMEMBERED_BYTES_MAX:
        return _read_task(spec, TaskName(spec.name), TaskName)
    return _read_remembered(serialized)


@lru_cache(maxsize=_TASKS_REMEMBERED_MAX)
def _read_remembered(serialized: bytes) -> TaskSpec:
    """Read a task of a plan: `decide` to judge it and, a moment later, `evolve` to add it."""
    spec = pb.TaskSpec.FromString(serialized)
    return _read_task(spec, TaskName(spec.name), TaskName)


def _read_task(
    spec: pb.TaskSpec, name: TaskName, full_name: _FullName, *, clean_up: bool = False
) -> TaskSpec:
    return TaskSpec(
        name=name,
        executor=spec.executor,
        arguments_json=spec.arguments_json,
        dependencies=tuple(
            Dependency(full_name(edge.task), edge.scope == pb.DEPENDENCY_SCOPE_SUBTREE)
            for edge in spec.dependencies
        ),
        join=_join(spec.join.SerializeToString()),
        inputs=tuple(
            (key, _read_binding(spec.inputs[key], full_name)) for key in sorted(spec.inputs)
        )
        if spec.inputs
        else (),
        retry=_retry(spec.retry.SerializeToString()),
        timeouts=_timeouts(spec.timeouts.SerializeToString()),
        queue=spec.queue,
        priority=spec.priority,
        required_labels=_labels(spec.required_labels),
        preferred_labels=_labels(spec.preferred_labels),
        failure_ignored=spec.on_failure == pb.ON_FAILURE_IGNORE,
        clean_up=spec.clean_up or clean_up,
        may_spawn=spec.may_spawn,
        output_schema_json=spec.output_schema_json,
        fairness_key=spec.fairness_key,
    )


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items())) if labels else ()


# Policies repeat from task to task, so equal ones are read once and shared.


@lru_cache(maxsize=_SHARED_MAX)
def _join(serialized: bytes) -> Join:
    rule = pb.JoinRule.FromString(serialized)
    count = 1 if rule.kind == pb.JOIN_KIND_ANY_SUCCEEDED else rule.count
    return Join(rule.kind, count, rule.rest == pb.JOIN_REST_CANCELLED)


def _read_binding(binding: pb.Binding, full_name: _FullName) -> Binding:
    match binding.WhichOneof("source"):
        case "run_input":
            return RunInput(binding.run_input.pointer)
        case "task_output":
            ref = binding.task_output
            return TaskOutput(full_name(ref.task), ref.pointer)
        case "subtree_outputs":
            subtree = binding.subtree_outputs
            return SubtreeOutputs(full_name(subtree.task), subtree.pointer)
        case "board_entry":
            entry = binding.board_entry
            return BoardValue(entry.key, entry.pointer, entry.may_be_missing)
        case _:
            return Literal(binding.literal)


@lru_cache(maxsize=_SHARED_MAX)
def _retry(serialized: bytes) -> Retry:
    policy = pb.RetryPolicy.FromString(serialized)
    return Retry(
        max_attempts=policy.max_attempts,
        initial_interval_ns=duration_ns(policy.initial_interval),
        max_interval_ns=duration_ns(policy.max_interval),
        coefficient=policy.coefficient,
        jitter=policy.jitter,
        non_retryable_reasons=tuple(policy.non_retryable_reasons),
    )


@lru_cache(maxsize=_SHARED_MAX)
def _timeouts(serialized: bytes) -> Timeouts:
    timeouts = pb.Timeouts.FromString(serialized)
    return Timeouts(
        queue_ns=_optional_ns(timeouts, "queue"),
        attempt_ns=_optional_ns(timeouts, "attempt"),
        heartbeat_ns=duration_ns(timeouts.heartbeat),
        task_ns=_optional_ns(timeouts, "task"),
    )
