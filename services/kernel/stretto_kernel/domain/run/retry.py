"""Whether and when a task is tried again. Nothing here is random: the same attempt always waits
the same time, in every fold on every machine.
"""

from __future__ import annotations

import hashlib
import math

from stretto.common.v1.failure_pb2 import Failure
from stretto_core.clock import NS_PER_MS, NS_PER_S
from stretto_core.ids import RunId, TaskName

from stretto_kernel.domain.run.plan import Retry

RETURN_WAIT_NS_MIN = 100 * NS_PER_MS
RETURN_WAIT_NS_MAX = 30 * NS_PER_S


def may_retry(policy: Retry, failure: Failure, tries: int) -> bool:
    """Whether a task is tried again after `tries` consumed attempts, the last ending so."""
    return (
        failure.retryable
        and tries < policy.max_attempts
        and failure.reason not in policy.non_retryable_reasons
    )


def backoff_ns(policy: Retry, tries: int, seed: bytes) -> int:
    """Return the wait after `tries` consumed attempts, 1 at least.

    interval = min(max_interval, initial_interval * coefficient^(tries - 1)), varied by a hash of
    `seed` within +-jitter of itself, and never beyond max_interval.
    """
    if policy.initial_interval_ns == 0:
        return 0
    growth = policy.max_interval_ns / policy.initial_interval_ns
    # Compared as logarithms: 100^10,000 is no float.
    if (tries - 1) * math.log(policy.coefficient) >= math.log(growth):
        interval_ns = policy.max_interval_ns
    else:
        interval_ns = int(policy.initial_interval_ns * policy.coefficient ** (tries - 1))
    share = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big") / 2**64
    varied_ns = int(interval_ns * (1.0 + policy.jitter * (2.0 * share - 1.0)))
    return min(varied_ns, policy.max_interval_ns)


def return_wait_ns(returns: int) -> int:
    """Return the wait after an attempt was given back, `returns` (>= 1) times in a row.

    None after the first, which a planned end of a worker makes; then 0.1 s, doubled each time up to
    30 s.
    """
    if returns < 2:
        return 0
    doublings = min(returns - 2, RETURN_WAIT_NS_MAX.bit_length())
    return min(RETURN_WAIT_NS_MIN << doublings, RETURN_WAIT_NS_MAX)


def attempt_seed(run_id: RunId, task: TaskName, activation: int, attempt: int) -> bytes:
    """Return what the jitter of one attempt is hashed from."""
    return f"{run_id}\0{task}\0{activation}\0{attempt}".encode()
