"""Defaults of a plan, written into it before it is recorded.

A recorded plan says everything: a default changed later never changes what an old stream means.
Spans in seconds are the contract's (plan.proto).
"""

from __future__ import annotations

from collections.abc import Iterable

from stretto.run.v1 import plan_pb2 as pb

from stretto_kernel.domain.run.findings import SPAN_S_MAX

SLICE_TIMEOUT_S = 300
CANCEL_GRACE_S = 10
CLEAN_UP_TIMEOUT_S = 600
HEARTBEAT_S = 30
MAX_ATTEMPTS = 3
INITIAL_INTERVAL_S = 1
MAX_INTERVAL_S = 60
COEFFICIENT = 2.0
JITTER = 0.2
TASK_COUNT_MAX = 10_000
QUEUE = "default"


def fill_policies(graph: pb.TaskGraph) -> None:
    """Write the defaults of the run-wide part into a graph."""
    if not graph.HasField("slice_timeout"):
        graph.slice_timeout.seconds = SLICE_TIMEOUT_S
    if not graph.HasField("cancel_grace"):
        graph.cancel_grace.seconds = CANCEL_GRACE_S
    if not graph.HasField("clean_up_timeout"):
        graph.clean_up_timeout.seconds = CLEAN_UP_TIMEOUT_S
    graph.failure_policy = graph.failure_policy or pb.FAILURE_POLICY_CONTINUE
    graph.task_count_max = graph.task_count_max or TASK_COUNT_MAX


def filled_tasks(tasks: Iterable[pb.TaskSpec]) -> list[pb.TaskSpec]:
    """Return copies of the tasks with every default written out."""
    filled = []
    for task in tasks:
        copy = pb.TaskSpec()
        copy.CopyFrom(task)
        fill_task(copy)
        filled.append(copy)
    return filled


def fill_task(task: pb.TaskSpec) -> None:
    """Write the defaults into a task."""
    task.arguments_json = task.arguments_json or "{}"
    task.queue = task.queue or QUEUE
    task.on_failure = task.on_failure or pb.ON_FAILURE_FAIL
    for edge in task.dependencies:
        edge.scope = edge.scope or pb.DEPENDENCY_SCOPE_TASK
    # Most tasks leave a policy out: then the whole of it is copied at once.
    if task.HasField("join"):
        _fill_join(task.join)
    else:
        task.join.CopyFrom(DEFAULT_JOIN)
    if task.HasField("timeouts"):
        _fill_timeouts(task.timeouts)
    else:
        task.timeouts.CopyFrom(DEFAULT_TIMEOUTS)
    if task.HasField("retry"):
        _fill_retry(task.retry)
    else:
        task.retry.CopyFrom(DEFAULT_RETRY)


def _fill_join(join: pb.JoinRule) -> pb.JoinRule:
    join.kind = join.kind or pb.JOIN_KIND_ALL_SUCCEEDED
    join.rest = join.rest or pb.JOIN_REST_IGNORED
    return join


def _fill_timeouts(timeouts: pb.Timeouts) -> pb.Timeouts:
    if not timeouts.HasField("heartbeat"):
        timeouts.heartbeat.seconds = HEARTBEAT_S
    return timeouts


def _fill_retry(retry: pb.RetryPolicy) -> pb.RetryPolicy:
    retry.max_attempts = retry.max_attempts or MAX_ATTEMPTS
    retry.coefficient = retry.coefficient or COEFFICIENT
    if not retry.HasField("initial_interval"):
        retry.initial_interval.seconds = INITIAL_INTERVAL_S
    if not retry.HasField("max_interval"):
        # An interval beyond what a span may be is refused after this, by its own name.
        initial_s = min(retry.initial_interval.seconds, SPAN_S_MAX)
        retry.max_interval.seconds = max(MAX_INTERVAL_S, initial_s + 1)
    if not retry.HasField("jitter"):
        retry.jitter = JITTER
    return retry


# What a task that says nothing gets; compared with, copied from, never changed.
DEFAULT_JOIN = _fill_join(pb.JoinRule())
DEFAULT_TIMEOUTS = _fill_timeouts(pb.Timeouts())
DEFAULT_RETRY = _fill_retry(pb.RetryPolicy())
