"""What the end of an attempt means for its task: tried again, failed for good, or cancelled.

Called by `evolve` only. A try is consumed by a failure, a loss and a timeout; not by a release. But
what its holders give back waits longer the more often they do so in a row: whoever gives back all
that it is given must not fill the log. What never arrived, and the kernel takes back, does not.
"""

from __future__ import annotations

from stretto.common.v1.failure_pb2 import Failure
from stretto.run.v1 import events_pb2 as ev
from stretto_core.clock import NS_PER_S

from stretto_kernel.domain.run.joins import Settling
from stretto_kernel.domain.run.plan import duration_ns
from stretto_kernel.domain.run.retry import (
    RETURN_WAIT_NS_MAX,
    attempt_seed,
    backoff_ns,
    may_retry,
    return_wait_ns,
)
from stretto_kernel.domain.run.stopping import begin_failing, stop_deadline_ns
from stretto_kernel.domain.run.task import Cancelled, Failed, Leased, Open, TaskRecord

_LOSSES = {
    ev.LOSS_CAUSE_EXPIRED: ("LEASE_EXPIRED", "the lease was not renewed in time"),
    ev.LOSS_CAUSE_PROCESS_GONE: ("WORKER_GONE", "the worker's process ended"),
    ev.LOSS_CAUSE_SESSION_REPLACED: ("SESSION_REPLACED", "a newer process of the worker took over"),
    ev.LOSS_CAUSE_NOT_RECLAIMED: ("NOT_RECLAIMED", "the worker did not come back for it"),
}
_TIMEOUTS = {
    "QUEUE_TIMEOUT": "nobody leased the task in time",
    "ATTEMPT_TIMEOUT": "the attempt ran too long",
    "TASK_TIMEOUT": "all attempts together took too long",
    "RUN_TIMEOUT": "the run took too long",
    "CLEAN_UP_TIMEOUT": "the clean-up took too long",
    "PLAN_NOT_SEALED": "no further slice of the plan came in time",
}


def loss_failure(cause: ev.LossCause.ValueType) -> Failure:
    """Return a lost attempt as a failure; another attempt may help."""
    reason, message = _LOSSES[cause]
    return Failure(reason=reason, message=message, retryable=True)


def timeout_failure(reason: str, limit_ns: int | None) -> Failure:
    """Return a limit in time as a failure; only an attempt's is worth another try.

    limit_ns: the limit, which the message names.
    """
    limit = "" if limit_ns is None else f": its limit is {_seconds(limit_ns)} s"
    return Failure(
        reason=reason,
        message=f"{_TIMEOUTS[reason]}{limit}",
        retryable=reason == "ATTEMPT_TIMEOUT",
    )


def _seconds(span_ns: int) -> str:
    whole, rest_ns = divmod(span_ns, NS_PER_S)
    return f"{whole}.{rest_ns:09}".rstrip("0").rstrip(".")


def end_attempt(
    settling: Settling, record: TaskRecord, failure: Failure | None, *, silent: bool = False
) -> None:
    """Offer the task again, fail it, or cancel it.

    failure: what consumed a try; None = released, nothing was.
    silent: the holder did not say so: offered at once, and its late result is welcome until passed
    on.
    """
    state = settling.state
    was_asked_to_stop = stop_deadline_ns(state, record) is not None
    not_before_ns = settling.time_ns
    if failure is None and not silent:
        record.returns = 1 if _was_worked_on(record, settling.time_ns) else record.returns + 1
        not_before_ns += return_wait_ns(record.returns)
    elif failure is not None:
        record.tries += 1
        record.returns = 0
        record.failure = _with_task(failure, record)
    if was_asked_to_stop:
        settling.end(record, cancelled(record, settling.time_ns))
        return
    policy = record.spec.retry
    if failure is not None and not may_retry(policy, failure, record.tries):
        fail_task(settling, record, failure)
        return
    if failure is not None and not silent:
        seed = attempt_seed(state.run_id, record.name, record.activation, record.tries)
        asked_ns = duration_ns(failure.retry_after)
        not_before_ns += max(asked_ns, backoff_ns(policy, record.tries, seed))
    state.move(
        record, Open(settling.time_ns, not_before_ns, late_epoch=record.epoch if silent else 0)
    )


def _was_worked_on(record: TaskRecord, time_ns: int) -> bool:
    """Whether the lease that ends now was held for longer than a release ever waits."""
    lease = record.phase
    assert isinstance(lease, Leased)
    return time_ns - lease.leased_ns > RETURN_WAIT_NS_MAX


def cancelled(record: TaskRecord, time_ns: int) -> Cancelled:
    """Return the end of a leased task that stopped as it was asked to."""
    lease = record.phase
    assert isinstance(lease, Leased)
    return Cancelled(time_ns, unneeded=lease.stop_deadline_ns is not None)


def fail_task(settling: Settling, record: TaskRecord, failure: Failure) -> None:
    """End the task as FAILED and let the run follow its failure policy."""
    state = settling.state
    record.failure = _with_task(failure, record)
    settling.end(record, Failed(settling.time_ns))
    if record.spec.failure_ignored:
        return
    if record.spec.clean_up:
        state.clean_up_failure = state.clean_up_failure or record.failure
    elif state.policies.fails_fast:
        begin_failing(state, record.failure)
    else:
        state.failure = state.failure or record.failure


def _with_task(failure: Failure, record: TaskRecord) -> Failure:
    own = Failure()
    own.CopyFrom(failure)
    own.task = record.name
    return own
