"""Deciding what may be written under a lease: the fence.

The epoch decides who may write, never the clock: late but current is fine, passed on is fenced. The
same outcome sent again is answered like the first; another under the same epoch is refused.
"""

from __future__ import annotations

import re

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.lease_pb2 import WORK_ITEM_KIND_TASK
from stretto.run.v1 import events_pb2 as ev
from stretto_core.clock import NS_PER_S
from stretto_core.ids import TaskName

from stretto_kernel.domain.run.artifacts import by_name, check_artifacts
from stretto_kernel.domain.run.bindings import Unresolved, resolve_manifest
from stretto_kernel.domain.run.canonical import WITHDRAWN_DIGEST, failure_digest, success_digest
from stretto_kernel.domain.run.commands import (
    CancelAttempt,
    Complete,
    Fail,
    HolderCommand,
    Lease,
    LeaseHolder,
    Lose,
    Progress,
    RecordRefusal,
    Release,
    Spawn,
)
from stretto_kernel.domain.run.findings import Findings
from stretto_kernel.domain.run.output_schema import REASON as VIOLATED_REASON
from stretto_kernel.domain.run.output_schema import violations
from stretto_kernel.domain.run.planning import result_or_null, spawned_specs, spawned_tasks
from stretto_kernel.domain.run.refusals import LeaseLost, NotLeasable, ResultConflict, TaskNotFound
from stretto_kernel.domain.run.state import RunEvent, RunState
from stretto_kernel.domain.run.stopping import (
    accepts_late,
    current_lease,
    is_dispatchable,
    stop_deadline_ns,
)
from stretto_kernel.domain.run.task import Leased, Open, TaskRecord

PROGRESS_INTERVAL_NS = 10 * NS_PER_S
MESSAGE_BYTES_MAX = 4 * 1024
RETRY_AFTER_S_MAX = 24 * 3600
"""What some other system asks for must not lay a task down for good."""
REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


def lease(state: RunState, command: Lease) -> tuple[RunEvent, ...]:
    """Begin the next attempt, or fail the task whose inputs lead nowhere."""
    record = find(state, command.task)
    phase = record.phase
    if not isinstance(phase, Open) or not is_dispatchable(state, record):
        raise NotLeasable(
            "the task is held, ended or not ready, or its run does not dispatch", task=record.name
        )
    if command.now_ns < phase.not_before_ns:
        raise NotLeasable(
            "the task waits before its next attempt",
            task=record.name,
            not_before_ns=str(phase.not_before_ns),
        )
    try:
        manifest = resolve_manifest(state, record)
    except Unresolved as unresolved:
        failed = ev.TaskFailed(
            task=record.name, activation=record.activation, failure=unresolved.failure
        )
        return (failed,)
    ttl_ns = record.spec.timeouts.heartbeat_ns if command.ttl_ns is None else command.ttl_ns
    leased = ev.AttemptLeased(
        task=record.name,
        kind=WORK_ITEM_KIND_TASK,
        epoch=record.epoch + 1,
        activation=record.activation,
        attempt=record.tries + 1,
        worker_id=command.worker_id,
        session_id=command.session_id,
        manifest_digest=state.keyed(manifest.digest),
        request_id=command.request_id,
    )
    leased.ttl.seconds, leased.ttl.nanos = divmod(ttl_ns, NS_PER_S)
    return (leased,)


def complete(state: RunState, command: Complete) -> tuple[RunEvent, ...]:
    """Accept the result and what it spawns; one that violates its schema is a failed attempt."""
    record = find(state, command.task)
    result = result_or_null(command.result)
    specs = spawned_specs(state, record, command.spawned) if command.spawned else ()
    artifacts = by_name(command.artifacts)
    digest = state.keyed(success_digest(result, specs, artifacts))
    if _is_repeat(record, command.epoch, digest):
        return ()
    late = accepts_late(state, record, command.epoch)
    if not late:
        fence(state, record, command)
    findings = Findings()
    findings.check_payload("result", result)
    check_artifacts(findings, "artifacts", artifacts)
    findings.refuse("the result")
    schema = record.spec.output_schema_json
    if schema and (violated := violations(schema, result)):
        if late:
            fence(state, record, command)  # Its try was counted when it was lost.
        failed = ev.AttemptFailed(
            task=record.name,
            epoch=command.epoch,
            failure=_violated(violated),
            outcome_digest=digest,
        )
        return (failed,)
    spawned = spawned_tasks(state, record, command.spawned, "spawned") if command.spawned else ()
    return (
        ev.AttemptSucceeded(
            task=record.name,
            epoch=command.epoch,
            result=result,
            outcome_digest=digest,
            spawned=spawned,
            artifacts=artifacts,
        ),
    )


def fail(state: RunState, command: Fail) -> tuple[RunEvent, ...]:
    """Accept the failure; whether the task is tried again follows from its policy."""
    record = find(state, command.task)
    failure = _cut(command.failure)
    digest = state.keyed(failure_digest(failure))
    if _is_repeat(record, command.epoch, digest):
        return ()
    fence(state, record, command)
    findings = Findings()
    if not REASON.match(failure.reason):
        findings.wrong("failure.reason", "must be an UPPER_SNAKE word of 1-64 characters")
    if failure.HasField("details"):
        findings.check_payload("failure.details", failure.details, is_inline=True)
    findings.check_span("failure.retry_after", failure.retry_after, least_ns=0)
    _check_details(findings, command)
    findings.refuse("the failure")
    return (
        ev.AttemptFailed(
            task=record.name,
            epoch=command.epoch,
            failure=failure,
            outcome_digest=digest,
            details=command.details,
        ),
    )


def release(state: RunState, command: Release) -> tuple[RunEvent, ...]:
    """Take the attempt back; what the kernel takes back of a lease that is over changes nothing."""
    record = find(state, command.task)
    if command.cause == ev.RELEASE_CAUSE_RETURNED:
        if _is_repeat(record, command.epoch, WITHDRAWN_DIGEST):
            return ()
        fence(state, record, command)
    elif not _is_current(state, record, command.epoch):
        return ()
    findings = Findings()
    _check_details(findings, command)
    findings.refuse("the release")
    return (_released(record, command.cause, command),)


def cancel_attempt(state: RunState, command: CancelAttempt) -> tuple[RunEvent, ...]:
    """Accept that the attempt stopped; one that nobody asked to stop is given back."""
    record = find(state, command.task)
    if _is_repeat(record, command.epoch, WITHDRAWN_DIGEST):
        return ()
    fence(state, record, command)
    findings = Findings()
    _check_details(findings, command)
    findings.refuse("the cancellation")
    if stop_deadline_ns(state, record) is None:
        return (_released(record, ev.RELEASE_CAUSE_RETURNED, command),)
    return (
        ev.AttemptCancelled(task=record.name, epoch=command.epoch, outcome_digest=WITHDRAWN_DIGEST),
    )


def spawn(state: RunState, command: Spawn) -> tuple[RunEvent, ...]:
    """Add tasks below the leased one; those that are there already are left out."""
    record = find(state, command.task)
    fence(state, record, command)
    fresh = spawned_tasks(state, record, command.tasks, "tasks")
    if not fresh:
        return ()
    return (ev.TasksSpawned(task=record.name, epoch=command.epoch, tasks=fresh),)


def progress(state: RunState, command: Progress) -> tuple[RunEvent, ...]:
    """Record details that are new, at most once in 10 s."""
    record = find(state, command.task)
    held = fence(state, record, command)
    recent = held.details_ns and command.now_ns - held.details_ns < PROGRESS_INTERVAL_NS
    if recent or record.details == command.details:
        return ()
    findings = Findings()
    findings.check_payload("details", command.details, is_inline=True)
    findings.refuse("the progress")
    return (ev.AttemptProgressed(task=record.name, epoch=command.epoch, details=command.details),)


def lose(state: RunState, command: Lose) -> tuple[RunEvent, ...]:
    """Take the lease from a holder that went silent."""
    record = find(state, command.task)
    if not _is_current(state, record, command.epoch):
        return ()
    return (
        ev.AttemptLost(
            task=record.name, epoch=command.epoch, cause=command.cause, details=command.details
        ),
    )


def record_refusal(state: RunState, command: RecordRefusal) -> tuple[RunEvent, ...]:
    """Record a fenced write once per granted epoch; an epoch never granted is no holder's."""
    if command.task not in state.tasks:
        return ()
    record = state.tasks[command.task]
    if not 1 <= command.epoch <= record.epoch or command.epoch in record.refused_epochs:
        return ()
    if _is_current(state, record, command.epoch):
        return ()
    return (ev.WriteRefused(task=record.name, epoch=command.epoch, current_epoch=record.epoch),)


def find(state: RunState, task: TaskName) -> TaskRecord:
    """Return the task's record. Raises TaskNotFound."""
    if task not in state.tasks:
        raise TaskNotFound(f"the run has no task {task!r}", task=task)
    return state.tasks[task]


def _is_current(state: RunState, record: TaskRecord, epoch: int) -> bool:
    return epoch == record.epoch and current_lease(state, record) is not None


def fence(state: RunState, record: TaskRecord, command: HolderCommand | LeaseHolder) -> Leased:
    """Return the lease if its holder may write. Raises LeaseLost."""
    held = current_lease(state, record)
    if held is None or command.epoch != record.epoch:
        raise LeaseLost(
            f"epoch {command.epoch} of {record.name!r} is over: stop work, drop the result",
            task=record.name,
            presented_epoch=str(command.epoch),
            current_epoch=str(record.epoch),
        )
    return held


def _is_repeat(record: TaskRecord, epoch: int, digest: bytes) -> bool:
    accepted = record.outcomes.get(epoch)
    if accepted is None:
        return False
    if accepted == digest:
        return True
    if epoch == record.epoch:
        raise ResultConflict(
            f"another outcome of {record.name!r} was accepted under epoch {epoch}",
            task=record.name,
            epoch=str(epoch),
        )
    return False  # Passed on since: the fence refuses it.


def _violated(violated: str) -> Failure:
    message = f"the result violates its output schema: {violated}"
    return _cut(Failure(reason=VIOLATED_REASON, message=message, retryable=True))


def _released(
    record: TaskRecord, cause: ev.ReleaseCause.ValueType, command: Release | CancelAttempt
) -> ev.AttemptReleased:
    return ev.AttemptReleased(
        task=record.name, epoch=command.epoch, cause=cause, details=command.details
    )


def _check_details(findings: Findings, command: Fail | Release | CancelAttempt) -> None:
    if command.details is not None:
        findings.check_payload("details", command.details, is_inline=True)


def _cut(failure: Failure) -> Failure:
    """Return the worker's failure with message and retry_after within their limits.

    Its task is ours to say, and what is encrypted ours to make.
    """
    cut = Failure()
    cut.CopyFrom(failure)
    cut.task = ""
    cut.encrypted = b""
    message = failure.message.encode()
    if len(message) > MESSAGE_BYTES_MAX:
        cut.message = message[:MESSAGE_BYTES_MAX].decode(errors="ignore")
    if failure.retry_after.seconds >= RETRY_AFTER_S_MAX:
        cut.retry_after.FromSeconds(RETRY_AFTER_S_MAX)
    return cut
