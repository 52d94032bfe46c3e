"""Field rules of a plan: what is wrong in a task or in the run's policies, whatever the state.

Reads plans with their defaults written out. Notes every mistake with its path and never stops at
the first; relations between tasks are judged in `plan_graph`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from stretto.run.v1 import plan_pb2 as pb
from stretto_core.clock import NS_PER_S

from stretto_kernel.domain.run.blackboard_keys import check_key
from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.domain.run.output_schema import check_schema
from stretto_kernel.domain.run.plan import duration_ns
from stretto_kernel.domain.run.plan_defaults import (
    DEFAULT_JOIN,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUTS,
)

SLICE_TASKS_MAX = 1_000
TASK_COUNT_LIMIT = 1_000_000
DEPENDENCIES_MAX = 10_000
INPUTS_MAX = 100
ATTEMPTS_LIMIT = 10_000
REASONS_MAX = 100
HOUR_S = 3_600
TASK_NAME = re.compile(r"[A-Za-z0-9._#-]{1,128}\Z")
WORD = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
EXECUTORS = ("http", "process", "python", "sleep")
"""The names without a dot are Stretto's; a name of one's own has one (`acme.render`). ADR-0013."""
_FAILURE_POLICIES = frozenset(pb.FailurePolicy.values())
_SCOPES = frozenset(pb.DependencyScope.values())
_JOIN_KINDS = frozenset(pb.JoinKind.values())
_JOIN_RESTS = frozenset(pb.JoinRest.values())
_ON_FAILURES = frozenset(pb.OnFailure.values())


def check_policies(findings: Findings, path: str, graph: pb.TaskGraph) -> None:
    """Note what is wrong in the run-wide part of a plan."""
    findings.check_span(f"{path}.slice_timeout", graph.slice_timeout)
    findings.check_span(f"{path}.cancel_grace", graph.cancel_grace, least_ns=0, most_s=HOUR_S)
    findings.check_span(f"{path}.clean_up_timeout", graph.clean_up_timeout)
    if graph.HasField("run_timeout"):
        findings.check_span(f"{path}.run_timeout", graph.run_timeout)
    _check_enum(findings, f"{path}.failure_policy", _FAILURE_POLICIES, graph.failure_policy)
    if not 1 <= graph.task_count_max <= TASK_COUNT_LIMIT:
        findings.wrong(f"{path}.task_count_max", f"must be 1 to {TASK_COUNT_LIMIT}")
    if graph.HasField("output"):
        _check_binding(findings, f"{path}.output", graph.output)
    _check_fairness_key(findings, path, graph.fairness_key)
    check_schema(findings, f"{path}.output_schema_json", graph.output_schema_json)
    if graph.encrypted:
        findings.wrong(f"{path}.encrypted", "is made by the kernel only")
    if graph.output_schema_json and not graph.HasField("output"):
        findings.wrong(f"{path}.output_schema_json", "a run without an output has nothing to check")
    if not graph.tasks and not graph.growing:
        findings.wrong(f"{path}.tasks", "a plan that does not grow needs at least one task")


def check_task_count(findings: Findings, path: str, task_count: int) -> bool:
    """Note that a slice or spawn has too many tasks; whether it has not."""
    if task_count > SLICE_TASKS_MAX:
        findings.wrong(path, f"has {task_count} tasks; a slice takes {SLICE_TASKS_MAX}")
    return task_count <= SLICE_TASKS_MAX


def check_tasks(
    findings: Findings, path: str, tasks: Sequence[pb.TaskSpec], *, first_index: int = 0
) -> None:
    """Note what is wrong in tasks of one slice or spawn, each by itself.

    first_index: which of them the first is.
    """
    for index, task in enumerate(tasks, start=first_index):
        _check_task(findings, f"{path}[{index}]", task)


def _check_executor(findings: Findings, path: str, executor: str) -> None:
    if not WORD.match(executor):
        findings.wrong(path, "must be 1-64 characters of [A-Za-z0-9._-]")
    elif "." not in executor and executor not in EXECUTORS:
        near = get_close_matches(executor, EXECUTORS, n=1)
        findings.wrong(
            path,
            f"no executor is named {executor!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(EXECUTORS)}")
            + "; a name of your own has a dot",
        )


def _check_task(findings: Findings, path: str, task: pb.TaskSpec) -> None:
    if not TASK_NAME.match(task.name):
        findings.wrong(f"{path}.name", "must be 1-128 characters of [A-Za-z0-9._#-]")
    _check_executor(findings, f"{path}.executor", task.executor)
    if not WORD.match(task.queue):
        findings.wrong(f"{path}.queue", "must be 1-64 characters of [A-Za-z0-9._-]")
    _check_fairness_key(findings, path, task.fairness_key)
    if not -100 <= task.priority <= 100:
        findings.wrong(f"{path}.priority", "must be -100 to 100")
    findings.check_json(f"{path}.arguments_json", task.arguments_json, wants_object=True)
    if task.required_labels:
        findings.check_labels(f"{path}.required_labels", dict(task.required_labels))
    if task.preferred_labels:
        findings.check_labels(f"{path}.preferred_labels", dict(task.preferred_labels))
    _check_join(findings, path, task)
    _check_inputs(findings, path, task)
    # What was filled in whole needs no look: most of what a large slice is made of.
    if task.retry != DEFAULT_RETRY:
        _check_retry(findings, f"{path}.retry", task.retry)
    if task.timeouts != DEFAULT_TIMEOUTS:
        _check_timeouts(findings, f"{path}.timeouts", task.timeouts)
    _check_on_failure(findings, f"{path}.on_failure", task)
    check_schema(findings, f"{path}.output_schema_json", task.output_schema_json)
    if task.encrypted:
        findings.wrong(f"{path}.encrypted", "is made by the kernel only")
    if task.HasField("verification"):
        findings.unserved(f"{path}.verification", "verification")


def _check_fairness_key(findings: Findings, path: str, key: str) -> None:
    if key and not WORD.match(key):
        findings.wrong(f"{path}.fairness_key", "must be at most 64 characters of [A-Za-z0-9._-]")


def _check_join(findings: Findings, path: str, task: pb.TaskSpec) -> None:
    join = task.join
    if len(task.dependencies) > DEPENDENCIES_MAX:
        findings.wrong(f"{path}.dependencies", f"has more than {DEPENDENCIES_MAX} entries")
    for index, edge in enumerate(task.dependencies):
        _check_enum(findings, f"{path}.dependencies[{index}].scope", _SCOPES, edge.scope)
    if join == DEFAULT_JOIN:
        return
    _check_enum(findings, f"{path}.join.kind", _JOIN_KINDS, join.kind)
    _check_enum(findings, f"{path}.join.rest", _JOIN_RESTS, join.rest)
    counts_successes = join.kind in (pb.JOIN_KIND_ANY_SUCCEEDED, pb.JOIN_KIND_N_SUCCEEDED)
    if counts_successes and not task.dependencies:
        findings.wrong(f"{path}.join.kind", "needs at least one dependency")
    if join.rest == pb.JOIN_REST_CANCELLED and not counts_successes:
        findings.wrong(f"{path}.join.rest", "only ANY_SUCCEEDED and N_SUCCEEDED leave a rest")
    if join.kind == pb.JOIN_KIND_N_SUCCEEDED:
        # A subtree counts as many as will be spawned: only edges to single tasks bound the count.
        subtree = any(e.scope == pb.DEPENDENCY_SCOPE_SUBTREE for e in task.dependencies)
        most = TASK_COUNT_LIMIT if subtree else len(task.dependencies)
        if most and not 1 <= join.count <= most:
            findings.wrong(f"{path}.join.count", f"must be 1 to {most}")
    elif join.count:
        findings.wrong(f"{path}.join.count", "belongs to N_SUCCEEDED only")


def _check_inputs(findings: Findings, path: str, task: pb.TaskSpec) -> None:
    if len(task.inputs) > INPUTS_MAX:
        findings.wrong(f"{path}.inputs", f"has more than {INPUTS_MAX} entries")
    for key in sorted(task.inputs):
        if not WORD.match(key):
            findings.wrong(f"{path}.inputs[{key!r}]", "the name must be [A-Za-z0-9._-], 1-64")
        _check_binding(findings, f"{path}.inputs[{key!r}]", task.inputs[key])


def _check_binding(findings: Findings, path: str, binding: pb.Binding) -> None:
    match binding.WhichOneof("source"):
        case None:
            findings.wrong(path, "needs a source")
        case "literal":
            findings.check_payload(f"{path}.literal", binding.literal)
        case "run_input":
            _check_pointer(findings, f"{path}.run_input", binding.run_input.pointer)
        case "task_output":
            _check_pointer(findings, f"{path}.task_output", binding.task_output.pointer)
        case "subtree_outputs":
            _check_pointer(findings, f"{path}.subtree_outputs", binding.subtree_outputs.pointer)
        case "board_entry":
            check_key(findings, f"{path}.board_entry.key", binding.board_entry.key)
            _check_pointer(findings, f"{path}.board_entry", binding.board_entry.pointer)


def _check_pointer(findings: Findings, path: str, pointer: str) -> None:
    if pointer and not pointer.startswith("/"):
        findings.wrong(f"{path}.pointer", "a JSON Pointer is empty or starts with '/'")
    elif re.search(r"~(?![01])", pointer):
        findings.wrong(f"{path}.pointer", "in a JSON Pointer '~' is followed by 0 or 1")


def _check_retry(findings: Findings, path: str, retry: pb.RetryPolicy) -> None:
    if not 1 <= retry.max_attempts <= ATTEMPTS_LIMIT:
        findings.wrong(f"{path}.max_attempts", f"must be 1 to {ATTEMPTS_LIMIT}, or 0 for 3")
    findings.check_span(f"{path}.initial_interval", retry.initial_interval, least_ns=0)
    findings.check_span(f"{path}.max_interval", retry.max_interval, least_ns=0)
    if duration_ns(retry.initial_interval) > duration_ns(retry.max_interval):
        findings.wrong(f"{path}.max_interval", "must not be less than initial_interval")
    if not 1.0 <= retry.coefficient <= 100.0:
        findings.wrong(f"{path}.coefficient", "must be 1.0 to 100.0, or 0 for 2.0")
    if not 0.0 <= retry.jitter <= 1.0:
        findings.wrong(f"{path}.jitter", "must be 0.0 to 1.0")
    if len(retry.non_retryable_reasons) > REASONS_MAX:
        findings.wrong(f"{path}.non_retryable_reasons", f"has more than {REASONS_MAX} entries")


def _check_timeouts(findings: Findings, path: str, timeouts: pb.Timeouts) -> None:
    findings.check_span(f"{path}.heartbeat", timeouts.heartbeat, least_ns=NS_PER_S, most_s=HOUR_S)
    if timeouts.HasField("queue"):
        findings.check_span(f"{path}.queue", timeouts.queue)
    if timeouts.HasField("attempt"):
        findings.check_span(f"{path}.attempt", timeouts.attempt)
    if timeouts.HasField("task"):
        findings.check_span(f"{path}.task", timeouts.task)


def _check_on_failure(findings: Findings, path: str, task: pb.TaskSpec) -> None:
    match task.on_failure:
        case pb.ON_FAILURE_REPLAN:
            findings.unserved(path, "replan")
        case pb.ON_FAILURE_ESCALATE:
            findings.unserved(path, "escalate")
        case _:
            _check_enum(findings, path, _ON_FAILURES, task.on_failure)


def _check_enum(findings: Findings, path: str, known: frozenset[int], number: int) -> None:
    if number not in known:
        findings.wrong(path, f"{number} is not a known value")
