"""A limit that was passed says which it is."""

from __future__ import annotations

import pytest
from stretto_kernel.domain.run.attempts import timeout_failure


@pytest.mark.parametrize(
    ("limit_ns", "says"),
    [(1_500_000_000, "its limit is 1.5 s"), (60_000_000_000, "60 s"), (1_000_000, "0.001 s")],
)
def test_a_passed_limit_is_named(limit_ns: int, says: str) -> None:
    failure = timeout_failure("ATTEMPT_TIMEOUT", limit_ns)
    assert failure.message.endswith(says)
    assert failure.retryable
    assert not timeout_failure("RUN_TIMEOUT", None).retryable
